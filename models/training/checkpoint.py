"""Checkpoints that survive being killed: written beside, synced, then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle

from .config import ConfigError

LAST_NAME = "last.pdparams"
BEST_NAME = "best.pdparams"
FINAL_NAME = "final.pdparams"

Weights = dict[str, npt.NDArray[Any]]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at ``path`` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    paddle.save(state, str(temporary))
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; arrays come as numpy."""
    return paddle.load(str(path), return_numpy=True)


def trained_weights(folder: Path) -> Path:
    """Give the weights to use of a training: the best of its evaluations, else the final ones."""
    best, final = folder / BEST_NAME, folder / FINAL_NAME
    return best if best.is_file() else final


def load_weights(path: Path | str) -> Weights:
    """Read the weights of a whole network by name, averaged ones where there are some.

    Args:
        path: weights as the training writes them (``best``, ``final``, ``epoch_N``), or its checkpoint (``last``).

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file() and path.with_name(path.name + ".pdparams").is_file():
        path = path.with_name(path.name + ".pdparams")
    if not path.is_file():
        raise ConfigError(f"there are no weights at {path}: train first, or name another file")
    try:
        state = load_checkpoint(path)
    except Exception as error:  # unpickling a torn file raises whatever its bytes happen to ask for
        raise ConfigError(f"{path} cannot be read as weights ({type(error).__name__}: {error})") from error
    if isinstance(state, dict) and "frozen" in state:
        return state["frozen"] | (state["ema"] or state["model"])
    if not isinstance(state, dict) or not all(hasattr(value, "shape") for value in state.values()):
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
