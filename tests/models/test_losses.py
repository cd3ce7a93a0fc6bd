"""Losses, against the formulas written as loops."""

import math

import numpy as np
import paddle
import pytest

from models.losses import CELoss, SimilarityPreservingLoss


def test_cross_entropy_averages_the_labelled_rows() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 4)).astype(np.float32) * 3
    labels = [2, -1, 0, 3, -1]
    terms = []
    for row, label in zip(logits.astype(float), labels, strict=True):
        if label >= 0:
            terms.append(math.log(sum(math.exp(x) for x in row)) - row[label])
    value = CELoss()({"logits": paddle.to_tensor(logits)}, paddle.to_tensor(labels))
    assert float(value) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_label_smoothing_spreads_epsilon_evenly() -> None:
    logits = np.array([[2.0, -1.0, 0.5]], np.float32)
    log_total = math.log(sum(math.exp(x) for x in logits[0]))
    target = [0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3]
    expected = sum(share * (log_total - x) for share, x in zip(target, logits[0], strict=True))
    value = CELoss(epsilon=0.1)({"logits": paddle.to_tensor(logits)}, paddle.to_tensor([[1]]))
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_no_labels_is_zero_with_a_gradient() -> None:
    logits = paddle.randn([2, 3])
    logits.stop_gradient = False
    value = CELoss()({"logits": logits}, paddle.to_tensor([-1, -1]))
    value.backward()
    assert float(value) == 0.0
    assert not logits.grad.numpy().any()


def test_extreme_logits_stay_finite() -> None:
    logits = paddle.to_tensor([[1e4, -1e4]], stop_gradient=False)
    value = CELoss()({"logits": logits}, paddle.to_tensor([1]))
    value.backward()
    assert float(value) == pytest.approx(2e4)
    assert np.isfinite(logits.grad.numpy()).all()


def test_refuses_an_epsilon_that_is_no_share() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        CELoss(epsilon=1.0)


def test_similarities_are_compared_within_a_group() -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((6, 8))
    teacher = rng.standard_normal((6, 5))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    groups = [0, 0, 1, -1, 1, 0]
    total, pairs = 0.0, 0
    for i in range(6):
        for j in range(6):
            if groups[i] == groups[j] and groups[i] >= 0:
                norms = np.linalg.norm(features[i]) * np.linalg.norm(features[j])
                target = max((float(teacher[i] @ teacher[j]) - 0.375) / 0.625, -0.2)
                total += (float(features[i] @ features[j]) / norms - target) ** 2
                pairs += 1
    value = SimilarityPreservingLoss(low=0.375)(
        {"features": paddle.to_tensor(features.astype(np.float32))},
        paddle.to_tensor(teacher.astype(np.float32)),
        paddle.to_tensor(groups),
    )
    assert float(value) == pytest.approx(total / pairs, rel=1e-5)


def test_no_teacher_costs_nothing() -> None:
    output = {"features": paddle.randn([3, 8])}
    value = SimilarityPreservingLoss()(output, paddle.zeros([3, 0]), paddle.to_tensor([-1, -1, -1]))
    assert float(value) == 0.0
