"""Architectures. :func:`build` makes one by the name that configurations use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from paddle import nn

from .alexnet import AlexNet
from .heads import CosMargin, FullyConnected, Tanh
from .mobilenet_v1 import MobileNetV1
from .picodet import PicoDetS
from .pplcnet import WIDTHS, PPLCNet, pplcnet_of_width
from .rec_model import RecModel
from .vgg import VGG19, VGG19Sigmoid

NETS: dict[str, Callable[..., nn.Layer]] = {
    "AlexNet": AlexNet,
    "CosMargin": CosMargin,
    "FC": FullyConnected,
    "MobileNetV1": MobileNetV1,
    "PicoDetS": PicoDetS,
    **{name: pplcnet_of_width(scale) for name, scale in WIDTHS.items()},
    **{f"{name}_Tanh": pplcnet_of_width(scale, tanh=True) for name, scale in WIDTHS.items()},
    "Tanh": Tanh,
    "VGG19": VGG19,
    "VGG19Sigmoid": VGG19Sigmoid,
}


def build(name: str, **kwargs: Any) -> nn.Layer:
    """Make the layer that a configuration calls ``name``.

    Raises:
        ValueError: the name is not one of :data:`NETS`, the architecture does not take a setting, or one is missing.
    """
    if name not in NETS:
        raise ValueError(f"no architecture is called {name!r}; there are {', '.join(sorted(NETS))}")
    parameters = inspect.signature(NETS[name]).parameters
    unknown = [key for key in kwargs if key not in parameters]
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in kwargs]
    if unknown:
        takes = f"takes {', '.join(parameters)}" if parameters else "takes no settings"
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; it {takes}")
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return NETS[name](**kwargs)


__all__ = [
    "NETS",
    "VGG19",
    "AlexNet",
    "CosMargin",
    "FullyConnected",
    "MobileNetV1",
    "PPLCNet",
    "PicoDetS",
    "RecModel",
    "Tanh",
    "VGG19Sigmoid",
    "build",
]
