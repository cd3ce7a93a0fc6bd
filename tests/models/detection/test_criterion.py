"""What outputs for a batch are worth."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.losses.detection import quality_focal_loss
from models.nets.picodet import cell_centres
from models.training.detection.config import LossWeights
from models.training.detection.criterion import Criterion

SIDE, BINS = 128, 8
NONE = np.zeros((0, 4), np.float32)


@pytest.fixture(scope="module")
def centres() -> np.ndarray:
    return cell_centres(SIDE, SIDE)[0].numpy()


def outputs(cells: int, seed: int = 0, count: int = 1) -> tuple[paddle.Tensor, paddle.Tensor]:
    rng = np.random.default_rng(seed)
    arrays = rng.standard_normal((count, cells, 1)) - 2, rng.standard_normal((count, cells, 4 * BINS))
    logits, distances = (paddle.to_tensor(array.astype(np.float32), stop_gradient=False) for array in arrays)
    return logits, distances


def total(parts: dict[str, paddle.Tensor]) -> paddle.Tensor:
    return parts["quality"] + parts["box"] + parts["distribution"]


def test_learning_one_picture_finds_its_objects(centres: np.ndarray) -> None:
    """Adam on the outputs themselves: the best cells come to have the boxes of the objects, and high scores."""
    logits, distances = outputs(len(centres))
    objects = np.float32([[10, 20, 60, 100, 1.0], [70, 30, 120, 90, 1.0]])
    criterion = Criterion(SIDE, SIDE, LossWeights())
    optimizer = paddle.optimizer.Adam(0.2, parameters=[logits, distances])
    for _ in range(40):
        parts = criterion(logits, distances, [objects], [NONE])
        total(parts).backward()
        optimizer.step()
        optimizer.clear_grad()
    scores = paddle.nn.functional.sigmoid(logits)[0, :, 0].numpy()
    best = [
        int(np.where((centres > box[:2]).all(axis=1) & (centres < box[2:4]).all(axis=1), scores, 0).argmax())
        for box in objects
    ]
    assert scores[best].min() > 0.7
    outside = ~np.any([(centres > box[:2]).all(axis=1) & (centres < box[2:4]).all(axis=1) for box in objects], axis=0)
    assert scores[outside].max() < 0.3
    assert float(parts["box"]) < 0.4


def test_what_is_cut_off_is_to_score_lower(centres: np.ndarray) -> None:
    criterion = Criterion(SIDE, SIDE, LossWeights(box=0.0, distribution=0.0))
    box = [10, 20, 60, 100]
    learned = []
    for seen in (1.0, 0.5):
        logits, distances = outputs(len(centres))
        optimizer = paddle.optimizer.Adam(0.2, parameters=[logits])
        for _ in range(25):
            total(criterion(logits, distances, [np.float32([[*box, seen]])], [NONE])).backward()
            optimizer.step()
            optimizer.clear_grad()
        learned.append(float(paddle.nn.functional.sigmoid(logits).numpy().max()))
    assert learned[1] < 0.75 * learned[0]


def test_ignored_regions_teach_nothing(centres: np.ndarray) -> None:
    logits, distances = outputs(len(centres))
    region = np.float32([[0, 0, SIDE / 2, SIDE]])
    parts = Criterion(SIDE, SIDE, LossWeights())(logits, distances, [np.zeros((0, 5), np.float32)], [region])
    total(parts).backward()
    ignored = centres[:, 0] < SIDE / 2
    assert np.abs(logits.grad.numpy()[0, ignored]).max() == 0
    assert np.abs(logits.grad.numpy()[0, ~ignored]).min() > 0
    expected = quality_focal_loss(logits[0, :, 0], paddle.zeros([len(centres)])).numpy()[~ignored].sum()
    assert float(parts["quality"]) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_objects_has_gradients_of_zero_for_boxes(centres: np.ndarray) -> None:
    logits, distances = outputs(len(centres), count=2)
    empty = np.zeros((0, 5), np.float32)
    parts = Criterion(SIDE, SIDE, LossWeights())(logits, distances, [empty, empty], [NONE, NONE])
    total(parts).backward()
    assert float(parts["box"]) == float(parts["distribution"]) == 0
    assert np.abs(distances.grad.numpy()).max() == 0


def test_weights_multiply_their_parts(centres: np.ndarray) -> None:
    objects = np.float32([[10, 20, 60, 100, 1.0]])
    once = Criterion(SIDE, SIDE, LossWeights(1.0, 1.0, 1.0))(*outputs(len(centres)), [objects], [NONE])
    more = Criterion(SIDE, SIDE, LossWeights(2.0, 3.0, 0.5))(*outputs(len(centres)), [objects], [NONE])
    for name, factor in {"quality": 2.0, "box": 3.0, "distribution": 0.5}.items():
        assert float(more[name]) == pytest.approx(factor * float(once[name]), rel=1e-5)
