"""Training configuration: a YAML file in PP-ShiTu's vocabulary, checked key by key.

``-o a.b=value`` overrides single keys; a value is read as YAML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class ConfigError(Exception):
    """The configuration cannot be used; the text names the key."""


@dataclass(frozen=True)
class Stage:
    """One part of the training with its own learning-rate schedule.

    Attributes:
        name: for the log.
        first_block: blocks below it stay frozen and run on Paddle Inference; 0 trains everything.
        epochs: may be a fraction.
        batch_size: pictures a step.
        learning_rate: of the new layers (``norm``, ``fc``, head), at the top of the cosine.
        backbone_rate: factor on it for the pretrained layers.
        warmup_epoch: linear warm-up, in epochs.
        weight_decay: decoupled (AdamW).
        strength: of the augmentation, 0 to 1.
    """

    name: str
    first_block: int
    epochs: float
    batch_size: int
    learning_rate: float
    backbone_rate: float = 0.1
    warmup_epoch: float = 0.5
    weight_decay: float = 1e-4
    strength: float = 1.0


@dataclass(frozen=True)
class Config:
    """A checked configuration; nested maps that other modules check are kept as maps.

    ``export_size`` is the (height, width) of ``Global.image_shape``, for which the model is exported; None takes
    the size it was trained at.
    """

    name: str
    seed: int
    output_dir: Path
    ema_decay: float
    save_interval_s: float
    transform_ops: list[dict[str, Any]]
    backbone: dict[str, Any]
    pretrained: Path | None
    neck: dict[str, Any] | None
    head: dict[str, Any]
    losses: list[tuple[str, float, dict[str, Any]]]
    stages: tuple[Stage, ...]
    datasets: list[dict[str, Any]]
    backgrounds: str | None
    num_workers: int
    binarize: str
    export_size: tuple[int, int] | None


def load_config(path: Path | str, overrides: Iterable[str] = ()) -> Config:
    """Read and check a configuration.

    Raises:
        ConfigError: not YAML, an unknown or missing key, or a value of the wrong kind.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"configuration {path} must be a map of sections")
    for override in overrides:
        _apply(content, override)
    try:
        return _parse(_Section(content, ""))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _parse(root: _Section) -> Config:
    general, arch, loader = root.section("Global"), root.section("Arch"), root.section("DataLoader")
    if (name := arch.take("name", "RecModel")) != "RecModel":
        raise ConfigError(f"Arch.name must be RecModel, not {name!r}")
    backbone = dict(arch.take("Backbone"))
    pretrained = backbone.pop("pretrained", None)
    train = loader.section("Train")
    config = Config(
        name=str(general.take("name")),
        seed=int(general.take("seed", 0)),
        output_dir=Path(general.take("output_dir")),
        ema_decay=float(general.take("ema_decay", 0.999)),
        save_interval_s=float(general.take("save_interval_s", 120.0)),
        binarize=general.take("feature_binarize", "sign"),
        export_size=_image_shape(general.take("image_shape", None)),
        transform_ops=train.take("transform_ops"),
        backbone=backbone,
        pretrained=Path(pretrained) if pretrained else None,
        neck=arch.take("Neck", None),
        head=dict(arch.take("Head")),
        losses=[_loss(entry) for entry in root.section("Loss").take("Train")],
        stages=tuple(_stage(entry) for entry in root.take("Stages")),
        datasets=train.take("dataset"),
        backgrounds=train.take("backgrounds", None),
        num_workers=int(train.take("num_workers", 2)),
    )
    root.finish()
    return config


def _image_shape(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 3 or value[0] != 3 or not all(isinstance(n, int) for n in value):
        raise ConfigError(f"Global.image_shape must be [3, height, width], not {value!r}")
    return value[1], value[2]


def _loss(entry: Any) -> tuple[str, float, dict[str, Any]]:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"Loss.Train: each entry is one loss with its settings, not {entry!r}")
    ((name, settings),) = entry.items()
    settings = dict(settings or {})
    return str(name), float(settings.pop("weight", 1.0)), settings


def _stage(entry: Any) -> Stage:
    try:
        return Stage(**entry)
    except TypeError as error:
        raise ConfigError(f"Stages: {str(error).replace('Stage.__init__() ', '')}") from None


class _Section:
    """A map whose keys are taken one by one, so that what is left over at the end is unknown."""

    def __init__(self, content: Any, path: str) -> None:
        if not isinstance(content, dict):
            raise ConfigError(f"{path or 'the file'} must be a map of keys")
        self._content = dict(content)
        self._path = path
        self._children: list[_Section] = []

    def section(self, key: str) -> _Section:
        child = _Section(self.take(key), f"{self._path}{key}.")
        self._children.append(child)
        return child

    def take(self, key: str, *default: Any) -> Any:
        if key not in self._content and not default:
            raise ConfigError(f"{self._path}{key} is missing")
        return self._content.pop(key, *default)

    def finish(self) -> None:
        if self._content:
            raise ConfigError(f"unknown key(s): {', '.join(self._path + str(key) for key in self._content)}")
        for child in self._children:
            child.finish()


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value``; list items are named by number."""
    keys, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"-o {override}: write it as key.key=value")
    node: Any = content
    *parents, last = keys.split(".")
    try:
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = yaml.safe_load(text)
    except (TypeError, ValueError, IndexError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"-o {override}: there is no such key ({error})") from None
