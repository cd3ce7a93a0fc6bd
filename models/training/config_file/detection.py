"""The configuration of a main-body detector.

``Arch: {name: PicoDetS, pretrained: ...}``; ``Loss.Train`` with ``QualityFocalLoss``, ``GIoULoss`` and
``DistributionFocalLoss``, each with its ``weight``; ``DataLoader.Train`` with ``epoch_pictures`` and one or several
``dataset``, of the kinds ``BoxPhotos`` and ``ComposedScenes``; ``DataLoader.Eval`` with one of ``BoxPhotos``;
``Global``, ``Optimizer``, ``Stages``, ``EMA`` and ``AMP`` as for feature models.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from models.nets import NETS
from models.yaml_tree import Node

from ..detection.config import BoxPhotos, ComposedScenes, DetectionConfig, LossWeights
from .fields import (
    ABSENT,
    Reader,
    Reading,
    anything,
    list_of,
    named_maps,
    node_itself,
    number,
    only,
    path,
    settings_of,
    suggest,
    whole,
)
from .general import GLOBAL, read_common
from .schedule import read_stages

_CELL = 64  # the coarsest stride; pictures are whole numbers of it
_LOSSES = {"QualityFocalLoss": "quality", "GIoULoss": "box", "DistributionFocalLoss": "distribution"}


def read_detection(reading: Reading, root: Node, stem: str) -> DetectionConfig | None:
    """Read the whole file of a detector; None where a part could not be read, of which the problems tell."""
    top = reading.section(root, _SECTIONS)
    for key in ("Global", "DataLoader", *(() if "Stages" in top else ("Optimizer",))):
        reading.require(root, key, "models/configs/Detection has an example")
    general = reading.section(top.get("Global"), GLOBAL, "Global")
    if "Global" in top:
        reading.require(top["Global"], "image_shape", "[3, height, width] of the pictures, such as [3, 320, 320]")
    shape = general.get("image_shape")
    if shape is not None and any(side % _CELL for side in shape):
        reading.refuse(top["Global"].value["image_shape"], f"must have sides that are multiples of {_CELL}")
    arch = _read_arch(reading, top["Arch"])
    loss = _read_loss(reading, top.get("Loss"))
    train, evaluated = _read_loaders(reading, top.get("DataLoader"))
    stages = read_stages(reading, top, general.pop("epochs", None), train.get("batch_size"))
    if reading.problems or shape is None or not stages:
        return None
    return DetectionConfig(
        **read_common(reading, top, general, stem, is_evaluated=evaluated is not None),
        arch={key: value for key, value in arch.items() if key != "pretrained"},
        pretrained=arch.get("pretrained", False),
        loss=loss,
        stages=stages,
        sources=train["dataset"],
        epoch_pictures=train["epoch_pictures"],
        num_workers=train.get("num_workers", 2),
        evaluated=evaluated,
        notes=tuple(f"{', '.join(places)}: {message}" for message, places in reading.notes.items()),
    )


def _read_arch(reading: Reading, node: Node) -> dict[str, Any]:
    kind = NETS[str(node.value["name"].value)]
    readers = {"name": anything, "pretrained": anything, **settings_of(kind, without=("first_block",))}
    return reading.section(node, {**readers, "class_num": only(1, "main bodies are one class")}, "Arch")


def _read_loss(reading: Reading, node: Node | None) -> LossWeights:
    terms = reading.section(node, {"Train": named_maps}, "Loss").get("Train", [])
    weights: dict[str, float] = {}
    for name, child in terms:
        if name not in _LOSSES:
            reading.refuse(child, f"no loss of a detector is called {name}{suggest(name, _LOSSES)}")
            continue
        weights[_LOSSES[name]] = reading.section(child, {"weight": number(0)}, name).get("weight", 1.0)
    # Where the file lists losses, those it leaves out have no weight.
    missing = {field.name: 0.0 for field in fields(LossWeights) if terms and field.name not in weights}
    return LossWeights(**weights, **missing)


def _read_loaders(reading: Reading, node: Node | None) -> tuple[dict[str, Any], BoxPhotos | None]:
    parts = reading.section(node, {"Train": node_itself, "Eval": node_itself}, "DataLoader")
    if node is not None:
        reading.require(node, "Train", "which pictures the detector learns from")
    train: dict[str, Any] = {}
    if "Train" in parts:
        reading.require(parts["Train"], "dataset", "BoxPhotos or ComposedScenes, or a list of them")
        reading.require(parts["Train"], "epoch_pictures", "how many pictures make an epoch")
        train = reading.section(parts["Train"], _TRAIN, "DataLoader.Train")
    evaluated = reading.section(parts.get("Eval"), {"dataset": _source}, "DataLoader.Eval").get("dataset")
    if evaluated is not None and not isinstance(evaluated, BoxPhotos):
        reading.refuse(parts["Eval"].value["dataset"], "must be BoxPhotos: detectors are measured on photos")
    return train, evaluated


def _source(reading: Reading, node: Node) -> Any:
    name = reading.name(node, "dataset of a detector", tuple(_SOURCES))
    if name is None:
        return ABSENT
    kind, readers, needed = _SOURCES[name]
    values = reading.section(node, {"name": anything, **readers}, name)
    for key in needed:
        reading.require(node, key, f"{name} needs it")
    values.pop("name", None)
    if any(key not in values for key in needed):
        return ABSENT
    return kind(**values)


_SOURCES: dict[str, tuple[Any, dict[str, Reader], tuple[str, ...]]] = {
    "BoxPhotos": (
        BoxPhotos,
        {
            "boxes_path": path,
            "image_root": path,
            "share": number(above=0),
            "least_score": number(0, 1),
            "ignored_score": number(0, 1),
        },
        ("boxes_path", "image_root"),
    ),
    "ComposedScenes": (
        ComposedScenes,
        {"cutouts": path, "photos": path, "share": number(above=0)},
        ("cutouts", "photos"),
    ),
}
_TRAIN: dict[str, Reader] = {
    "dataset": list_of(_source, single=True),
    "epoch_pictures": whole(1),
    "batch_size": whole(1),
    "num_workers": whole(1),
}
_SECTIONS: dict[str, Reader] = dict.fromkeys(
    ("Global", "Arch", "Loss", "Optimizer", "Stages", "DataLoader", "AMP", "EMA"), node_itself
)
