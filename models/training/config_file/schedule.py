"""``Optimizer`` and ``Stages``: how weights change, and for how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.yaml_tree import Node

from ..config import OptimizerConfig, Schedule, Stage
from ..optimizer import OPTIMIZERS, SCHEDULES
from .fields import ABSENT, Reader, Reading, Unusable, anything, list_of, number, only, text, whole, without_effect


def read_stages(
    reading: Reading, top: Mapping[str, Node], epochs: float | None, batch_size: int | None
) -> tuple[Stage, ...]:
    """Read ``Stages``, or make the one stage of a file without them.

    Args:
        reading: collects problems.
        top: the sections of the file that are not empty.
        epochs: ``Global.epochs``.
        batch_size: ``DataLoader.Train.sampler.batch_size``, which a stage may replace.
    """
    optimizer, stages = top.get("Optimizer"), top.get("Stages")
    if stages is None:
        built = None if optimizer is None else read_optimizer(reading, optimizer, epochs or math.inf)
        return () if built is None or epochs is None else (Stage("train", epochs, batch_size or 1, built),)
    if epochs is not None:
        reading.refuse(top["Global"].value["epochs"], "the Stages say how many epochs each takes; leave this out")
    if not isinstance(stages.value, list) or not stages.value:
        reading.refuse(stages, f"must be a list of stages, not {stages.plain()!r}")
        return ()
    read = [_stage(reading, node, optimizer, batch_size) for node in stages.value]
    names = [stage.name for stage in read if stage is not None]
    for node, stage in zip(stages.value, read, strict=True):
        if stage is not None and names.count(stage.name) > 1:
            reading.refuse(node, f"two stages are called {stage.name}")
    return tuple(stage for stage in read if stage is not None)


def read_optimizer(reading: Reading, node: Node, epochs: float) -> OptimizerConfig | None:
    """Read ``Optimizer`` for a stage of so many epochs; None where it has no usable ``name`` or ``lr``."""
    name = reading.name(node, "optimizer", OPTIMIZERS)
    reading.require(node, "lr", "the learning rate, such as {name: Cosine, learning_rate: 0.04, warmup_epoch: 5}")
    if name is None:
        return None
    values = reading.section(node, {**_OPTIMIZER, **_OF_OPTIMIZER[name]}, name)
    decay, regularizer = values.pop("weight_decay", None), values.pop("regularizer", None)
    if regularizer is not None:
        if name == "AdamW":
            reading.refuse(node.value["regularizer"], "AdamW shrinks the weights themselves; give it as weight_decay")
        elif decay is not None:
            reading.refuse(node.value["regularizer"], "weight_decay says the same; give one of the two")
        decay = regularizer
    schedule = values.pop("lr", None)
    if schedule is None:
        return None
    _note_schedule(reading, node.value["lr"], schedule, epochs)
    return OptimizerConfig(**{**values, "name": name}, schedule=schedule, weight_decay=decay or 0.0)


def _stage(reading: Reading, node: Node, optimizer: Node | None, batch_size: int | None) -> Stage | None:
    values = reading.section(node, _STAGE, "a stage")
    reading.require(node, "epochs", "how many epochs the stage takes; may be a fraction")
    changes = values.pop("Optimizer", None)
    if batch_size is None:
        reading.require(node, "batch_size", "here or as DataLoader.Train.sampler.batch_size")
    merged = _laid_over(optimizer, changes)
    if merged is None:
        reading.require(node, "Optimizer", "here or for all stages")
    if merged is None or "epochs" not in values:
        return None
    built = read_optimizer(reading, merged, values["epochs"])
    if built is None:
        return None
    number_of_stage = int(node.key.rpartition(".")[2]) + 1
    given = {"name": f"stage{number_of_stage}", "batch_size": batch_size or 1, **values}
    return Stage(**given, optimizer=built)


def _laid_over(below: Node | None, above: Node | None) -> Node | None:
    """Lay a partial map over a whole one, map by map; a map with another ``name`` replaces what is below it."""
    if below is None or above is None or not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return below if above is None else above
    name = above.value.get("name")
    if name is not None and "name" in below.value and below.value["name"].value != name.value:
        return above
    merged = {key: _laid_over(below.value.get(key), node) for key, node in above.value.items()}
    return replace(above, value={**below.value, **merged})


def _partial(_: Reading, node: Node) -> Node:
    if not isinstance(node.value, dict):
        raise Unusable(f"must be a map of what differs from Optimizer, not {node.plain()!r}")
    return node


def _regularizer(reading: Reading, node: Node) -> float | None:
    name = reading.name(node, "regularizer", ("L2",), "L2")
    reading.require(node, "coeff", "the factor of the weights in the gradient")
    return reading.section(node, {"name": anything, "coeff": number(0)}, "regularizer").get("coeff") if name else None


def _lr(reading: Reading, node: Node) -> Any:
    if not isinstance(node.value, dict):
        return Schedule("Constant", number(above=0)(reading, node))
    name = reading.name(node, "schedule", SCHEDULES, "Constant")
    if name is None:
        return ABSENT
    values = reading.section(node, {**_SCHEDULE, **_OF_SCHEDULE[name]}, name)
    if name == "Piecewise":
        _check_pieces(reading, node, values)
    else:
        reading.require(node, "learning_rate", "a positive number")
    if "learning_rate" in values and values.get("warmup_epoch"):
        start, top = values.get("warmup_start_lr", 0.0), values["learning_rate"]
        if start >= top:
            place = node.value["warmup_start_lr" if "warmup_start_lr" in values else "warmup_epoch"]
            reading.refuse(place, f"the warm-up must rise to the learning rate, and goes from {start:g} to {top:g}")
    return Schedule(**{**values, "name": name}) if "learning_rate" in values else ABSENT


def _check_pieces(reading: Reading, node: Node, values: dict[str, Any]) -> None:
    reading.require(node, "values", "the learning rates, one more than decay_epochs")
    reading.require(node, "decay_epochs", "the epochs from which the next of the values holds")
    if "values" not in values or "decay_epochs" not in values:
        return
    rates, epochs = values["values"], values["decay_epochs"]
    if len(rates) != len(epochs) + 1:
        reading.refuse(
            node.value["values"],
            f"has {len(rates)} learning rates for {len(epochs)} decay_epochs; there must be one more than decay_epochs",
        )
        return
    if list(epochs) != sorted(set(epochs)):
        reading.refuse(node.value["decay_epochs"], f"must rise, not {node.value['decay_epochs'].plain()!r}")
    given = values.setdefault("learning_rate", rates[0])
    if given != rates[0]:
        reading.note(node.value["learning_rate"], f"has no effect here: the values begin with {rates[0]:g}")
        values["learning_rate"] = rates[0]


def _note_schedule(reading: Reading, node: Node, schedule: Schedule, epochs: float) -> None:
    late = [epoch for epoch in schedule.decay_epochs if epoch >= epochs]
    if late:
        reading.note(
            node.value["decay_epochs"], f"epoch {late[0]:g} is not reached: the training has {epochs:g} epochs"
        )
    if schedule.warmup_epoch >= epochs:
        reading.note(node.value["warmup_epoch"], f"the learning rate only rises: the training has {epochs:g} epochs")


_OPTIMIZER: dict[str, Reader] = {
    "name": anything,
    "lr": _lr,
    "regularizer": _regularizer,
    "weight_decay": number(0),
    "clip_norm": number(above=0),
    "clip_norm_global": number(above=0),
    "backbone_lr_mult": number(0),
    "multi_precision": without_effect("weights are kept in full precision, with AMP too"),
}
_ADAM: dict[str, Reader] = {
    "beta1": number(0, below=1),
    "beta2": number(0, below=1),
    "epsilon": number(above=0),
    "lazy_mode": only(False, "all weights are updated at every step"),
}
_OF_OPTIMIZER: dict[str, dict[str, Reader]] = {
    "SGD": {},
    "Momentum": {"momentum": number(0, below=1), "use_nesterov": only(False, "momentum is Polyak's")},
    "Adam": _ADAM,
    "AdamW": {**_ADAM, "one_dim_param_no_weight_decay": only(False, "weight_decay holds for all weights")},
}
_SCHEDULE: dict[str, Reader] = {
    "name": anything,
    "learning_rate": number(above=0),
    "warmup_epoch": number(0),
    "warmup_start_lr": number(0),
    "by_epoch": only(False, "the learning rate changes with every step"),
    "last_epoch": only(-1, "a resumed training knows where it was"),
    "verbose": without_effect("the log has the learning rate of every step"),
}
_OF_SCHEDULE: dict[str, dict[str, Reader]] = {
    "Constant": {},
    "Cosine": {"eta_min": number(0)},
    "Piecewise": {"decay_epochs": list_of(number(above=0), single=True), "values": list_of(number(0))},
}
_STAGE: dict[str, Reader] = {
    "name": text,
    "epochs": number(above=0),
    "batch_size": whole(1),
    "first_block": whole(0),
    "Optimizer": _partial,
}
