"""Cross-entropy against its formula in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.losses import CELoss

from .loss_checks import Matrix, run, slopes


def by_hand(logits: Matrix, labels: list[int], epsilon: float) -> float:
    terms = []
    for row, label in zip(logits, labels, strict=True):
        if label >= 0:
            top = max(row)
            total = top + math.log(sum(math.exp(x - top) for x in row))
            target = [epsilon / len(row) + (1 - epsilon) * (number == label) for number in range(len(row))]
            terms.append(sum(share * (total - x) for share, x in zip(target, row, strict=True)))
    return sum(terms) / max(len(terms), 1)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("labels", [[2, 1, 0, 3, 3], [2, -1, 0, 3, -1], [-1] * 5], ids=str)
def test_averages_the_labelled_rows(epsilon: float, labels: list[int]) -> None:
    logits = np.random.default_rng(0).standard_normal((5, 4)) * 3
    value, _, gradient = run(CELoss(epsilon), labels, logits=logits)
    assert value == pytest.approx(by_hand(logits.tolist(), labels, epsilon), rel=1e-9)
    expected = slopes(lambda logits: by_hand(logits, labels, epsilon), logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-9)


def test_label_smoothing_spreads_epsilon_evenly() -> None:
    value, _, gradient = run(CELoss(epsilon=0.1), [[1]], logits=np.zeros((1, 4), np.float32))
    assert value == pytest.approx(math.log(4), rel=1e-5)
    np.testing.assert_allclose(gradient, [[0.225, 0.25 - 0.925, 0.225, 0.225]], rtol=1e-5)


def test_of_no_labels_is_zero_with_a_gradient() -> None:
    value, _, gradient = run(CELoss(), [-1, -1], logits=np.ones((2, 3), np.float32))
    assert value == 0.0
    assert gradient.shape == (2, 3)
    assert not gradient.any()


@pytest.mark.parametrize("size", [70.0, 1e4, 1e17])
def test_extreme_logits_stay_finite(size: float) -> None:
    value, _, gradient = run(CELoss(), [1], logits=np.array([[size, -size]], np.float32))
    assert value == pytest.approx(2 * size, rel=1e-5)
    np.testing.assert_allclose(gradient, [[1.0, -1.0]])


@pytest.mark.parametrize("epsilon", [1.0, -0.1, math.nan])
def test_refuses_an_epsilon_that_is_no_share(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        CELoss(epsilon)


def test_refuses_a_label_that_is_no_class() -> None:
    logits = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"label 3 of picture 1 .* the number of logits is 3"):
        run(CELoss(), [0, 3], logits=logits)
    with pytest.raises(ValueError, match="label -100 of picture 0"):
        run(CELoss(), [-100, 0], logits=logits)
    with pytest.raises(ValueError, match=r"label has shape \[3\]"):
        run(CELoss(), [0, 1, 2], logits=logits)
