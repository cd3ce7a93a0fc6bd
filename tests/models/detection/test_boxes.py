"""Overlap and suppression against plain loops."""

import numpy as np
import pytest

from models.training.detection.boxes import areas, intersections, overlaps, suppress


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def random_boxes(count: int, seed: int) -> np.ndarray:
    corners = np.sort(np.random.default_rng(seed).uniform(0, 100, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def test_overlaps_equal_the_definition() -> None:
    first, second = random_boxes(13, 0), random_boxes(7, 1)
    expected = [[overlap(a, b) for b in second] for a in first]
    np.testing.assert_allclose(overlaps(first, second), expected, rtol=1e-4, atol=1e-6)
    assert overlaps(first[:0], second).shape == (0, 7)
    assert overlaps(first, second[:0]).shape == (13, 0)


def test_boxes_without_area_overlap_nothing() -> None:
    flat = np.float32([[5, 5, 5, 9], [9, 9, 1, 1]])
    assert areas(flat).tolist() == [0, 0]
    assert intersections(flat, flat).max() == 0
    assert overlaps(flat, flat).max() == 0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6])
def test_suppression_keeps_the_best_of_each_group(threshold: float) -> None:
    boxes = random_boxes(60, 2)
    scores = np.random.default_rng(3).permutation(60).astype(np.float32)
    kept: list[int] = []
    for number in np.argsort(-scores):
        if all(overlap(boxes[number], boxes[better]) <= threshold for better in kept):
            kept.append(int(number))
    assert suppress(boxes, scores, threshold, 100).tolist() == kept
    assert suppress(boxes, scores, threshold, 3).tolist() == kept[:3]
    assert len(suppress(boxes[:0], scores[:0], threshold, 3)) == 0
