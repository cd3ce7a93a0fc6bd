"""Schedules and optimisers against their formulas."""

import math

import numpy as np
import paddle
import pytest

from models.training.config import OptimizerConfig, Schedule
from models.training.optimizer import build_optimizer, build_schedule


def rates(schedule: Schedule, epoch_steps: int, total_steps: int) -> list[float]:
    """The learning rate at each step."""
    built = build_schedule(schedule, epoch_steps, total_steps)
    values = []
    for _ in range(total_steps):
        values.append(built.get_lr())
        built.step()
    return values


def test_cosine_rises_linearly_and_ends_at_its_floor() -> None:
    values = rates(Schedule("Cosine", 0.4, warmup_epoch=2, warmup_start_lr=0.1, eta_min=0.02), 5, 40)
    expected = [0.1 + 0.3 * step / 10 for step in range(10)]
    expected += [0.02 + 0.38 * (1 + math.cos(math.pi * step / 30)) / 2 for step in range(30)]
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 1])
def test_piecewise_changes_at_its_epochs(warmup: int) -> None:
    values = rates(
        Schedule("Piecewise", 0.5, warmup_epoch=warmup, decay_epochs=(3, 4.5), values=(0.5, 0.05, 0.005)), 4, 24
    )
    expected = [0.5] * 12 + [0.05] * 6 + [0.005] * 6
    expected[: 4 * warmup] = [0.5 * step / 4 for step in range(4 * warmup)]
    assert values == pytest.approx(expected)


def test_constant_stays() -> None:
    assert rates(Schedule("Constant", 0.25), 3, 7) == [0.25] * 7


@pytest.fixture
def layer() -> paddle.nn.Layer:
    paddle.seed(1)
    return paddle.nn.Linear(3, 2)


def take_steps(layer: paddle.nn.Layer, config: OptimizerConfig, pretrained: tuple[str, ...] = ()) -> list[np.ndarray]:
    """The weight after each of three steps of the loss sum(weight^2)."""
    optimizer = build_optimizer(config, build_schedule(config.schedule, 1, 3), layer, pretrained)
    weights = [layer.weight.numpy().astype(np.float64)]
    for _ in range(3):
        (layer.weight**2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        weights.append(layer.weight.numpy().astype(np.float64))
    return weights


def test_sgd_adds_the_l2_term_to_the_gradient(layer: paddle.nn.Layer) -> None:
    before, *after = take_steps(layer, OptimizerConfig("SGD", Schedule("Constant", 0.1), weight_decay=0.5))
    for weight in after:
        before = before - 0.1 * (2 * before + 0.5 * before)
        np.testing.assert_allclose(weight, before, rtol=1e-5)


def test_momentum_sums_gradients(layer: paddle.nn.Layer) -> None:
    before, *after = take_steps(layer, OptimizerConfig("Momentum", Schedule("Constant", 0.1), momentum=0.8))
    velocity = np.zeros_like(before)
    for weight in after:
        velocity = 0.8 * velocity + 2 * before
        before = before - 0.1 * velocity
        np.testing.assert_allclose(weight, before, rtol=1e-5)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_and_adamw_differ_in_the_decay(layer: paddle.nn.Layer, name: str) -> None:
    config = OptimizerConfig(name, Schedule("Constant", 0.1), beta1=0.7, beta2=0.9, weight_decay=0.5)
    before, *after = take_steps(layer, config)
    mean, square = np.zeros_like(before), np.zeros_like(before)
    for step, weight in enumerate(after, 1):
        gradient = 2 * before + (0.5 * before if name == "Adam" else 0)
        mean, square = 0.7 * mean + 0.3 * gradient, 0.9 * square + 0.1 * gradient**2
        if name == "AdamW":
            before = before * (1 - 0.1 * 0.5)
        before = before - 0.1 * (mean / (1 - 0.7**step)) / (np.sqrt(square / (1 - 0.9**step)) + 1e-8)
        np.testing.assert_allclose(weight, before, rtol=1e-4)


@pytest.mark.parametrize("key", ["clip_norm", "clip_norm_global"])
def test_gradients_are_clipped(layer: paddle.nn.Layer, key: str) -> None:
    config = OptimizerConfig("SGD", Schedule("Constant", 1.0), **{key: 0.01})
    before, after, *_ = take_steps(layer, config)
    assert np.linalg.norm(after - before) == pytest.approx(0.01, rel=1e-3)


def test_pretrained_layers_learn_more_slowly(layer: paddle.nn.Layer) -> None:
    config = OptimizerConfig("SGD", Schedule("Constant", 0.1), backbone_lr_mult=0.25)
    before, after, *_ = take_steps(layer, config, pretrained=("weight",))
    np.testing.assert_allclose(after, before * (1 - 0.25 * 0.1 * 2), rtol=1e-5)
