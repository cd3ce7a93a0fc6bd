"""Checkpoints that survive being killed: written beside, synced, then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle

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

    def to_weights(self) -> Weights:
        """Copy the averages by name."""
        return {name: np.array(tensor.numpy()) for name, tensor in self.average.items()}
