"""One stage under way: network, optimiser, schedule and averages, which a checkpoint holds together."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

import numpy as np
import paddle

from .checkpoint import Ema, Weights, to_weights
from .config import ConfigError
from .devices import Devices
from .model import fit_weights
from .optimizer import build_optimizer, build_schedule
from .task import Task


class StageRun:
    """A stage of a training, step by step.

    Args:
        task: what is trained.
        number: which stage.
        weights: of the whole network at its start.
        pretrained: names of the parameters that ``backbone_lr_mult`` is for.
        devices: this process among those that train together.
        epoch_steps: steps in an epoch.
    """

    def __init__(
        self,
        task: Task,
        number: int,
        weights: Weights,
        pretrained: Collection[str],
        devices: Devices,
        epoch_steps: int,
    ) -> None:
        config = task.config
        self.number = number
        self.stage = stage = config.stages[number]
        self.step = 0
        self.epoch_steps = epoch_steps
        self.total_steps = max(1, round(stage.epochs * epoch_steps))
        self._task = task
        self._devices = devices
        self._model = task.build(stage.first_block)
        fit_weights(self._model, weights, "the network")
        self._model.train()
        self._frozen = {name: value for name, value in weights.items() if name not in self._model.state_dict()}
        self._schedule = build_schedule(stage.optimizer.schedule, epoch_steps, self.total_steps)
        self._optimizer = build_optimizer(stage.optimizer, self._schedule, self._model, pretrained)
        self._ema = Ema(self._model, config.ema_decay) if config.ema_decay is not None else None
        self._trunk = task.freeze_trunk(weights, stage.first_block) if stage.first_block else None
        # Mixed precision needs a GPU; on a CPU Paddle would only warn, at every step.
        self._amp = config.amp if devices.device.startswith("gpu") else None
        if self._amp is not None:
            self._scaler = paddle.amp.GradScaler(
                init_loss_scaling=self._amp.scale_loss,
                use_dynamic_loss_scaling=self._amp.use_dynamic_loss_scaling,
            )
        self._parallel = devices.parallel(self._model)

    @property
    def done(self) -> bool:
        """Whether all steps of the stage were taken."""
        return self.step >= self.total_steps

    def state(self) -> dict[str, Any]:
        """Everything needed to go on as if nothing had happened."""
        return {
            "stage": self.number,
            "step": self.step,
            "frozen": self._frozen,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "recipe": self._recipe(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict() if self._amp is not None else {},
            "ema": self._ema.average if self._ema else {},
            "ema_steps": self._ema.steps if self._ema else 0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            ConfigError: it is of another stage.
        """
        if state["recipe"] != self._recipe():
            raise ConfigError(
                f"the checkpoint is of a stage with {state['recipe']}, and {self.stage.name} is one with "
                f"{self._recipe()}: go on as it began, or set Global.pretrained_model to begin with its weights"
            )
        fit_weights(self._model, state["model"], "the checkpoint")
        self.step = int(state["step"])
        self._optimizer.set_state_dict(state["optimizer"])
        self._schedule.set_state_dict(state["schedule"])
        if self._amp is not None and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        if self._ema is not None and state["ema"]:
            self._ema.restore(state["ema"], int(state["ema_steps"]))

    def weights(self) -> Weights:
        """All weights of the network, those trained in this stage averaged where averages are kept."""
        return self._frozen | (self._ema.to_weights() if self._ema else to_weights(self._model))

    def train_on(self, batch: Any, stopped: bool = False) -> tuple[dict[str, float], bool]:
        """Take one optimiser step.

        Args:
            batch: this device's pictures.
            stopped: whether this process was asked to stop.

        Returns:
            What the log shows, averaged over the devices, and whether any of them was asked to stop.

        Raises:
            FloatingPointError: the loss is not finite; no step was taken.
        """
        # Dropout draws from this: a resumed training has to draw the same.
        paddle.seed(hash_seed(self._task.config.seed, self.number, self.step, self._devices.rank))
        with self._mixed_precision():
            output = self._task.forward(self._parallel, batch, self._trunk)
        # Outside of mixed precision: inner products of long features overflow in half precision.
        parts, others = self._task.losses(output, batch)
        total = sum(parts.values())
        figures = {"loss": float(total)} | {name: float(value) for name, value in parts.items()} | others
        *means, stop = self._devices.mean([*figures.values(), float(stopped)])
        figures = dict(zip(figures, means, strict=True))
        if not math.isfinite(figures["loss"]):
            raise FloatingPointError(f"the loss is {figures['loss']} at step {self.step} of stage {self.stage.name}")
        figures = {"lr": self._optimizer.get_lr()} | figures
        self._step_optimizer(total)
        self._schedule.step()
        if self._ema is not None:
            self._ema.update(self._model)
        self.step += 1
        return figures, stop > 0

    def is_finite(self) -> bool:
        """Whether no weight has become infinite or undefined."""
        return all(bool(paddle.isfinite(tensor).all()) for tensor in self._model.parameters())

    def _recipe(self) -> str:
        """What the states of the optimiser depend on."""
        return f"{self.stage.optimizer.name} from block {self.stage.first_block} on"

    def _step_optimizer(self, total: paddle.Tensor) -> None:
        if self._amp is not None:
            self._scaler.scale(total).backward()
        else:
            total.backward()
        # The first step makes the optimizer's states. They are saved under names that must not depend on what other
        # stages made before in this process, or a resumed process would look for others.
        with paddle.utils.unique_name.guard():
            if self._amp is not None:
                self._scaler.step(self._optimizer)
                self._scaler.update()
            else:
                self._optimizer.step()
        self._optimizer.clear_grad()

    def _mixed_precision(self) -> Any:
        """Compute in half precision: at O1 what gains by it, at O2 what can be; the weights stay in full precision.

        ``paddle.amp.decorate`` would halve the weights too, and averages and checkpoints of them would be coarse.
        Without it O2 must not be kept in full precision by the weights (``use_promote``).
        """
        if self._amp is None:
            return nullcontext()
        return paddle.amp.auto_cast(level=self._amp.level, use_promote=False)


def hash_seed(*numbers: int) -> int:
    """Mix numbers into one seed of 31 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)
