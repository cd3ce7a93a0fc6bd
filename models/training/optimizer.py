"""Optimiser and learning-rate schedule of one stage, from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import paddle
from paddle import nn
from paddle.optimizer import lr

from .config import OptimizerConfig, Schedule

_OPTIMIZERS: dict[str, Callable[[OptimizerConfig], tuple[type[paddle.optimizer.Optimizer], dict[str, Any]]]] = {
    "SGD": lambda _: (paddle.optimizer.SGD, {}),
    "Momentum": lambda config: (paddle.optimizer.Momentum, {"momentum": config.momentum}),
    "Adam": lambda config: (paddle.optimizer.Adam, _betas(config)),
    "AdamW": lambda config: (paddle.optimizer.AdamW, _betas(config)),
}
OPTIMIZERS = tuple(_OPTIMIZERS)
SCHEDULES = ("Constant", "Cosine", "Piecewise")


def build_optimizer(
    config: OptimizerConfig, schedule: lr.LRScheduler, model: nn.Layer, pretrained: Collection[str] = ()
) -> paddle.optimizer.Optimizer:
    """Make the optimiser of a network.

    Args:
        config: ``Optimizer``.
        schedule: as :func:`build_schedule` makes it.
        model: whose parameters are trained.
        pretrained: names of the parameters whose rate ``backbone_lr_mult`` multiplies.
    """
    for name, parameter in model.named_parameters():
        parameter.optimize_attr["learning_rate"] = config.backbone_lr_mult if name in pretrained else 1.0
    kind, settings = _OPTIMIZERS[config.name](config)
    # SGD, Momentum and Adam add the coefficient times the weights to the gradient (L2); AdamW shrinks the weights.
    return kind(
        schedule,
        parameters=model.parameters(),
        weight_decay=config.weight_decay,
        grad_clip=_clip(config),
        **settings,
    )


def build_schedule(config: Schedule, epoch_steps: int, total_steps: int) -> lr.LRScheduler:
    """Make the schedule of a stage, which is asked once a step.

    Args:
        config: ``Optimizer.lr``; its epochs are counted from the start of the stage.
        epoch_steps: steps in an epoch.
        total_steps: steps in the stage; a cosine ends there.
    """
    warmup = round(config.warmup_epoch * epoch_steps)
    if config.name == "Cosine":
        schedule = lr.CosineAnnealingDecay(config.learning_rate, max(1, total_steps - warmup), config.eta_min)
    elif config.name == "Piecewise":
        # Boundaries count from the first step, and this schedule only begins after the warm-up.
        boundaries = [max(0, round(epoch * epoch_steps) - warmup) for epoch in config.decay_epochs]
        schedule = lr.PiecewiseDecay(boundaries, list(config.values))
    else:
        schedule = lr.LambdaDecay(config.learning_rate, lambda _: 1.0)
    if not warmup:
        return schedule
    top = config.values[0] if config.name == "Piecewise" else config.learning_rate
    return lr.LinearWarmup(schedule, warmup, config.warmup_start_lr, top)


def _betas(config: OptimizerConfig) -> dict[str, Any]:
    return {"beta1": config.beta1, "beta2": config.beta2, "epsilon": config.epsilon}


def _clip(config: OptimizerConfig) -> Any:
    if config.clip_norm_global is not None:
        return nn.ClipGradByGlobalNorm(config.clip_norm_global)
    return None if config.clip_norm is None else nn.ClipGradByNorm(config.clip_norm)
