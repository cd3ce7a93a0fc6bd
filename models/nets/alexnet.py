"""AlexNet (Krizhevsky et al., NIPS 2012) on one device, the backbone of the deep-hash papers.

The channel counts are those of the one-tower version (Krizhevsky, arXiv 1404.5997), without local response
normalisation. Parameter names are those of PaddleClas, so that its weights load.
"""

from __future__ import annotations

import paddle
from paddle import ParamAttr, nn
from paddle.nn import functional as F

from .pooling import check_map

_SIDES = (223, 254)  # pictures whose last map is 6x6


class AlexNet(nn.Layer):
    """AlexNet up to a vector.

    Args:
        class_num: length of the output (the bits of a binary feature model).

    Shape:
        input float32 (B, 3, 224, 224), RGB with ImageNet mean and deviation (any sides from 223 to 254 work);
        output float32 (B, class_num).

    Attributes:
        output_layers: names of the layers that ``class_num`` shapes; weights for another number leave them random.
        fixed_input_size: (height, width) that it is exported for.
    """

    output_layers = ("_fc8",)
    fixed_input_size: tuple[int, int] | None = (224, 224)

    def __init__(self, class_num: int = 1000) -> None:
        super().__init__()
        self._conv1 = _ConvPool(3, 64, 11, stride=4, padding=2, spread=_spread(3 * 11 * 11))
        self._conv2 = _ConvPool(64, 192, 5, stride=1, padding=2, spread=_spread(64 * 5 * 5))
        self._conv3 = nn.Conv2D(192, 384, 3, padding=1, **_uniform(_spread(192 * 3 * 3)))
        self._conv4 = nn.Conv2D(384, 256, 3, padding=1, **_uniform(_spread(384 * 3 * 3)))
        self._conv5 = _ConvPool(256, 256, 3, stride=1, padding=1, spread=_spread(256 * 3 * 3))
        # As in the reference, dropped inputs are not made up for in training; evaluation halves them all instead.
        self._drop = nn.Dropout(0.5, mode="downscale_in_infer")
        linear = _spread(256 * 6 * 6)
        self._fc6 = nn.Linear(256 * 6 * 6, 4096, **_uniform(linear))
        self._fc7 = nn.Linear(4096, 4096, **_uniform(linear))
        self._fc8 = nn.Linear(4096, class_num, **_uniform(linear))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the five convolutions and three linear layers.

        Raises:
            ValueError: pictures of a size that the linear layers do not fit.
        """
        check_map(self, x, _SIDES)
        x = self._conv2(self._conv1(x))
        x = F.relu(self._conv4(F.relu(self._conv3(x))))
        x = self._conv5(x).flatten(1)
        x = F.relu(self._fc6(self._drop(x)))
        x = F.relu(self._fc7(self._drop(x)))
        return self._fc8(x)


class _ConvPool(nn.Layer):
    """Convolution, ReLU, and overlapping maximum pooling (Section 3.4)."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, padding: int, spread: float) -> None:
        super().__init__()
        self._conv = nn.Conv2D(before, width, kernel, stride=stride, padding=padding, **_uniform(spread))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.max_pool2d(F.relu(self._conv(x)), 3, stride=2)


def _spread(inputs: int) -> float:
    """Half the width of the initial distribution of a layer with so many inputs."""
    return inputs**-0.5


def _uniform(spread: float) -> dict[str, ParamAttr]:
    initializer = nn.initializer.Uniform(-spread, spread)
    return {"weight_attr": ParamAttr(initializer=initializer), "bias_attr": ParamAttr(initializer=initializer)}
