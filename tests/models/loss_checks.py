"""What the tests of the losses share: call one, differentiate an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

Matrix = list[list[float]]


def run(
    loss: nn.Layer, label: Any, features: np.ndarray | None = None, logits: np.ndarray | None = None
) -> tuple[float, np.ndarray | None, np.ndarray | None]:
    """Value, gradient by features and gradient by logits, in the precision of the arrays."""
    output = {
        name: paddle.to_tensor(array, stop_gradient=False)
        for name, array in (("features", features), ("logits", logits))
        if array is not None
    }
    value = loss(output, paddle.to_tensor(label))
    assert value.shape == []
    value.backward()
    return float(value), *(None if name not in output else _gradient(output[name]) for name in ("features", "logits"))


def _gradient(tensor: paddle.Tensor) -> np.ndarray | None:
    return None if tensor.grad is None else tensor.grad.numpy()


def slopes(function: Callable[[Matrix], float], point: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Gradient of a function of a matrix by central differences."""
    result = np.zeros(point.shape)
    for index in np.ndindex(*point.shape):
        values = []
        for sign in (1.0, -1.0):
            moved = point.astype(np.float64)
            moved[index] += sign * step
            values.append(function(moved.tolist()))
        result[index] = (values[0] - values[1]) / (2.0 * step)
    return result


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """Inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def assert_equal_to_reference(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-5 of every number, those aside that are nothing beside the largest (float32 rounds them)."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


EXTREMES = {
    "zeros": np.zeros((4, 8), np.float32),
    "one zero row": np.vstack([np.zeros((1, 8)), np.ones((3, 8))]).astype(np.float32),
    "equal rows": np.full((4, 8), 0.5, np.float32),
    "opposite rows": np.outer([1, -1, 1, -1], np.ones(8)).astype(np.float32),
    "tiny": (np.random.default_rng(2).standard_normal((4, 8)) * 1e-20).astype(np.float32),
    "huge": (np.random.default_rng(3).standard_normal((4, 8)) * 1e14).astype(np.float32),
}
"""Features (4, 8) where a logarithm, a root, a quotient or an exponential could fail."""
LABELS = {
    "two classes": [0, 1, 0, 1],
    "one class": [2, 2, 2, 2],
    "no pair of one class": [0, 1, 2, 3],
    "some without": [0, -1, 1, -1],
    "none": [-1, -1, -1, -1],
}
