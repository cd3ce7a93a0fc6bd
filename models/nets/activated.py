"""A last layer with an activation after it, as PP-ShiTu's binary backbones have."""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import nn


class Activated(nn.Layer):
    """A layer, then a function of its output.

    Args:
        layer: kept as ``origin_layer``, the name it has in weights trained with PaddleClas.
        activation: a tensor to one of the same shape.
    """

    def __init__(self, layer: nn.Layer, activation: Callable[[paddle.Tensor], paddle.Tensor]) -> None:
        super().__init__()
        self.origin_layer = layer
        self._activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the layer, then the activation."""
        return self._activation(self.origin_layer(x))
