"""The training loop, which reads from top to bottom: stages, epochs, steps."""

from __future__ import annotations

import json
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models import losses, nets
from models.inference import Engine, Preprocessing, available_cores

from .augment import Image
from .checkpoint import Ema, Weights, load_checkpoint, save_checkpoint, to_weights
from .config import Config, ConfigError, Stage
from .datasets import Batch, Dataset, DatasetError, batches, load_datasets, read_list, read_rgb

CHECKPOINT_NAME = "last.pdparams"
WEIGHTS_NAME = "final.pdparams"
LOG_NAME = "train.jsonl"
_BACKBONE_BLOCKS = "conv"  # parameters below this prefix are pretrained


class Interrupted(Exception):
    """The training was asked to stop; its checkpoint has been written."""


def train(config: Config, console: Console, *, resume: bool = False) -> Path:
    """Run all stages and write the averaged weights.

    Args:
        config: what to train.
        console: where progress goes.
        resume: go on from ``output_dir/last.pdparams`` if it is there.

    Returns:
        The path of the final weights.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint written.
    """
    paddle.seed(config.seed)
    paddle.set_device("gpu" if paddle.is_compiled_with_cuda() else "cpu")
    dataset = load_datasets(config.datasets)
    backgrounds = _load_backgrounds(config)
    checkpoint = config.output_dir / CHECKPOINT_NAME
    state = load_checkpoint(checkpoint) if resume and checkpoint.is_file() else None
    console.print(f"{len(dataset)} views an epoch of {len(dataset.class_names)} classes; {config.output_dir}")
    weights = state["weights"] if state else _initial_weights(config, len(dataset.class_names))
    with _stop_on_signal() as stopped:
        for number in range(state["stage"] if state else 0, len(config.stages)):
            run = StageRun(config, number, weights, dataset)
            if state is not None:
                run.restore(state)
                state = None
            weights = _train_stage(config, run, dataset, backgrounds, console, stopped)
    path = config.output_dir / WEIGHTS_NAME
    save_checkpoint(path, weights)
    console.print(f"wrote {path}")
    return path


class StageRun:
    """One stage under way: network, optimiser, schedule and averages, which a checkpoint holds together."""

    def __init__(self, config: Config, number: int, weights: Weights, dataset: Dataset) -> None:
        """Begin stage ``number`` of a configuration from all weights so far."""
        self.number = number
        self.stage = stage = config.stages[number]
        self.step = 0
        self.epoch_steps = len(dataset) // stage.batch_size
        if self.epoch_steps == 0:
            raise DatasetError(
                f"{len(dataset)} pictures do not fill a batch of {stage.batch_size}: lower Stages.{number}.batch_size, "
                "or give the dataset a higher repeat"
            )
        self.total_steps = max(1, round(stage.epochs * self.epoch_steps))
        self._weights = weights
        self._model = build_model(config, len(dataset.class_names), stage.first_block)
        self._model.set_state_dict({name: weights[name] for name in self._model.state_dict()})
        self._model.train()
        self._schedule = _cosine_with_warmup(stage, self.epoch_steps, self.total_steps)
        self._optimizer = _optimizer(self._model, stage, self._schedule)
        self._ema = Ema(self._model, config.ema_decay)
        self._run_trunk = _trunk(config, stage, weights) if stage.first_block > 1 else paddle.to_tensor
        self._criterion = [(weight, _build_loss(name, settings)) for name, weight, settings in config.losses]

    def state(self) -> dict[str, Any]:
        """Everything needed to go on as if nothing had happened."""
        return {
            "stage": self.number,
            "step": self.step,
            "weights": self._weights,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "ema": self._ema.average,
            "ema_steps": self._ema.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.step = int(state["step"])
        self._model.set_state_dict(state["model"])
        self._optimizer.set_state_dict(state["optimizer"])
        self._schedule.set_state_dict(state["schedule"])
        for name, value in state["ema"].items():
            self._ema.average[name].set_value(value)
        self._ema.steps = int(state["ema_steps"])

    def result(self) -> Weights:
        """All weights, those trained in this stage averaged."""
        return self._weights | self._ema.to_weights()

    def train_on(self, batch: Batch) -> dict[str, Any]:
        """Take one optimiser step and return what the log shows.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        label = paddle.to_tensor(batch.labels)
        output = self._model(self._run_trunk(batch.views), label)
        parts = {type(loss).__name__: weight * _evaluate(loss, output, batch) for weight, loss in self._criterion}
        total = sum(parts.values())
        record = {"stage": self.stage.name, "lr": self._optimizer.get_lr(), "loss": float(total)}
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(f"the loss is {record['loss']} at step {self.step}; lower the learning rate")
        total.backward()
        self._optimizer.step()
        self._optimizer.clear_grad()
        self._schedule.step()
        self._ema.update(self._model)
        self.step += 1
        labelled = batch.labels >= 0
        correct = output["logits"].numpy().argmax(axis=1)[labelled] == batch.labels[labelled]
        record |= {name: float(value) for name, value in parts.items()}
        record["accuracy"] = float(correct.mean()) if labelled.any() else 0.0
        return record | {"epoch": round(self.step / self.epoch_steps, 3), "step": self.step}


def build_model(config: Config, class_num: int, first_block: int = 0) -> nets.RecModel:
    """Make the network of a configuration, with random weights, from a block on."""
    backbone = dict(config.backbone)
    head = dict(config.head)
    if head.pop("class_num", "auto") != "auto":
        raise ConfigError("Arch.Head.class_num must be auto: the classes are those of the list files")
    # Optimizer states are saved under the parameters' unique names: these must not depend on what was built before.
    with paddle.utils.unique_name.guard():
        neck = nets.build(**config.neck) if config.neck else None
        return nets.RecModel(
            nets.build(**backbone, first_block=first_block), neck, nets.build(**head, class_num=class_num)
        )


def _initial_weights(config: Config, class_num: int) -> Weights:
    """Random weights with the pretrained ones laid over them."""
    model = build_model(config, class_num)
    weights = to_weights(model)
    if config.pretrained is None:
        return weights
    with np.load(config.pretrained, allow_pickle=False) as archive:
        for name in archive.files:
            if weights.get(f"backbone.{name}", np.empty(0)).shape != archive[name].shape:
                raise ConfigError(f"Arch.Backbone.pretrained: {name} does not fit the backbone")
            weights[f"backbone.{name}"] = archive[name]
    return weights


def _train_stage(
    config: Config,
    run: StageRun,
    dataset: Dataset,
    backgrounds: list[Image],
    console: Console,
    stopped: list[int],
) -> Weights:
    """Train a stage to its end, with a checkpoint now and then, and return all weights."""
    checkpoint = config.output_dir / CHECKPOINT_NAME
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    saved_at = time.monotonic()
    with _progress(console) as progress, (config.output_dir / LOG_NAME).open("a", encoding="utf-8") as log:
        task = progress.add_task(run.stage.name, total=run.total_steps, completed=run.step, status="")
        for batch in islice(_endless_batches(config, run, dataset, backgrounds), run.total_steps - run.step):
            record = run.train_on(batch)
            log.write(json.dumps(record) + "\n")
            log.flush()
            status = f"loss {record['loss']:.3f} accuracy {record['accuracy']:.2f}"
            progress.update(task, completed=run.step, status=status)
            if stopped or time.monotonic() - saved_at > config.save_interval_s:
                save_checkpoint(checkpoint, run.state())
                saved_at = time.monotonic()
            if stopped:
                raise Interrupted(f"stopped at step {run.step} of stage {run.stage.name}; run again with --resume")
    return run.result()


def _endless_batches(config: Config, run: StageRun, dataset: Dataset, backgrounds: list[Image]) -> Iterator[Batch]:
    """Batches from the run's step on, epoch after epoch, each epoch in an order and with views of its own."""
    preprocessing = Preprocessing.from_ops(config.transform_ops)
    for epoch in count(run.step // run.epoch_steps):
        yield from batches(
            dataset,
            preprocessing,
            run.stage.batch_size,
            (config.seed, run.number, epoch),
            start=run.step % run.epoch_steps,
            workers=config.num_workers,
            backgrounds=backgrounds,
            strength=run.stage.strength,
        )


def _evaluate(loss: paddle.nn.Layer, output: dict[str, paddle.Tensor], batch: Batch) -> paddle.Tensor:
    if isinstance(loss, losses.SimilarityPreservingLoss):
        return loss(output, paddle.to_tensor(batch.teacher), paddle.to_tensor(batch.teacher_group))
    return loss(output, paddle.to_tensor(batch.labels))


def _build_loss(name: str, settings: dict[str, Any]) -> paddle.nn.Layer:
    known = {"CELoss": losses.CELoss, "SimilarityPreservingLoss": losses.SimilarityPreservingLoss}
    if name not in known:
        raise ConfigError(f"Loss.Train: no loss is called {name!r}; there are {', '.join(known)}")
    try:
        return known[name](**settings)
    except TypeError as error:
        raise ConfigError(f"Loss.Train: {name}: {error}") from None


def _cosine_with_warmup(stage: Stage, epoch_steps: int, total_steps: int) -> paddle.optimizer.lr.LRScheduler:
    warmup = max(1, round(stage.warmup_epoch * epoch_steps))
    cosine = paddle.optimizer.lr.CosineAnnealingDecay(stage.learning_rate, max(1, total_steps - warmup))
    return paddle.optimizer.lr.LinearWarmup(cosine, warmup, start_lr=0.0, end_lr=stage.learning_rate)


def _optimizer(model: nets.RecModel, stage: Stage, schedule: Any) -> paddle.optimizer.Optimizer:
    for name, parameter in model.backbone.named_parameters():
        if name.startswith(_BACKBONE_BLOCKS):
            parameter.optimize_attr["learning_rate"] = stage.backbone_rate
    return paddle.optimizer.AdamW(
        schedule,
        parameters=model.parameters(),
        weight_decay=stage.weight_decay,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(5.0),
    )


def _trunk(config: Config, stage: Stage, weights: Weights) -> Any:
    """Put the frozen blocks on Paddle Inference, ten times as fast there, and return pictures -> their map."""
    backbone = nets.build(**config.backbone)
    backbone.set_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
    trunk = _Trunk(backbone, stage.first_block)
    trunk.eval()
    size = Preprocessing.from_ops(config.transform_ops).input_size
    with tempfile.TemporaryDirectory() as folder:
        spec = paddle.static.InputSpec([None, 3, *size], "float32")
        paddle.jit.save(trunk, f"{folder}/inference", input_spec=[spec])
        engine = Engine.load(folder, threads=available_cores())
    return lambda views: paddle.to_tensor(engine.run([views])[0])


class _Trunk(paddle.nn.Layer):
    def __init__(self, backbone: nets.MobileNetV1, first_block: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.first_block = first_block

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.backbone.trunk(x, self.first_block)


def _load_backgrounds(config: Config) -> list[Image]:
    if config.backgrounds is None:
        return []
    root = Path(config.backgrounds).parent
    return [read_rgb(root / name) for name, _ in read_list(config.backgrounds)]


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step."""
    received: list[int] = []
    previous = {number: signal.signal(number, lambda got, _: received.append(got)) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
    )
