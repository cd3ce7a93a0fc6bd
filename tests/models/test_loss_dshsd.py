"""DSHSD's loss against the reference, against its formula in loops, with one class a picture and with several."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from models.losses import LOSSES, DSHSDLoss

from .loss_checks import EXTREMES, LABELS, Matrix, assert_equal_to_reference, run, slopes

GENERATOR = np.random.default_rng(0)
# Wider than a tanh gives, so that pairs lie on both sides of the margin.
FEATURES = GENERATOR.standard_normal((7, 8)) * 1.2
LOGITS = GENERATOR.standard_normal((7, 3)) * 3
LABEL = [0, 2, 0, 1, 2, 2, 0]
MULTI_HOT = [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [-1, -1, -1], [1, 1, 1]]


def contrast(features: Matrix, classes: list[set[int]]) -> float:
    """Mean over the pairs of pictures that have a class."""
    total, pairs = 0.0, 0
    for a, classes_a in zip(features, classes, strict=True):
        for b, classes_b in zip(features, classes, strict=True):
            if classes_a and classes_b:
                distance = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
                total += distance / 2 if classes_a & classes_b else max(0.0, 2 * len(a) - distance) / 2
                pairs += 1
    return total / max(pairs, 1)


def softmax_entropy(logits: Matrix, labels: list[int]) -> float:
    terms = []
    for row, label in zip(logits, labels, strict=True):
        if label >= 0:
            top = max(row)
            terms.append(top + math.log(sum(math.exp(x - top) for x in row)) - row[label])
    return sum(terms) / max(len(terms), 1)


def binary_entropy(logits: Matrix, hot: list[list[int]]) -> float:
    terms = []
    for row, answers in zip(logits, hot, strict=True):
        if answers[0] >= 0:
            signed = [x if answer else -x for x, answer in zip(row, answers, strict=True)]
            terms.append(sum(math.log1p(math.exp(-x)) for x in signed))
    return sum(terms) / max(len(terms), 1)


def sets(labels: list[int]) -> list[set[int]]:
    return [{label} - {-1} for label in labels]


def hot_sets(hot: list[list[int]]) -> list[set[int]]:
    return [{number for number, answer in enumerate(row) if answer == 1} for row in hot]


def test_equals_the_reference(shared: Path) -> None:
    with np.load(shared / "parity" / "losses.npz") as golden:
        value, by_features, by_logits = run(DSHSDLoss(0.05), golden["label"], golden["features_tanh"], golden["logits"])
        assert value == pytest.approx(float(golden["dshsd_value"]), rel=1e-5)
        assert_equal_to_reference(by_features, golden["dshsd_grad_features"])
        assert_equal_to_reference(by_logits, golden["dshsd_grad_logits"])


@pytest.mark.parametrize("alpha", [0.05, 0.0, 2.0])
@pytest.mark.parametrize("labels", [LABEL, [1] * 7, [0, -1, 0, 1, 2, -1, 1], [-1] * 7], ids=str)
def test_equals_its_formula_pair_by_pair(alpha: float, labels: list[int]) -> None:
    value, by_features, by_logits = run(DSHSDLoss(alpha), labels, FEATURES, LOGITS)
    pairs, classification = contrast(FEATURES.tolist(), sets(labels)), softmax_entropy(LOGITS.tolist(), labels)
    assert value == pytest.approx(classification + alpha * pairs, rel=1e-9)
    expected = slopes(lambda features: alpha * contrast(features, sets(labels)), FEATURES)
    np.testing.assert_allclose(by_features, expected, rtol=1e-5, atol=1e-7)
    expected = slopes(lambda logits: softmax_entropy(logits, labels), LOGITS)
    np.testing.assert_allclose(by_logits, expected, rtol=1e-5, atol=1e-7)


def test_several_classes_a_picture() -> None:
    value, by_features, by_logits = run(DSHSDLoss(0.1, multi_label=True), MULTI_HOT, FEATURES, LOGITS)
    classes = hot_sets(MULTI_HOT)
    expected = binary_entropy(LOGITS.tolist(), MULTI_HOT) + 0.1 * contrast(FEATURES.tolist(), classes)
    assert value == pytest.approx(expected, rel=1e-7)
    expected = slopes(lambda features: 0.1 * contrast(features, classes), FEATURES)
    np.testing.assert_allclose(by_features, expected, rtol=1e-5, atol=1e-7)
    expected = slopes(lambda logits: binary_entropy(logits, MULTI_HOT), LOGITS)
    np.testing.assert_allclose(by_logits, expected, rtol=1e-5, atol=1e-7)
    assert not by_features[[3, 5]].any(), "no class: no pair"
    assert by_logits[3].all(), "none of the classes is an answer"
    assert not by_logits[5].any(), "unknown classes are none"


def test_numbers_of_classes_are_one_class_a_picture() -> None:
    labels = [0, 2, 0, 1, -1, 2, 0]
    hot = [[int(label == number) for number in range(3)] if label >= 0 else [-1] * 3 for label in labels]
    loss = DSHSDLoss(0.1, multi_label=True)
    for given in (labels, [[label] for label in labels]):
        for actual, expected in zip(run(loss, given, FEATURES, LOGITS), run(loss, hot, FEATURES, LOGITS), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_a_logit_of_zero_has_the_slope_of_the_logistic_function() -> None:
    logits = np.zeros((1, 2), np.float32)
    _, _, gradient = run(DSHSDLoss(0.0, multi_label=True), [[1, 0]], np.ones((1, 8), np.float32), logits)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5]])


def test_in_single_precision_it_is_the_same_even_far_from_the_origin() -> None:
    generator = np.random.default_rng(1)
    features, logits = generator.uniform(-1, 1, (24, 48)) * 0.1 + 30.0, generator.standard_normal((24, 5))
    features = features.astype(np.float32).astype(np.float64)
    labels = (np.arange(24) % 5).tolist()
    value, gradient, _ = run(DSHSDLoss(1.0), labels, features.astype(np.float32), logits.astype(np.float32))
    exact, exact_gradient, _ = run(DSHSDLoss(1.0), labels, features, logits)
    assert value == pytest.approx(exact, rel=1e-5)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=1e-5, atol=1e-4 * np.abs(exact_gradient).max())


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("features", EXTREMES.values(), ids=EXTREMES)
def test_extreme_features_stay_finite(features: np.ndarray, labels: list[int]) -> None:
    logits = np.zeros((4, 4), np.float32)
    value, gradient, _ = run(DSHSDLoss(0.05), labels, features, logits)
    expected = softmax_entropy(logits.tolist(), labels)
    expected += 0.05 * contrast(features.astype(np.float64).tolist(), sets(labels))
    assert value == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_extreme_logits_stay_finite(multi_label: bool) -> None:
    logits = np.array([[1e17, -1e17], [-1e17, 1e17], [0.0, 0.0]], np.float32)
    value, _, gradient = run(DSHSDLoss(0.05, multi_label), [0, 0, 0], np.zeros((3, 8), np.float32), logits)
    assert value == pytest.approx(2e17 / 3, rel=1e-5)
    assert np.isfinite(gradient).all()


def test_one_picture_only_classifies() -> None:
    value, by_features, by_logits = run(
        DSHSDLoss(0.05), [[1]], np.ones((1, 8), np.float32), np.zeros((1, 4), np.float32)
    )
    assert value == pytest.approx(math.log(4), rel=1e-5)
    assert not by_features.any()
    np.testing.assert_allclose(by_logits, [[0.25, -0.75, 0.25, 0.25]], rtol=1e-5)


def test_codes_of_two_classes_are_pushed_until_half_of_the_bits_differ() -> None:
    logits, base = np.zeros((2, 2), np.float32), np.ones(8, np.float32)
    for differing, cost in ((0, 8.0), (2, 4.0), (4, 0.0), (8, 0.0)):
        other = base.copy()
        other[:differing] = -1
        value, _, _ = run(DSHSDLoss(1.0), [0, 1], np.stack([base, other]), logits)
        assert value == pytest.approx(math.log(2) + 2 * cost / 4, rel=1e-5)


def test_descent_brings_classes_together() -> None:
    paddle.seed(0)
    raw = paddle.create_parameter([12, 16], "float32", default_initializer=paddle.nn.initializer.Normal(std=0.3))
    head = paddle.nn.Linear(16, 3)
    label = paddle.arange(12) % 3
    optimizer = paddle.optimizer.Adam(0.05, parameters=[raw, *head.parameters()])
    for _ in range(150):
        features = paddle.tanh(raw)
        LOSSES["DSHSDLoss"](alpha=0.05)({"features": features, "logits": head(features)}, label).backward()
        optimizer.step()
        optimizer.clear_grad()
    codes = np.sign(raw.numpy())
    distances = (16 - codes @ codes.T) / 2
    same = label.numpy()[:, None] == label.numpy()
    assert distances[same].max() <= 2
    assert distances[~same].min() >= 6


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_refuses_a_weight_below_zero(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha must be"):
        DSHSDLoss(alpha)


def test_refuses_labels_that_are_no_classes() -> None:
    with pytest.raises(ValueError, match=r"label 3 of picture 0 .* the number of logits is 3"):
        run(DSHSDLoss(0.05), [3, 0, 1], FEATURES[:3], LOGITS[:3])
    with pytest.raises(ValueError, match=r"label has shape \[3, 3\]"):
        run(DSHSDLoss(0.05), MULTI_HOT[:3], FEATURES[:3], LOGITS[:3])
    with pytest.raises(ValueError, match=r"label has shape \[3, 2\]"):
        run(DSHSDLoss(0.05, multi_label=True), [[0, 1]] * 3, FEATURES[:3], LOGITS[:3])
    for row in ([0, 2, 1], [-1, 0, 1]):
        with pytest.raises(ValueError, match="picture 1 of the batch is not multi-hot"):
            run(DSHSDLoss(0.05, multi_label=True), [[0, 1, 0], row, [1, 0, 0]], FEATURES[:3], LOGITS[:3])
