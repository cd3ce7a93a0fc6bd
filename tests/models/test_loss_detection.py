"""The losses of a detector against their formulas in loops, and where logarithms and quotients could fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import paddle
import pytest

from models.losses.detection import distribution_focal_loss, giou_loss, quality_focal_loss

from .loss_checks import slopes


def value_and_gradient(
    loss: Callable[[paddle.Tensor], paddle.Tensor], point: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    tensor = paddle.to_tensor(point, stop_gradient=False)
    values = loss(tensor)
    values.sum().backward()
    return values.numpy(), tensor.grad.numpy()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def quality_by_hand(logit: float, quality: float, beta: float) -> float:
    score = sigmoid(logit)
    return abs(quality - score) ** beta * -(quality * math.log(score) + (1 - quality) * math.log(1 - score))


def distribution_by_hand(logits: list[float], distance: float) -> float:
    total = sum(math.exp(each) for each in logits)
    below = math.floor(distance)
    low, high = math.log(math.exp(logits[below]) / total), math.log(math.exp(logits[below + 1]) / total)
    return -(below + 1 - distance) * low - (distance - below) * high


def giou_by_hand(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return 1 - shared / union + (hull - union) / hull


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_quality_focal_loss_equals_its_formula(beta: float) -> None:
    logits = np.array([[-3.0, 0.0, 0.4, 2.0, -1.0, 5.0]])
    quality = [0.0, 1.0, 0.7, 0.3, 1.0, 0.0]
    values, gradient = value_and_gradient(
        lambda tensor: quality_focal_loss(tensor, paddle.to_tensor([quality], "float64"), beta), logits
    )
    expected = [quality_by_hand(*pair, beta) for pair in zip(logits[0], quality, strict=True)]
    np.testing.assert_allclose(values[0], expected, rtol=1e-9)

    def total(rows: list[list[float]]) -> float:
        return sum(quality_by_hand(*pair, beta) for pair in zip(rows[0], quality, strict=True))

    np.testing.assert_allclose(gradient, slopes(total, logits), rtol=1e-5, atol=1e-9)


def test_distribution_focal_loss_equals_its_formula() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 8))
    distances = [0.0, 2.25, 6.5, 3.0]
    values, gradient = value_and_gradient(
        lambda tensor: distribution_focal_loss(tensor, paddle.to_tensor(distances, "float64")), logits
    )
    np.testing.assert_allclose(values, list(map(distribution_by_hand, logits.tolist(), distances)), rtol=1e-6)
    expected = slopes(lambda rows: sum(map(distribution_by_hand, rows, distances)), logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_distances_beyond_the_bins_count_as_the_nearest() -> None:
    logits = paddle.to_tensor(np.random.default_rng(1).standard_normal((4, 8)))
    rows = paddle.to_tensor([-2.0, 7.0, 11.0, 1e9], "float64")
    values = distribution_focal_loss(logits, rows).numpy()
    log_probability = paddle.nn.functional.log_softmax(logits).numpy()
    np.testing.assert_allclose(values[0], -log_probability[0, 0], rtol=1e-6)
    np.testing.assert_allclose(values[1:], -log_probability[1:, 7], rtol=2e-3)


def test_giou_equals_its_formula() -> None:
    boxes = np.array([[0.0, 0, 4, 4], [0, 0, 2, 2], [1, 1, 3, 5], [10, 10, 12, 14]])
    goals = [[1.0, 1, 5, 4], [5, 5, 7, 9], [0, 0, 9, 9], [10, 10, 12, 14]]
    values, gradient = value_and_gradient(lambda tensor: giou_loss(tensor, paddle.to_tensor(goals, "float64")), boxes)
    np.testing.assert_allclose(values, list(map(giou_by_hand, boxes.tolist(), goals)), rtol=1e-9, atol=1e-12)
    # Not at the last pair, where the two are equal and the loss has a kink.
    expected = slopes(lambda rows: sum(map(giou_by_hand, rows, goals[:3])), boxes[:3])
    np.testing.assert_allclose(gradient[:3], expected, rtol=1e-4, atol=1e-8)
    assert values[3] == pytest.approx(0.0)
    assert values[1] > 1.0


def test_nothing_becomes_infinite() -> None:
    extremes = np.float32([-1e4, -100.0, -1e-20, 0.0, 1e-20, 100.0, 1e4])
    for quality in (0.0, 0.5, 1.0):
        values, gradient = value_and_gradient(
            lambda tensor, goal=quality: quality_focal_loss(tensor, paddle.full_like(tensor, goal)), extremes
        )
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()
    empty = np.float32([[3, 3, 3, 3], [0, 0, 0, 9]])
    values, gradient = value_and_gradient(lambda tensor: giou_loss(tensor, paddle.to_tensor(empty)), empty)
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()
    spread = np.float32([[1e4, -1e4, 0, 0]])
    values, gradient = value_and_gradient(
        lambda tensor: distribution_focal_loss(tensor, paddle.to_tensor([1.5])), spread
    )
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()
