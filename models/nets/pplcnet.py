"""PP-LCNet (Cui et al., arXiv 2109.15099) at the widths its authors published, and PP-ShiTu's variants with tanh.

Parameter names are those of PaddleClas, so that its weights load.
"""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import ParamAttr, nn
from paddle.nn import functional as F

from .activated import Activated
from .pooling import mean_over_map

WIDTHS = {
    "PPLCNet_x0_25": 0.25,
    "PPLCNet_x0_35": 0.35,
    "PPLCNet_x0_5": 0.5,
    "PPLCNet_x0_75": 0.75,
    "PPLCNet_x1_0": 1.0,
    "PPLCNet_x1_5": 1.5,
    "PPLCNet_x2_0": 2.0,
    "PPLCNet_x2_5": 2.5,
}
"""The published multipliers of all channel counts, Table 3."""

# Table 1 at width 1: by stage, the depthwise separable blocks (kernel, output channels, stride, squeeze and excite).
_STEM = 16
_STAGES = {
    "blocks2": ((3, 32, 1, False),),
    "blocks3": ((3, 64, 2, False), (3, 64, 1, False)),
    "blocks4": ((3, 128, 2, False), (3, 128, 1, False)),
    "blocks5": ((3, 256, 2, False), *((5, 256, 1, False),) * 5),
    "blocks6": ((5, 512, 2, True), (5, 512, 1, True)),
}
_EXPANDED = 1280  # after the pooling, Section 3.4; the same at every width
_REDUCTION = 4


class PPLCNet(nn.Layer):
    """PP-LCNet up to a vector.

    Args:
        scale: width: multiplies the channels of every convolution but the last.
        class_num: length of the output (the bits of a binary feature model).
        dropout_prob: probability by which an input of the last layer is zero in training. As in the reference,
            what is kept is not enlarged then; evaluation multiplies all by 1 - dropout_prob instead.
        tanh: put a tanh on the output. The last layer is then called ``fc.origin_layer`` instead of ``fc``.

    Shape:
        input float32 (B, 3, H, W) of any size from 32 pixels, RGB with ImageNet mean and deviation;
        output float32 (B, class_num).

    Attributes:
        output_layers: names of the layers that ``class_num`` shapes; weights for another number leave them random.
        fixed_input_size: None: takes, and is exported for, pictures of any size.
    """

    output_layers = ("fc",)
    fixed_input_size: tuple[int, int] | None = None

    def __init__(self, scale: float, class_num: int = 1000, dropout_prob: float = 0.2, tanh: bool = False) -> None:
        super().__init__()
        channels = _scaled(_STEM, scale)
        self.conv1 = _ConvNorm(3, channels, 3, stride=2)
        for name, blocks in _STAGES.items():
            stage = nn.Sequential()
            for number, (kernel, width, stride, squeeze) in enumerate(blocks):
                before, channels = channels, _scaled(width, scale)
                stage.add_sublayer(str(number), _Separable(before, channels, kernel, stride, squeeze))
            self.add_sublayer(name, stage)
        self.last_conv = nn.Conv2D(channels, _EXPANDED, 1, bias_attr=False)
        self.dropout = nn.Dropout(dropout_prob, mode="downscale_in_infer")
        fc = nn.Linear(_EXPANDED, class_num)
        self.fc = Activated(fc, F.tanh) if tanh else fc

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run all stages, pool, expand and project."""
        x = self.conv1(x)
        for name in _STAGES:
            x = getattr(self, name)(x)
        x = mean_over_map(x, self.training)
        x = self.dropout(F.hardswish(self.last_conv(x)))
        return self.fc(x.flatten(1))


def pplcnet_of_width(scale: float, tanh: bool = False) -> Callable[..., PPLCNet]:
    """Make the constructor of one width, as the registry of architectures holds it."""

    def build(class_num: int = 1000, dropout_prob: float = 0.2) -> PPLCNet:
        return PPLCNet(scale, class_num, dropout_prob, tanh)

    return build


def _scaled(channels: int, scale: float) -> int:
    """Multiply by the width and round to a multiple of 8, half upwards, at least 8 and 0.9 of the product."""
    wanted = channels * scale
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class _ConvNorm(nn.Layer):
    """Convolution, batch norm (which weight decay leaves alone) and hard swish, Section 3.1."""

    def __init__(self, before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            before,
            width,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            weight_attr=ParamAttr(initializer=nn.initializer.KaimingNormal()),
            bias_attr=False,
        )
        undecayed = [ParamAttr(regularizer=paddle.regularizer.L2Decay(0.0)) for _ in range(2)]
        self.bn = nn.BatchNorm2D(width, weight_attr=undecayed[0], bias_attr=undecayed[1])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.hardswish(self.bn(self.conv(x)))


class _Separable(nn.Layer):
    """Depthwise convolution, in the last stage squeeze and excite, and pointwise convolution, Figure 2."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.dw_conv = _ConvNorm(before, before, kernel, stride, groups=before)
        self.se = _SqueezeExcite(before) if squeeze else None
        self.pw_conv = _ConvNorm(before, width, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


class _SqueezeExcite(nn.Layer):
    """Weigh the channels by what their means tell (Hu et al., arXiv 1709.01507), with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, channels // _REDUCTION, 1)
        self.conv2 = nn.Conv2D(channels // _REDUCTION, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        weights = F.relu(self.conv1(mean_over_map(x, self.training)))
        return x * F.hardsigmoid(self.conv2(weights))
