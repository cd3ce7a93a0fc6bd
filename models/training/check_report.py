"""A training that was checked, as a table for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.nets import RecModel

from .config import Arch, Config, OptimizerConfig, Stage
from .data.datasets import Dataset
from .devices import Devices
from .optimizer import build_schedule

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_COLUMNS = 32
_NAMED_CLASSES = 5
_FLOAT_BYTES = 4
_SLOTS = {"SGD": 0, "Momentum": 1, "Adam": 2, "AdamW": 2}  # numbers an optimiser keeps a weight


@dataclass(frozen=True)
class Plan:
    """What a check found; None where it failed.

    Attributes:
        devices: what would train.
        train, query, gallery: the pictures; also None where the configuration has none.
        unmatched: queries whose class the gallery does not have.
        epoch_steps: steps in an epoch, by stage.
        size: (height, width) of the pictures in training.
        model: the network.
    """

    devices: Devices
    train: Dataset | None
    query: Dataset | None
    gallery: Dataset | None
    unmatched: int | None
    epoch_steps: Sequence[int | None]
    size: tuple[int, int] | None
    model: RecModel | None


def print_plan(config: Config, plan: Plan, console: Console) -> None:
    """Print what would run, and what is worth knowing about it."""
    table = Table("", "", show_header=False, title=escape(config.name), title_justify="left")
    for name, value in [*_network(config, plan), *_training(config, plan), *_data(config, plan), *_output(config)]:
        table.add_row(name, escape(value))
    console.print(table)
    for remark in _remarks(config, plan):
        console.print(f"note: {remark}", markup=False, highlight=False, soft_wrap=True)


def learning_rates(stage: Stage, columns: int = _SPARK_COLUMNS) -> list[tuple[float, float]]:
    """Sample the schedule of a stage: so many pairs of epoch and learning rate, the last at its end."""
    # The shape of a schedule depends on epochs only, so that a few steps an epoch draw it.
    epoch_steps = max(10, math.ceil(4 * columns / stage.epochs))
    total = max(columns, round(stage.epochs * epoch_steps))
    schedule = build_schedule(stage.optimizer.schedule, epoch_steps, total)
    rates = []
    for _ in range(total):
        rates.append(float(schedule()))
        schedule.step()
    steps = np.linspace(0, total - 1, columns).round().astype(int)
    return [(step / epoch_steps, rates[step]) for step in steps.tolist()]


def _network(config: Config, plan: Plan) -> list[tuple[str, str]]:
    arch = config.arch
    names = [str(part["name"]) for part in (arch.backbone, arch.neck, arch.head) if part]
    rows = [
        ("network", " -> ".join(names) + (f", pictures of {plan.size[0]} x {plan.size[1]}" if plan.size else "")),
        ("code", f"{arch.bits} bits, by {config.binarize}"),
        ("starts from", _start(config, arch)),
    ]
    if plan.model is not None:
        counts = {name: _count(getattr(plan.model, name)) for name in ("backbone", "neck", "head")}
        parts = ", ".join(f"{name} {_short(count)}" for name, count in counts.items() if count)
        rows.insert(1, ("parameters", f"{_short(sum(counts.values()))} ({parts})"))
        slots = max(_SLOTS[stage.optimizer.name] for stage in config.stages)
        copies = 2 + slots + (config.ema_decay is not None)
        size = sum(counts.values()) * _FLOAT_BYTES * copies
        rows.append(("memory", f"{_short(size, 'B')} for weights, gradients and optimiser; activations come on top"))
    return rows


def _training(config: Config, plan: Plan) -> list[tuple[str, str]]:
    rows = [("losses", "\n".join(f"{term.weight:g} x {term.name}{_settings(term.settings)}" for term in config.losses))]
    for stage, steps in zip(config.stages, plan.epoch_steps, strict=True):
        name = "schedule" if len(config.stages) == 1 else f"stage {stage.name}"
        length = f"{_count_of(stage.epochs, 'epoch')}, batches of {stage.batch_size}"
        if steps is not None:
            total = max(1, round(stage.epochs * steps))
            length += f", {_count_of(steps, 'step')} an epoch, {_count_of(total, 'step')} in all"
        if stage.first_block:
            length += f", blocks below {stage.first_block} frozen"
        rates = learning_rates(stage)
        rows.append((name, "\n".join([length, _optimizer(stage.optimizer), _spark(rates), _points(rates)])))
    averages = [f"weights averaged (EMA {config.ema_decay:g})"] if config.ema_decay is not None else []
    amp = [f"mixed precision {config.amp.level}"] if config.amp is not None else []
    devices = f"{plan.devices.world} x {plan.devices.device}"
    rows.append(("devices", ", ".join([devices, *amp, *averages, f"seed {config.seed}"])))
    return rows


def _data(config: Config, plan: Plan) -> list[tuple[str, str]]:
    rows = []
    if plan.train is not None:
        rows.append(("pictures", _describe(plan.train)))
    sampler = config.train.sampler
    rows.append(
        ("batches", f"{sampler.name}{', shuffled' if sampler.shuffle else ''}, {config.train.num_workers} threads")
    )
    if plan.query is not None and plan.gallery is not None:
        every = f"every {_count_of(config.eval_interval, 'epoch')}" if config.eval_during_train else "at the end"
        ranks = [f"Recall@{rank}" for rank in config.metrics.recall_topk]
        ranks += [f"Precision@{rank}" for rank in config.metrics.precision_topk]
        ranks += ["mAP"] if config.metrics.mean_average_precision else []
        same = config.query.datasets == config.gallery.datasets if config.query and config.gallery else False
        sets = "each searched among the others" if same else f"in a gallery of {len(plan.gallery):,}"
        rows.append(("evaluation", f"{len(plan.query):,} queries, {sets}; {every}: {', '.join(ranks)}"))
    return rows


def _output(config: Config) -> list[tuple[str, str]]:
    export = config.save_inference_dir or config.output_dir / "export"
    kept = f", weights kept every {_count_of(config.save_interval, 'epoch')}" if config.save_interval else ""
    return [("output", f"{config.output_dir}{kept}"), ("export", str(export))]


def _remarks(config: Config, plan: Plan) -> list[str]:
    remarks = []
    if plan.train is not None:
        counts = _class_counts(plan.train)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            first = ", ".join(plan.train.class_names[label] for label in empty[:_NAMED_CLASSES])
            more = ", ..." if len(empty) > _NAMED_CLASSES else ""
            remarks.append(f"{len(empty):,} of {len(counts):,} classes have no pictures to learn from: {first}{more}")
    if plan.unmatched:
        remarks.append(f"{plan.unmatched:,} queries are of classes that the gallery does not have")
    if config.amp is not None and not plan.devices.device.startswith("gpu"):
        remarks.append("AMP has no effect on a CPU")
    for name in ("last.pdparams", "train.jsonl"):
        if (config.output_dir / name).is_file() and config.checkpoints is None:
            remarks.append(
                f"{config.output_dir} holds an earlier training: --resume goes on with it, else it moves to previous/"
            )
            break
    return remarks


def _start(config: Config, arch: Arch) -> str:
    if config.checkpoints is not None:
        return f"checkpoint {config.checkpoints}"
    if config.pretrained_model is not None:
        return f"weights {config.pretrained_model}"
    if arch.pretrained is True:
        return f"published weights of {arch.backbone['name']}{', SSLD' if arch.use_ssld else ''}, loaded when it starts"
    return f"backbone weights {arch.pretrained}" if arch.pretrained else "random weights"


def _describe(dataset: Dataset) -> str:
    counts = _class_counts(dataset)
    unlabelled = int((dataset.labels < 0).sum())
    text = f"{len(dataset):,} of {len(counts):,} classes"
    if counts.any():
        filled = np.flatnonzero(counts)
        least, most = filled[counts[filled].argmin()], counts.argmax()
        names = dataset.class_names
        text += f"; smallest {names[least]} with {counts[least]:,}, largest {names[most]} with {counts[most]:,}"
    return text + (f"; {unlabelled:,} without a class" if unlabelled else "")


def _class_counts(dataset: Dataset) -> np.ndarray:
    return np.bincount(dataset.labels[dataset.labels >= 0], minlength=len(dataset.class_names))


def _optimizer(config: OptimizerConfig) -> str:
    parts = [config.name]
    if config.name == "Momentum":
        parts.append(f"momentum {config.momentum:g}")
    if config.name.startswith("Adam"):
        parts.append(f"betas {config.beta1:g} and {config.beta2:g}")
    if config.weight_decay:
        parts.append(f"{'weight decay' if config.name == 'AdamW' else 'L2'} {config.weight_decay:g}")
    if config.clip_norm is not None:
        parts.append(f"gradients of each parameter clipped at {config.clip_norm:g}")
    if config.clip_norm_global is not None:
        parts.append(f"gradients clipped at {config.clip_norm_global:g}")
    if config.backbone_lr_mult != 1:
        parts.append(f"pretrained layers at {config.backbone_lr_mult:g} of the learning rate")
    return ", ".join(parts)


def _spark(rates: Sequence[tuple[float, float]]) -> str:
    top = max(rate for _, rate in rates) or 1.0
    return "".join(_SPARKS[round(rate / top * (len(_SPARKS) - 1))] for _, rate in rates)


def _points(rates: Sequence[tuple[float, float]]) -> str:
    """Say the learning rate at the start, at the top, in the middle and at the end."""
    top = max(rates, key=lambda pair: pair[1])
    shown = sorted({rates[0], top, rates[len(rates) // 2], rates[-1]})
    if len({rate for _, rate in shown}) == 1:
        return f"learning rate {top[1]:.2g} throughout"
    return "learning rate " + ", ".join(f"{rate:.2g} at epoch {epoch:.3g}" for epoch, rate in shown)


def _settings(settings: Mapping[str, Any]) -> str:
    shown = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()]
    return f" ({', '.join(shown)})" if shown else ""


def _count_of(number: float, word: str) -> str:
    shown = f"{int(number):,}" if number == int(number) else f"{number:g}"
    return f"{shown} {word}{'' if number == 1 else 's'}"


def _count(layer: paddle.nn.Layer | None) -> int:
    return 0 if layer is None else sum(math.prod(parameter.shape) for parameter in layer.parameters())


def _short(number: float, unit: str = "") -> str:
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:g} {unit}".strip()
