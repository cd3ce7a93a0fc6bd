"""What ``python -m models.train --check`` does: try all that can fail before the first step, and say what would run.

Nothing is downloaded, and nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

import numpy as np
import paddle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from models.inference import ModelError
from models.nets import RecModel

from .check_report import Plan, print_plan
from .checkpoint import load_weights
from .config import Config, ConfigError, LoaderConfig
from .data.datasets import Dataset, DatasetError, load_datasets
from .data.loader import Batch, batches
from .data.samplers import epoch_batches
from .data.transforms import Transforms
from .devices import Devices, start_devices
from .evaluation import match_labels
from .hash_losses import build_loss, evaluate_loss
from .model import build_model, fit_weights
from .pretrained import PretrainedError, apply_pretrained, load_pretrained

_TRIED_PICTURES = 4
_LISTED_PROBLEMS = 20
_EXPECTED = (ConfigError, DatasetError, ModelError, PretrainedError, OSError)
_Result = TypeVar("_Result")


def check(config: Config, console: Console) -> None:
    """Try a configuration, and print what would run.

    Opens the pictures of training, queries and gallery and decodes every one; builds the network, and fits the
    weights it starts from where they are files here; draws the first batch, and evaluates the losses on a few of its
    pictures.

    Args:
        config: as :func:`models.training.config_file.load_config` reads it.
        console: where progress and the result go.

    Raises:
        ConfigError: something would fail; the text lists the problems, one a line.
    """
    trial = _Trial(config, console)
    print_plan(config, trial.run(), console)
    problems = list(dict.fromkeys(trial.problems))
    count = len(problems)
    if count:
        lines = problems[:_LISTED_PROBLEMS]
        if count > len(lines):
            lines.append(f"and {count - len(lines)} more")
        raise ConfigError("\n  ".join([f"{count} problem{'s' if count > 1 else ''} in what would run:", *lines]))


class _Trial:
    """A run through everything; :attr:`problems` collects what would fail."""

    def __init__(self, config: Config, console: Console) -> None:
        self.problems: list[str] = []
        self._config = config
        self._console = console

    def run(self) -> Plan:
        """Try one thing after the other, but for what depends on something that failed."""
        config = self._config
        devices = self._try(lambda: start_devices(config.device)) or Devices("cpu")
        transforms = self._transforms()
        data = self._open()
        self._verify(data)
        train, query, gallery = (data.get(name) for name in ("train", "query", "gallery"))
        unmatched = self._unmatched(query, gallery) if query is not None and gallery is not None else None
        steps = self._epoch_steps(train, devices) if train is not None else [None] * len(config.stages)
        class_num = config.class_num or (len(train.class_names) if train is not None else 1)
        model = self._try(lambda: build_model(config, class_num))
        if model is not None:
            self._fit_weights(model)
            model.eval()
            for name, built in transforms.items():
                self._check_size(name, model, built.size)
            if train is not None and "train" in transforms and not self.problems:
                self._try(lambda: self._try_losses(model, train, transforms["train"], (config.seed,)))
        size = transforms["train"].size if "train" in transforms else None
        return Plan(devices, train, query, gallery, unmatched, steps, size, model)

    def _try(self, action: Callable[[], _Result]) -> _Result | None:
        try:
            return action()
        except _EXPECTED as error:
            self.problems.append(str(error))
            return None

    def _transforms(self) -> dict[str, Transforms]:
        built: dict[str, Transforms] = {}
        for name, loader in _loaders(self._config).items():
            transforms = self._try(partial(Transforms.from_ops, loader.transform_ops))
            if transforms is not None:
                built[name] = transforms
        return built

    def _open(self) -> dict[str, Dataset]:
        """Open the pictures as the training does: those it learns from have to be of the head's classes."""
        opened: dict[str, Dataset] = {}
        for name, loader in _loaders(self._config).items():
            if name == "gallery" and self._config.query is not None and loader.datasets == self._config.query.datasets:
                if "query" in opened:
                    opened[name] = opened["query"]
                continue
            class_num = self._config.class_num if name == "train" else None
            # Every picture is decoded once here: keeping them would only take memory.
            dataset = self._try(partial(load_datasets, loader.datasets, class_num, cache_bytes=0))
            if dataset is not None:
                opened[name] = dataset
        return opened

    def _verify(self, data: Mapping[str, Dataset]) -> None:
        """Decode every picture, those of several parts once."""
        loaders = _loaders(self._config)
        columns = TextColumn("decoding {task.description}"), BarColumn(), MofNCompleteColumn()
        seen: list[object] = []
        with Progress(*columns, console=self._console, transient=True) as progress:
            for name, dataset in data.items():
                if loaders[name].datasets not in seen:
                    seen.append(loaders[name].datasets)
                    task = progress.add_task(name, total=len(dataset))
                    self.problems += dataset.verify(partial(_advance, progress, task))

    def _unmatched(self, query: Dataset, gallery: Dataset) -> int | None:
        """Count the queries whose class the gallery does not have."""
        matched = self._try(lambda: match_labels(self._config, query, gallery))
        return None if matched is None else int((~np.isin(matched[0], matched[1])).sum())

    def _epoch_steps(self, train: Dataset, devices: Devices) -> list[int | None]:
        """Count the steps of an epoch of each stage."""
        steps: list[int | None] = []
        for stage in self._config.stages:
            sampler = replace(self._config.train.sampler, batch_size=stage.batch_size)
            seed = (self._config.seed,)
            drawn = self._try(partial(epoch_batches, sampler, train.labels, seed, devices.rank, devices.world))
            steps.append(len(drawn) if drawn else None)
        return steps

    def _fit_weights(self, model: RecModel) -> None:
        """Fit the weights that the training starts from, where they are files."""
        arch, whole, checkpoint = self._config.arch, self._config.pretrained_model, self._config.checkpoints
        for path in (whole, checkpoint):
            if path is not None:
                self._try(lambda path=path: fit_weights(model, load_weights(path), str(path)))
        is_file = isinstance(arch.pretrained, str) and "://" not in arch.pretrained
        if is_file and whole is None and checkpoint is None:
            self._try(
                lambda: apply_pretrained(
                    model.backbone, load_pretrained(arch.backbone["name"], arch.pretrained, arch.use_ssld)
                )
            )

    def _check_size(self, name: str, model: RecModel, size: tuple[int, int]) -> None:
        """See that the network takes pictures of the size that a part of ``DataLoader`` gives."""
        try:
            with paddle.no_grad():
                model.backbone(paddle.zeros([1, 3, *size]))
        except ValueError as error:
            self.problems.append(f"{_KEYS[name]}: pictures of {size[0]} x {size[1]} pixels: {error}")

    def _try_losses(self, model: RecModel, train: Dataset, transforms: Transforms, seed: tuple[int, ...]) -> None:
        """Draw a batch, and evaluate the losses on a few of its pictures."""
        sampler = replace(self._config.train.sampler, batch_size=self._config.stages[0].batch_size)
        indexes = epoch_batches(sampler, train.labels, seed)[0]
        (batch,) = batches(train, transforms, [indexes], seed, workers=self._config.train.num_workers)
        few = Batch(*(getattr(batch, each.name)[:_TRIED_PICTURES] for each in fields(Batch)))
        with paddle.no_grad():
            output = model(paddle.to_tensor(few.views), paddle.to_tensor(few.labels))
            output = output if isinstance(output, dict) else {"features": output}
            for term in self._config.losses:
                value = float(evaluate_loss(build_loss(term), output, few))
                if not math.isfinite(value):
                    raise ConfigError(f"Loss.Train: {term.name} is {value} for the first pictures")


def _loaders(config: Config) -> dict[str, LoaderConfig]:
    parts = {"train": config.train, "query": config.query, "gallery": config.gallery}
    return {name: loader for name, loader in parts.items() if loader is not None}


def _advance(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


_KEYS = {"train": "DataLoader.Train", "query": "DataLoader.Eval.Query", "gallery": "DataLoader.Eval.Gallery"}
