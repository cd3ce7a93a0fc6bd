"""Everything that could fail before the first step of a detector's training, tried; and what would run, as a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import paddle
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.inference import ModelError

from ..checkpoint import load_weights
from ..config import ConfigError
from ..data.errors import DatasetError
from ..data.pictures import read_rgb
from ..devices import start_devices
from ..model import fit_weights
from ..pretrained import PretrainedError
from .config import BoxPhotos, DetectionConfig
from .sources import PhotoSource, shares
from .training import Detection

_EXPECTED = (ConfigError, DatasetError, ModelError, PretrainedError, OSError)
_TRIED_PICTURES = 4
_Result = TypeVar("_Result")


def check_detection(config: DetectionConfig, console: Console) -> None:
    """Try a configuration, and print what would run.

    Opens the sources, decodes every photo that is measured on, builds the network, fits the weights that it starts
    from where they are files here, and evaluates the losses on a few pictures.

    Args:
        config: as :func:`models.training.config_file.load_config` reads it.
        console: where the result goes.

    Raises:
        ConfigError: something would fail; the text lists the problems, one a line.
    """
    problems: list[str] = []

    def attempt(action: Callable[[], _Result]) -> _Result | None:
        try:
            return action()
        except _EXPECTED as error:
            problems.append(str(error))
            return None

    devices = start_devices(config.device)
    with console.status("reading pictures"):
        task = attempt(lambda: Detection.open(config, devices))
    for row in (task.evaluated if task is not None else None) or ():
        attempt(lambda path=row.path: read_rgb(path))
    if task is not None:
        attempt(lambda: _try_weights(task))
        attempt(lambda: _try_losses(task))
    console.print(_plan(config, task))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError("\n  ".join([f"{count} in what would run:", *problems[:20]]))


def _try_weights(task: Detection) -> None:
    """Fit the weights that the training starts from, where they are files."""
    config, network = task.config, task.build()
    for path in (config.pretrained_model, config.checkpoints):
        if path is not None:
            fit_weights(network, load_weights(path), str(path))
    if isinstance(config.pretrained, str) and "://" not in config.pretrained:
        task.initial_weights(lambda _: None)


def _try_losses(task: Detection) -> None:
    """Draw a batch, and evaluate the losses on a few of its pictures."""
    drawn = task.epoch(task.config.stages[0], (task.config.seed, 0, 0), 0)
    batch = next(drawn).first(_TRIED_PICTURES)
    drawn.close()
    with paddle.no_grad():
        parts, _ = task.losses(task.forward(task.build(), batch, None), batch)
    for name, value in parts.items():
        if not math.isfinite(float(value)):
            raise ConfigError(f"Loss.Train: {name} is {float(value)} for the first pictures")


def _plan(config: DetectionConfig, task: Detection | None) -> Table:
    table = Table("", "", show_header=False, title=escape(config.name), title_justify="left")
    height, width = config.image_shape
    table.add_row("network", f"{config.arch['name']}, {height} x {width} pixels")
    if task is not None:
        weights = sum(int(np.prod(each.shape)) for each in task.build().parameters())
        table.add_row("weights", f"{weights:,} ({weights * 4 / 2**20:.1f} MiB)")
    table.add_row("starts from", escape(str(config.pretrained_model or config.pretrained or "random weights")))
    opened = task.sources if task is not None else [None] * len(config.sources)
    for source, pictures, share in zip(config.sources, opened, shares(config.sources), strict=True):
        where = source.boxes_path if isinstance(source, BoxPhotos) else source.cutouts
        count = f"{len(pictures)} photos of " if isinstance(pictures, PhotoSource) else ""
        table.add_row("learns from", escape(f"{share:.0%} {type(source).__name__}: {count}{where}"))
    measured = f"{len(task.evaluated)} photos" if task is not None and task.evaluated else "nothing"
    table.add_row("measured on", measured)
    for stage in config.stages:
        steps = round(stage.epochs * task.epoch_steps(stage)) if task is not None else 0
        frozen = f", frozen below part {stage.first_block}" if stage.first_block else ""
        rate = stage.optimizer.schedule.learning_rate
        text = f"{steps:,} steps of {stage.batch_size} pictures, {stage.optimizer.name} from {rate:g}{frozen}"
        table.add_row(f"stage {escape(stage.name)}", text)
    table.add_row("writes to", escape(str(config.output_dir)))
    return table
