"""Checkpoints that survive being killed: written beside, synced, then renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle

from models.hub.folders import sync

from .config import ConfigError
from .weight_files import WeightFileError, Weights, find_file, read_state

LAST_NAME = "last.pdparams"
BEST_NAME = "best.pdparams"
FINAL_NAME = "final.pdparams"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at ``path`` in one step.

    Raises:
        OSError: it cannot be written, as on a full disk; what was at ``path`` before is still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        paddle.save(state, str(temporary))
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote, without running what the file may contain; arrays are read-only.

    Raises:
        ConfigError: there is no such file, or it is torn or something else. ``.pdparams`` may be left out.
    """
    found = find_file(path)
    if found is None:
        raise ConfigError(f"there is no file {path}")
    try:
        return read_state(found)
    except (WeightFileError, OSError) as error:
        raise ConfigError(f"{found} cannot be read: {error}") from error


def trained_weights(folder: Path) -> Path:
    """Give the weights to use of a training: the best of its evaluations, else the final ones."""
    best = folder / BEST_NAME
    return best if best.is_file() else folder / FINAL_NAME


def load_weights(path: Path | str) -> Weights:
    """Read the weights of a whole network by name, averaged ones where there are some.

    Args:
        path: weights as the training writes them (``best``, ``final``, ``epoch_N``), or its checkpoint (``last``).

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    state = load_checkpoint(Path(path))
    if "frozen" in state:
        return state["frozen"] | (state["ema"] or state["model"])
    if not state or not all(hasattr(value, "shape") for value in state.values()):
        raise ConfigError(f"{path} holds no weights by name")
    return state


def to_weights(layer: paddle.nn.Layer) -> Weights:
    """Copy a layer's parameters and buffers by name."""
    return {name: np.array(tensor.numpy()) for name, tensor in layer.state_dict().items()}


class Ema:
    """Exponential moving average of a layer's parameters (Polyak and Juditsky, 1992), which generalise better.

    The decay grows with the steps, as (1 + step) / (10 + step), so that early averages forget the start.
    """

    def __init__(self, layer: paddle.nn.Layer, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average = {name: tensor.clone() for name, tensor in layer.state_dict().items()}

    @paddle.no_grad()
    def update(self, layer: paddle.nn.Layer) -> None:
        """Take in the parameters after a step; buffers are copied."""
        self.steps += 1
        rate = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in layer.state_dict().items():
            average = self.average[name]
            if tensor.stop_gradient:
                average.set_value(tensor)
            else:
                average.add_((tensor - average) * rate)

    def restore(self, average: Weights, steps: int) -> None:
        """Go on from averages that were saved after so many steps."""
        self.steps = steps
        for name, value in average.items():
            self.average[name].set_value(value)

    def to_weights(self) -> Weights:
        """Copy the averages by name."""
        return {name: np.array(tensor.numpy()) for name, tensor in self.average.items()}
