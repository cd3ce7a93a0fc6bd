"""DCH's loss against the reference, against its formula in loops, and where logarithms and roots could fail."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from models.losses import LOSSES, DCHLoss

from .loss_checks import EXTREMES, LABELS, Matrix, assert_equal_to_reference, dot, run, slopes

FEATURES = np.random.default_rng(0).standard_normal((7, 8))
LABEL = [0, 2, 0, 1, 2, 2, 0]


def relaxed_hamming(a: list[float], b: list[float]) -> float:
    lengths = max(math.sqrt(dot(a, a)) * math.sqrt(dot(b, b)), 1e-4)
    return (1.0 - min(dot(a, b) / lengths, 0.99)) * len(a) / 2


def by_hand(features: Matrix, labels: list[int], gamma: float, weight: float) -> float:
    """The reference's formula, pair by pair: the weight of each kind of pair, then one mean over all of them."""
    known = [row for row, label in enumerate(labels) if label >= 0]
    pairs = [(i, j) for i in known for j in known]
    same = sum(labels[i] == labels[j] for i, j in pairs)
    total = 0.0
    for i, j in pairs:
        s = labels[i] == labels[j]
        pair_weight = 1.0 if same == len(pairs) else len(pairs) / (same if s else len(pairs) - same)
        d = relaxed_hamming(features[i], features[j])
        total += pair_weight * (s * math.log(d / gamma) + math.log(1 + gamma / d))
    quantisation = [math.log(1 + relaxed_hamming([abs(x) for x in row], [1.0] * len(row)) / gamma) for row in features]
    return total / max(len(pairs), 1) + weight * sum(quantisation) / len(quantisation)


def test_equals_the_reference(shared: Path) -> None:
    with np.load(shared / "parity" / "losses.npz") as golden:
        value, gradient, _ = run(DCHLoss(20, 0.1, 10), golden["label"], golden["features"])
        assert value == pytest.approx(float(golden["dch_value"]), rel=1e-5)
        assert_equal_to_reference(gradient, golden["dch_grad_features"])


@pytest.mark.parametrize("gamma,weight", [(20.0, 0.1), (3.0, 2.0), (0.5, 0.0)])
@pytest.mark.parametrize("labels", [LABEL, [1] * 7, [0, -1, 0, 1, 2, -1, 1], [-1] * 7], ids=str)
def test_equals_its_formula_pair_by_pair(gamma: float, weight: float, labels: list[int]) -> None:
    value, gradient, _ = run(DCHLoss(gamma, weight, 3), labels, FEATURES)
    assert value == pytest.approx(by_hand(FEATURES.tolist(), labels, gamma, weight), rel=1e-9)
    expected = slopes(lambda features: by_hand(features, labels, gamma, weight), FEATURES)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_in_single_precision_it_is_the_same() -> None:
    features = np.random.default_rng(1).standard_normal((24, 48))
    labels = (np.arange(24) % 5).tolist()
    value, gradient, _ = run(DCHLoss(20, 0.1, 5), labels, features.astype(np.float32))
    exact, exact_gradient, _ = run(DCHLoss(20, 0.1, 5), labels, features)
    assert value == pytest.approx(exact, rel=1e-5)
    assert_equal_to_reference(gradient, exact_gradient)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("features", EXTREMES.values(), ids=EXTREMES)
def test_extreme_features_stay_finite(features: np.ndarray, labels: list[int]) -> None:
    value, gradient, _ = run(DCHLoss(20, 0.1, 4), labels, features)
    assert value == pytest.approx(by_hand(features.astype(np.float64).tolist(), labels, 20, 0.1), rel=1e-5)
    assert np.isfinite(gradient).all()


def test_one_picture_costs_what_a_clipped_pair_and_its_quantisation_cost() -> None:
    features = np.array([[3.0, -3.0, 3.0, 3.0]], np.float32)
    value, gradient, _ = run(DCHLoss(20, 0.1, 10), [[4]], features)
    assert value == pytest.approx(1.1 * math.log(1 + 0.01 * 2 / 20), rel=1e-5)
    assert not gradient.any()


def test_close_pairs_of_one_class_are_left_alone() -> None:
    close = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.9]])
    apart = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -0.9]])
    assert not run(DCHLoss(2, 0.0, 2), [1, 1], close)[1].any()
    assert run(DCHLoss(2, 0.0, 2), [1, 1], apart)[1].any()


def test_a_picture_without_a_class_only_quantises() -> None:
    _, gradient, _ = run(DCHLoss(20, 0.0, 3), [0, -1, 1], FEATURES[:3])
    assert not gradient[1].any()
    assert gradient[[0, 2]].any()
    _, gradient, _ = run(DCHLoss(20, 0.1, 3), [0, -1, 1], FEATURES[:3])
    assert gradient[1].any()


def test_descent_brings_classes_together() -> None:
    paddle.seed(0)
    features = paddle.create_parameter([12, 16], "float32", default_initializer=paddle.nn.initializer.Normal())
    label = paddle.arange(12) % 3
    optimizer = paddle.optimizer.Adam(0.05, parameters=[features])
    for _ in range(150):
        LOSSES["DCHLoss"](gamma=4, _lambda=0.1, n_class=3)({"features": features}, label).backward()
        optimizer.step()
        optimizer.clear_grad()
    codes = np.sign(features.numpy())
    distances = (16 - codes @ codes.T) / 2
    same = label.numpy()[:, None] == label.numpy()
    assert distances[same].max() <= 2
    assert distances[~same].min() >= 6


@pytest.mark.parametrize(
    "settings,name",
    [
        ({"gamma": 0}, "gamma"),
        ({"gamma": -1}, "gamma"),
        ({"gamma": math.nan}, "gamma"),
        ({"gamma": math.inf}, "gamma"),
        ({"_lambda": -0.1}, "_lambda"),
        ({"n_class": 0}, "n_class"),
        ({"n_class": 2.5}, "n_class"),
    ],
    ids=str,
)
def test_refuses_settings_out_of_range(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        DCHLoss(**({"gamma": 20, "_lambda": 0.1, "n_class": 10} | settings))


def test_refuses_a_label_that_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"label 10 of picture 1 .* n_class is 10"):
        run(DCHLoss(20, 0.1, 10), [0, 10, 11], FEATURES[:3])
    with pytest.raises(ValueError, match="label -2 of picture 2"):
        run(DCHLoss(20, 0.1, 10), [0, 1, -2], FEATURES[:3])
    with pytest.raises(ValueError, match="label has shape"):
        run(DCHLoss(20, 0.1, 10), [0, 1], FEATURES[:3])
    with pytest.raises(ValueError, match="must be int64"):
        run(DCHLoss(20, 0.1, 10), [0.0, 1.0, 2.0], FEATURES[:3])


def test_refuses_features_that_are_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"features have shape \[8\]"):
        run(DCHLoss(20, 0.1, 10), [0], FEATURES[0])
