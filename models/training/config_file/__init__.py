"""The YAML file of a training: PaddleClas's own vocabulary, and a few keys of ours, checked key by key.

Files made for PaddleClas's binary PP-ShiTu, DCH, DSHSD and LCDSH are read as they are. Every key is in one table of
this package with what becomes of it: a value, a check, or a note where it has no effect here. What is in no table, or
asks for something that is not done here, is a problem that names file, line and key; all problems of a file are
reported together. Keys of ours:

- ``Stages``: a list of ``{name, epochs, batch_size, first_block, Optimizer}`` instead of ``Global.epochs``;
  ``Optimizer`` there holds only what differs from the main one;
- ``Global.name``, ``Global.save_interval_s``, ``Global.device: auto``, ``Arch.Head.class_num: auto``;
- ``Optimizer.clip_norm_global``, ``Optimizer.backbone_lr_mult``;
- ``dataset`` may be a list of sources, each with ``repeat`` and ``teacher``; ``transform_ops`` then stands beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.nets import NETS
from models.yaml_tree import Node, YamlProblem, read_tree, with_override

from ..config import Arch, Config, ConfigError, LoaderConfig, LossTerm, TrainingConfig
from .arch import DETECTORS, read_arch, read_losses
from .data import read_eval, read_metrics, read_train
from .detection import read_detection
from .fields import (
    Reader,
    Reading,
    entries,
    flag,
    node_itself,
    one_of,
    only,
    without_effect,
)
from .general import GLOBAL, read_common
from .schedule import read_stages

__all__ = ["load_config"]

_NEED_TEACHER = "SimilarityPreservingLoss"


def load_config(file: Path | str, overrides: Iterable[str] = ()) -> TrainingConfig:
    """Read and check a configuration: of a binary feature model, or of a detector where ``Arch.name`` is one.

    Args:
        file: YAML in UTF-8. Paths in it are relative to where the command runs, as in PaddleClas.
        overrides: ``a.b=value`` texts, laid over the file one after the other; the value is read as YAML, entries of
            lists go by their number.

    Raises:
        ConfigError: the file cannot be read, or has a key or value that cannot be used. Each problem is a line that
            begins with file, line and key, or with ``-o`` and the key.
    """
    file = Path(file)
    try:
        root = read_tree(file)
        for override in overrides:
            root = with_override(root, override)
    except YamlProblem as error:
        raise ConfigError(str(error)) from None
    reading = Reading()
    read = read_detection if _is_of_detector(root) else _read
    config = read(reading, root, file.stem)
    if config is None or reading.problems:
        raise ConfigError("\n".join(reading.problems))
    return config


def _is_of_detector(root: Node) -> bool:
    """Whether ``Arch.name`` is a detector."""
    arch = root.value.get("Arch") if isinstance(root.value, dict) else None
    name = arch.value.get("name") if arch is not None and isinstance(arch.value, dict) else None
    return name is not None and name.value in DETECTORS


def _read(reading: Reading, root: Node, stem: str) -> Config | None:
    """Read the whole file; None where a part could not be read, of which the problems tell."""
    if not isinstance(root.value, dict):
        reading.refuse(root, "must be a map with Global, Arch, Loss, Optimizer and DataLoader")
        return None
    top = reading.section(root, _SECTIONS)
    for key in ("Arch", "Loss", "DataLoader", *(() if "Stages" in top else ("Global", "Optimizer"))):
        reading.require(root, key, "models/configs has examples")
    general = reading.section(top.get("Global"), _GLOBAL, "Global")
    arch = read_arch(reading, top["Arch"]) if "Arch" in top else None
    losses = read_losses(reading, top["Loss"], arch) if "Loss" in top else ()
    train, query, gallery = _read_loaders(reading, top.get("DataLoader"), "Stages" in top)
    if "Stages" not in top and "Global" in top:
        reading.require(top["Global"], "epochs", "how often the training sees every picture")
    batch_size = train.sampler.batch_size or None if train is not None else 1
    stages = read_stages(reading, top, general.pop("epochs", None), batch_size)
    metrics = read_metrics(reading, top.get("Metric"))
    if arch is None or train is None or not stages:
        return None
    _check_together(reading, top, arch, losses, train)
    sampler = replace(train.sampler, batch_size=batch_size or stages[0].batch_size)
    return Config(
        **read_common(reading, top, _of_hashing(general, arch), stem, is_evaluated=query is not None),
        arch=arch,
        losses=losses,
        stages=stages,
        train=replace(train, sampler=sampler),
        query=query,
        gallery=gallery,
        metrics=metrics,
        notes=tuple(f"{', '.join(places)}: {message}" for message, places in reading.notes.items()),
    )


def _of_hashing(general: dict[str, Any], arch: Arch) -> dict[str, Any]:
    """Fill in what ``Global`` says of codes."""
    given = {"feature_normalize": False, "feature_binarize": "round" if _is_sigmoid(arch) else "sign", **general}
    given["binarize"] = given.pop("feature_binarize")
    return given


def _read_loaders(
    reading: Reading, node: Node | None, has_stages: bool
) -> tuple[LoaderConfig | None, LoaderConfig | None, LoaderConfig | None]:
    """Read ``DataLoader``: training, queries, gallery."""
    parts = reading.section(node, {"Train": node_itself, "Eval": node_itself}, "DataLoader")
    if node is not None:
        reading.require(node, "Train", "which pictures the network learns from")
    train = read_train(reading, parts["Train"], not has_stages) if "Train" in parts else None
    return train, *read_eval(reading, parts.get("Eval"))


def _check_together(
    reading: Reading,
    top: dict[str, Node],
    arch: Arch,
    losses: tuple[LossTerm, ...],
    train: LoaderConfig,
) -> None:
    """Find what is right alone and wrong together."""
    name = str(arch.backbone.get("name"))
    binarize = entries(reading, top.get("Global")).get("feature_binarize")
    if binarize is not None and _is_sigmoid(arch) and str(binarize.value).lower() == "sign":
        reading.refuse(binarize, f"{name} gives numbers from 0 to 1, whose signs are all alike; it must be round")
    if name in NETS and "first_block" not in inspect.signature(NETS[name]).parameters:
        for stage in top["Stages"].value if "Stages" in top else ():
            first = entries(reading, stage).get("first_block")
            if first is not None and first.value:
                reading.refuse(first, f"{name} cannot be frozen below a block; leave this out")
    if any(term.name == _NEED_TEACHER for term in losses) and not any("teacher" in one for one in train.datasets):
        where = top["DataLoader"].value["Train"].value["dataset"]
        reading.refuse(where, f"{_NEED_TEACHER} needs the features of a teacher, and no source has a teacher")


def _is_sigmoid(arch: Arch) -> bool:
    return str(arch.backbone.get("name")).endswith("Sigmoid")


_SECTIONS: dict[str, Reader] = {
    "Global": node_itself,
    "Arch": node_itself,
    "Loss": node_itself,
    "Optimizer": node_itself,
    "Stages": node_itself,
    "DataLoader": node_itself,
    "Metric": node_itself,
    "AMP": node_itself,
    "EMA": node_itself,
    "Infer": without_effect("export the model, then the service or `shitu search` makes codes with it"),
}
_ON_FLOATS = "codes are compared by Hamming distance"
_GLOBAL: dict[str, Reader] = {
    **GLOBAL,
    "eval_mode": only("retrieval", "binary features are evaluated by retrieval"),
    "feature_normalize": flag,
    "feature_binarize": one_of("sign", "round"),
    "retrieval_feature_from": only("features", "the code is made of the features"),
    "re_ranking": only(False, _ON_FLOATS),
    "sim_block_size": without_effect("the search in Faiss chooses its own blocks"),
}
