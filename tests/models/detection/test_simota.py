"""SimOTA against its definition in loops, and what it must never do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.nets.picodet import cell_centres
from models.training.detection.simota import Assignment, assign

SIDE = 128


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray]:
    centres, strides = cell_centres(SIDE, SIDE)
    return centres.numpy(), strides.numpy()[:, 0]


def predict(cells: tuple[np.ndarray, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random scores, and boxes around the cells."""
    rng = np.random.default_rng(seed)
    reach = cells[1][:, None] * rng.uniform(0.5, 4, (len(cells[0]), 4))
    boxes = np.concatenate([cells[0] - reach[:, :2], cells[0] + reach[:, 2:]], axis=1)
    return rng.uniform(0.01, 0.9, len(boxes)).astype(np.float32), boxes.astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def by_hand(
    scores: np.ndarray, boxes: np.ndarray, objects: np.ndarray, cells: tuple[np.ndarray, np.ndarray]
) -> dict[int, int]:
    """Cell to object, by the definition."""
    centres, strides = cells
    costs: dict[tuple[int, int], tuple[float, float]] = {}
    for cell in range(len(centres)):
        x, y = centres[cell]
        inside = [box[0] < x < box[2] and box[1] < y < box[3] for box in objects]
        central = [
            max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2)) < 2.5 * strides[cell] for box in objects
        ]
        if not any(inside) and not any(central):
            continue
        for number, box in enumerate(objects):
            shared, score = overlap(boxes[cell], box), float(scores[cell])
            entropy = -(shared * math.log(score) + (1 - shared) * math.log(1 - score))
            cost = entropy * (shared - score) ** 2 - 6 * math.log(shared + 1e-7)
            costs[cell, number] = (cost + (0 if inside[number] and central[number] else 1e5), shared)
    claims: dict[int, list[tuple[float, int]]] = {}
    for number in range(len(objects)):
        own = [(cost, cell, shared) for (cell, which), (cost, shared) in costs.items() if which == number]
        count = max(1, int(sum(sorted((shared for *_, shared in own), reverse=True)[:10])))
        for cost, cell, shared in sorted(own)[:count]:
            if shared > 0:
                claims.setdefault(cell, []).append((cost, number))
    return {cell: min(offers)[1] for cell, offers in claims.items()}


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(cells: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    scores, boxes = predict(cells, seed)
    objects = np.float32([[10, 12, 70, 100], [60, 20, 120, 90], [64, 64, 90, 126]])
    found = assign(scores, boxes, objects, *cells)
    assert dict(zip(found.cells.tolist(), found.objects.tolist(), strict=True)) == by_hand(
        scores, boxes, objects, cells
    )
    expected = [overlap(boxes[cell], objects[number]) for cell, number in zip(found.cells, found.objects, strict=True)]
    np.testing.assert_allclose(found.quality, expected, rtol=1e-4)


def test_a_cell_finds_one_object_only(cells: tuple[np.ndarray, np.ndarray]) -> None:
    scores, boxes = predict(cells, 9)
    objects = np.float32([[20, 20, 100, 100]] * 3 + [[22, 20, 98, 104]])
    found = assign(scores, boxes, objects, *cells)
    assert len(set(found.cells.tolist())) == len(found.cells) > 0


@pytest.mark.parametrize(
    "objects",
    [np.zeros((0, 4)), [[5, 5, 5, 5]], [[-40, -40, -1, -1]], [[0, 0, SIDE, SIDE]], [[3, 3, 4, 4]]],
    ids=["none", "empty", "outside", "whole", "one pixel"],
)
def test_any_object_is_survived(cells: tuple[np.ndarray, np.ndarray], objects: np.ndarray) -> None:
    found = assign(*predict(cells, 1), np.float32(objects).reshape(-1, 4), *cells)
    assert isinstance(found, Assignment)
    assert np.isfinite(found.quality).all()
    assert len(found.cells) == len(found.objects) == len(found.quality)
