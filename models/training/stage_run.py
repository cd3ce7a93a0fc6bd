"""One stage under way: network, optimiser, schedule and averages, which a checkpoint holds together."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

import numpy as np
import paddle

from models import losses

from .checkpoint import Ema, Weights, to_weights
from .config import Config, ConfigError, LossTerm
from .data.loader import Batch
from .devices import Devices
from .model import Encode, build_model, fit_weights, frozen_features, frozen_trunk
from .optimizer import build_optimizer, build_schedule


class StageRun:
    """A stage of a training, step by step.

    Args:
        config: the training.
        number: which stage.
        weights: of the whole network at its start.
        pretrained: names of the parameters that ``backbone_lr_mult`` is for.
        devices: this process among those that train together.
        epoch_steps: steps in an epoch.
        class_num: number of classes, for a head that counts them itself.
        input_size: (height, width) of the pictures.
    """

    def __init__(
        self,
        config: Config,
        number: int,
        weights: Weights,
        pretrained: Collection[str],
        devices: Devices,
        epoch_steps: int,
        class_num: int,
        input_size: tuple[int, int],
    ) -> None:
        self.number = number
        self.stage = stage = config.stages[number]
        self.step = 0
        self.epoch_steps = epoch_steps
        self.total_steps = max(1, round(stage.epochs * epoch_steps))
        self._config = config
        self._devices = devices
        self._model = build_model(config, class_num, stage.first_block)
        fit_weights(self._model, weights, "the network")
        self._model.train()
        if self._model.head is not None and not any(term.name in losses.NEED_LOGITS for term in config.losses):
            for parameter in self._model.head.parameters():
                parameter.stop_gradient = True  # processes would wait for its gradient, which never comes
        self._frozen = {name: value for name, value in weights.items() if name not in self._model.state_dict()}
        self._schedule = build_schedule(stage.optimizer.schedule, epoch_steps, self.total_steps)
        self._optimizer = build_optimizer(stage.optimizer, self._schedule, self._model, pretrained)
        self._ema = Ema(self._model, config.ema_decay) if config.ema_decay is not None else None
        self._trunk = frozen_trunk(config, weights, stage.first_block, input_size) if stage.first_block else None
        self._criterion = [(term, build_loss(term)) for term in config.losses]
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

    def encoder(self, size: tuple[int, int]) -> Encode:
        """Freeze the network as it is now: pictures float32 (B, 3, H, W) to features (B, bits)."""
        return frozen_features(self._config, self.weights(), size)

    def train_on(self, batch: Batch, stopped: bool = False) -> tuple[dict[str, float], bool]:
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
        paddle.seed(hash_seed(self._config.seed, self.number, self.step, self._devices.rank))
        output = self._forward(batch)
        # Outside of mixed precision: inner products of long features overflow in half precision.
        parts = {term.name: term.weight * evaluate_loss(loss, output, batch) for term, loss in self._criterion}
        total = sum(parts.values())
        figures = {"loss": float(total)} | {name: float(value) for name, value in parts.items()}
        if "logits" in output:
            figures["accuracy"] = _accuracy(output["logits"], batch.labels)
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

    def _forward(self, batch: Batch) -> dict[str, paddle.Tensor]:
        views = self._trunk(batch.views) if self._trunk else batch.views
        try:
            with self._mixed_precision():
                output = self._parallel(paddle.to_tensor(views), paddle.to_tensor(batch.labels))
        except ValueError as error:
            height, width = batch.views.shape[2:]
            raise ConfigError(f"DataLoader.Train: pictures of {height} x {width} pixels: {error}") from error
        return output if isinstance(output, dict) else {"features": output}

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


def build_loss(term: LossTerm) -> paddle.nn.Layer:
    """Make one loss of ``Loss.Train``.

    Raises:
        ConfigError: it is unknown or does not take its settings.
    """
    if term.name not in losses.LOSSES:
        raise ConfigError(f"Loss.Train: no loss is called {term.name!r}; there are {', '.join(losses.LOSSES)}")
    try:
        return losses.LOSSES[term.name](**term.settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Loss.Train: {term.name}: {error}") from None


def evaluate_loss(loss: paddle.nn.Layer, output: dict[str, paddle.Tensor], batch: Batch) -> paddle.Tensor:
    """Apply a loss to the network's output for a batch, in float32 whatever the network computed in.

    Raises:
        ConfigError: it does not take them, such as a label that is out of its range.
    """
    output = {name: tensor.astype("float32") for name, tensor in output.items()}
    try:
        if isinstance(loss, losses.SimilarityPreservingLoss):
            return loss(output, paddle.to_tensor(batch.teacher), paddle.to_tensor(batch.teacher_group))
        return loss(output, paddle.to_tensor(batch.labels))
    except ValueError as error:
        raise ConfigError(f"Loss.Train: {type(loss).__name__}: {error}") from error


def hash_seed(*numbers: int) -> int:
    """Mix numbers into one seed of 31 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def _accuracy(logits: paddle.Tensor, labels: np.ndarray) -> float:
    labelled = labels >= 0
    if not labelled.any():
        return 0.0
    # Where they are: of 185,341 classes the logits of a batch are hundreds of megabytes to copy from a GPU.
    named = logits.argmax(axis=1).numpy()
    return float((named[labelled] == labels[labelled]).mean())
