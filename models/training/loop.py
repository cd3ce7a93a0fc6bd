"""The training loop, which reads from top to bottom: stages, epochs, steps."""

from __future__ import annotations

import json
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from .datasets import Batch, Dataset, batches, load_datasets, read_list, read_rgb

CHECKPOINT_NAME = "last.pdparams"
WEIGHTS_NAME = "final.pdparams"
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
    paddle.set_device("cpu" if not paddle.is_compiled_with_cuda() else "gpu")
    dataset = load_datasets(config.datasets)
    backgrounds = _load_backgrounds(config)
    checkpoint = config.output_dir / CHECKPOINT_NAME
    state = load_checkpoint(checkpoint) if resume and checkpoint.is_file() else None
    console.print(f"{len(dataset)} views an epoch of {len(dataset.class_names)} classes; {config.output_dir}")
    weights: Weights = state["weights"] if state else _initial_weights(config, len(dataset.class_names))
    first = int(state["stage"]) if state else 0
    with _stop_on_signal() as stopped:
        for number, stage in enumerate(config.stages[first:], start=first):
            at_stage = state if number == first else None
            weights = _train_stage(config, number, stage, weights, dataset, backgrounds, console, stopped, at_stage)
    path = config.output_dir / WEIGHTS_NAME
    save_checkpoint(path, weights)
    console.print(f"wrote {path}")
    return path


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
    number: int,
    stage: Stage,
    weights: Weights,
    dataset: Dataset,
    backgrounds: list[Image],
    console: Console,
    stopped: list[int],
    state: dict[str, Any] | None,
) -> Weights:
    """Train one stage and return all weights with the averages of those it trained."""
    preprocessing = Preprocessing.from_ops(config.transform_ops)
    model = build_model(config, len(dataset.class_names), stage.first_block)
    model.set_state_dict({name: weights[name] for name in model.state_dict()})
    model.train()
    epoch_steps = len(dataset) // stage.batch_size
    total_steps = max(1, round(stage.epochs * epoch_steps))
    schedule = _cosine_with_warmup(stage, epoch_steps, total_steps)
    optimizer = _optimizer(model, stage, schedule)
    ema = Ema(model, config.ema_decay)
    step = 0
    if state is not None:
        step = int(state["step"])
        _restore(state, model, optimizer, schedule, ema)
    run_trunk = _trunk(config, stage, weights) if stage.first_block > 1 else _as_tensor
    criterion = [(weight, _build_loss(name, settings)) for name, weight, settings in config.losses]

    def checkpoint() -> None:
        save_checkpoint(
            config.output_dir / CHECKPOINT_NAME,
            {
                "stage": number,
                "step": step,
                "weights": weights,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "ema": ema.average,
                "ema_steps": ema.steps,
            },
        )

    config.output_dir.mkdir(parents=True, exist_ok=True)
    saved_at = time.monotonic()
    log_path = config.output_dir / "train.jsonl"
    with _progress(console) as progress, log_path.open("a", encoding="utf-8") as log:
        task = progress.add_task(stage.name, total=total_steps, completed=step, status="")
        while step < total_steps:
            epoch = step // epoch_steps
            epoch_batches = batches(
                dataset,
                preprocessing,
                stage.batch_size,
                (config.seed, number, epoch),
                start=step % epoch_steps,
                workers=config.num_workers,
                backgrounds=backgrounds,
                strength=stage.strength,
            )
            for batch in epoch_batches:
                record = _step(model, batch, run_trunk, criterion, optimizer)
                schedule.step()
                ema.update(model)
                step += 1
                record |= {"stage": stage.name, "epoch": round(step / epoch_steps, 3), "step": step}
                log.write(json.dumps(record) + "\n")
                log.flush()
                progress.update(task, completed=step, status=f"loss {record['loss']:.3f} acc {record['accuracy']:.2f}")
                if stopped or time.monotonic() - saved_at > config.save_interval_s:
                    checkpoint()
                    saved_at = time.monotonic()
                if stopped:
                    epoch_batches.close()
                    raise Interrupted(f"stopped at step {step} of stage {stage.name}; run again with --resume")
                if step >= total_steps:
                    epoch_batches.close()
                    break
    return weights | ema.to_weights()


def _step(model: nets.RecModel, batch: Batch, run_trunk: Any, criterion: Any, optimizer: Any) -> dict[str, float]:
    """One optimiser step; returns what the log shows."""
    label = paddle.to_tensor(batch.labels)
    output = model(run_trunk(batch.views), label)
    parts = {}
    total = paddle.zeros([])
    for weight, loss in criterion:
        if isinstance(loss, losses.SimilarityPreservingLoss):
            value = loss(output, paddle.to_tensor(batch.teacher), paddle.to_tensor(batch.teacher_group))
        else:
            value = loss(output, label)
        parts[type(loss).__name__] = float(value)
        total = total + weight * value
    total.backward()
    rate = optimizer.get_lr()
    optimizer.step()
    optimizer.clear_grad()
    labelled = batch.labels >= 0
    correct = output["logits"].numpy().argmax(axis=1)[labelled] == batch.labels[labelled]
    record = {"loss": float(total), "accuracy": float(correct.mean()) if labelled.any() else 0.0, "lr": rate}
    if not math.isfinite(record["loss"]):
        raise FloatingPointError(f"the loss is {record['loss']} ({parts}); lower the learning rate")
    return record | parts


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


def _restore(state: dict[str, Any], model: Any, optimizer: Any, schedule: Any, ema: Ema) -> None:
    model.set_state_dict(state["model"])
    optimizer.set_state_dict(state["optimizer"])
    schedule.set_state_dict(state["schedule"])
    for name, value in state["ema"].items():
        ema.average[name].set_value(value)
    ema.steps = int(state["ema_steps"])


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


def _as_tensor(views: Any) -> paddle.Tensor:
    return paddle.to_tensor(views)


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
