"""LCDSH's loss against the reference, against its formula in loops, and where exponentials could overflow."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from models.losses import LOSSES, LCDSHLoss

from .loss_checks import EXTREMES, LABELS, Matrix, assert_equal_to_reference, dot, run, slopes

FEATURES = np.random.default_rng(0).standard_normal((7, 8)) * 0.9
LABEL = [0, 2, 0, 1, 2, 2, 0]


def logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def by_hand(features: Matrix, labels: list[int], weight: float) -> float:
    likelihood, locality, pairs = 0.0, 0.0, 0
    for a, label_a in zip(features, labels, strict=True):
        for b, label_b in zip(features, labels, strict=True):
            if min(label_a, label_b) < 0:
                continue
            t = min(max(dot(a, b) / 2, -50.0), 50.0)
            s = 1.0 if label_a == label_b else -1.0
            code = dot([sign(x) for x in a], [sign(x) for x in b]) / 2
            likelihood += math.log1p(math.exp(-s * t))
            locality += (logistic(t) - logistic(code)) ** 2
            pairs += 1
    return (likelihood + weight * locality) / max(pairs, 1)


def test_equals_the_reference(shared: Path) -> None:
    with np.load(shared / "parity" / "losses.npz") as golden:
        value, gradient, _ = run(LCDSHLoss(10, 3), golden["label"], golden["features"])
        assert value == pytest.approx(float(golden["lcdsh_value"]), rel=1e-5)
        assert_equal_to_reference(gradient, golden["lcdsh_grad_features"])


@pytest.mark.parametrize("weight", [3.0, 0.0, 20.0])
@pytest.mark.parametrize("labels", [LABEL, [1] * 7, [0, -1, 0, 1, 2, -1, 1], [-1] * 7], ids=str)
def test_equals_its_formula_pair_by_pair(weight: float, labels: list[int]) -> None:
    value, gradient, _ = run(LCDSHLoss(3, weight), labels, FEATURES)
    assert value == pytest.approx(by_hand(FEATURES.tolist(), labels, weight), rel=1e-7)
    expected = slopes(lambda features: by_hand(features, labels, weight), FEATURES)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_in_single_precision_it_is_the_same() -> None:
    features = np.random.default_rng(1).standard_normal((24, 48)) * 0.5
    labels = (np.arange(24) % 5).tolist()
    value, gradient, _ = run(LCDSHLoss(5, 3), labels, features.astype(np.float32))
    exact, exact_gradient, _ = run(LCDSHLoss(5, 3), labels, features)
    assert value == pytest.approx(exact, rel=1e-5)
    assert_equal_to_reference(gradient, exact_gradient)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("features", EXTREMES.values(), ids=EXTREMES)
def test_extreme_features_stay_finite(features: np.ndarray, labels: list[int]) -> None:
    value, gradient, _ = run(LCDSHLoss(4, 3), labels, features)
    assert value == pytest.approx(by_hand(features.astype(np.float64).tolist(), labels, 3), rel=1e-5)
    assert np.isfinite(gradient).all()


def test_a_wrong_pair_costs_its_logit_however_large() -> None:
    features = np.full((2, 4), 7.0, np.float32)
    value, _, _ = run(LCDSHLoss(2, 0), [0, 1], features / 2)
    assert value == pytest.approx((2 * 24.5 + 0) / 4, rel=1e-5)
    value, gradient, _ = run(LCDSHLoss(2, 0), [0, 1], features)
    assert value == pytest.approx((2 * 50.0 + 0) / 4, rel=1e-5)
    assert not gradient.any(), "beyond the clip nothing pulls it back"


def test_one_picture_is_its_own_pair() -> None:
    value, gradient, _ = run(LCDSHLoss(10, 3), [[4]], np.array([[0.5, -0.5]], np.float32))
    lost = (logistic(0.25) - logistic(1.0)) ** 2
    assert value == pytest.approx(math.log1p(math.exp(-0.25)) + 3 * lost, rel=1e-5)
    assert gradient.any()


def test_orthogonal_features_have_the_full_slope_of_the_logistic_loss() -> None:
    _, gradient, _ = run(LCDSHLoss(2, 0), [0, 1], np.eye(2, dtype=np.float32))
    # d/dx of softplus(x.y/2) at 0 is y/4; two of the four pairs are of two classes, the others push x up.
    own = -1.0 * logistic(-0.5) / 4
    np.testing.assert_allclose(gradient, [[own, 0.125], [0.125, own]], rtol=1e-5)


def test_a_picture_without_a_class_has_no_gradient() -> None:
    _, gradient, _ = run(LCDSHLoss(3, 3), [0, -1, 1], FEATURES[:3])
    assert not gradient[1].any()
    assert gradient[[0, 2]].any()


def test_descent_brings_classes_together() -> None:
    paddle.seed(0)
    start = paddle.nn.initializer.Normal(std=0.3)
    features = paddle.create_parameter([12, 16], "float32", default_initializer=start)
    label = paddle.arange(12) % 3
    optimizer = paddle.optimizer.Adam(0.05, parameters=[features])
    for _ in range(150):
        LOSSES["LCDSHLoss"](n_class=3, _lambda=3)({"features": features}, label).backward()
        optimizer.step()
        optimizer.clear_grad()
    codes = np.sign(features.numpy())
    distances = (16 - codes @ codes.T) / 2
    same = label.numpy()[:, None] == label.numpy()
    # Looser than DCH: the logistic function is content with an inner product of 10.
    assert distances[same].mean() <= 2
    assert distances[~same].mean() >= 8


@pytest.mark.parametrize(
    "settings,name", [({"_lambda": -0.1}, "_lambda"), ({"_lambda": math.nan}, "_lambda"), ({"n_class": 0}, "n_class")]
)
def test_refuses_settings_out_of_range(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        LCDSHLoss(**({"n_class": 10, "_lambda": 3} | settings))


def test_refuses_a_label_that_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"label 3 of picture 2 .* n_class is 3"):
        run(LCDSHLoss(3, 3), [0, -1, 3], FEATURES[:3])
