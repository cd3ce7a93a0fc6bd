"""Architectures. :func:`build` makes one by the name that configurations use."""

from collections.abc import Callable
from typing import Any

from paddle import nn

from .heads import CosMargin, FullyConnected, Tanh
from .mobilenet_v1 import MobileNetV1
from .rec_model import RecModel

NETS: dict[str, Callable[..., nn.Layer]] = {
    "CosMargin": CosMargin,
    "FC": FullyConnected,
    "MobileNetV1": MobileNetV1,
    "Tanh": Tanh,
}


def build(name: str, **kwargs: Any) -> nn.Layer:
    """Make the layer that a configuration calls ``name``.

    Raises:
        ValueError: the name is not one of :data:`NETS`.
    """
    if name not in NETS:
        raise ValueError(f"no architecture is called {name!r}; there are {', '.join(sorted(NETS))}")
    return NETS[name](**kwargs)


__all__ = ["NETS", "CosMargin", "FullyConnected", "MobileNetV1", "RecModel", "Tanh", "build"]
