"""PicoDet-S (Yu et al., arXiv 2111.00902): ESNet, CSP-PAN and a head of distributions, with batch norm folded in.

Folded, because the COCO weights that this project may start from are: every convolution has a bias. The layers are
made in the order in which the published graph computes them, so that its n-th convolution is the n-th here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from .pooling import mean_over_map

STRIDES = (8, 16, 32, 64)
"""Pixels of the picture between two cells of each of the head's maps."""

# ESNet at width 0.75: channels, blocks and the share of channels inside of each block (Table 1 of the paper; the
# shares are what its architecture search found for PicoDet-S).
_STEM_CHANNELS = 24
_STAGES = (
    (96, (0.875, 0.5, 0.5)),
    (192, (0.5, 0.625, 0.5, 0.625, 0.5, 0.5, 0.5)),
    (384, (0.5, 0.5, 0.5)),
)
_NECK_CHANNELS = 96
_KERNEL = 5  # of the neck's and the head's depthwise convolutions
_HEAD_BLOCKS = 2


class PicoDetS(nn.Layer):
    """PicoDet-S up to scores and distances.

    Args:
        class_num: kinds of objects; 1 for a main-body detector.
        bins: bins of the distribution of each side's distance (8: distances from 0 to 7 strides).
        score_bias: what the scores' logits start from; -4.6 is a probability of 0.01, as the focal losses want it.
        first_block: the input is what :meth:`trunk` gives for it instead of a picture, to train the upper parts on a
            frozen trunk's output: 1 leaves out the backbone; 2 also the neck's way down and the head's convolutions
            at stride 8, which take most of the time and matter to small objects only. Parameters of what is left out
            do not exist then.

    Shape:
        input float32 (B, 3, H, W), sides multiples of 64, RGB with ImageNet mean and deviation; output a pair of
        float32 (B, cells, class_num), logits of the scores, and float32 (B, cells, 4 * bins), logits of the
        distributions of left, top, right and bottom; cells by stride, then row by row. See :func:`cell_centres` and
        :func:`decode_boxes`.

    Raises:
        ValueError: a setting is out of its range.

    Attributes:
        output_layers: names of the layers that another number of classes shapes otherwise.
        fixed_input_size: None: takes pictures of any size.
    """

    output_layers = ("head",)
    fixed_input_size: tuple[int, int] | None = None

    def __init__(self, class_num: int = 1, bins: int = 8, score_bias: float = -4.6, first_block: int = 0) -> None:
        super().__init__()
        if class_num < 1 or bins < 2:
            raise ValueError(f"a detector needs a class and two bins at least, not {class_num} and {bins}")
        if not 0 <= first_block <= 2:
            raise ValueError(f"first_block must lie from 0 to 2, not {first_block}")
        self.class_num, self.bins, self.first_block = class_num, bins, first_block
        channels = [width for width, _ in _STAGES]
        if first_block < 1:
            self.esnet = _ESNet()
        if first_block < 2:
            self.way_down = _WayDown(channels)
        self.way_up = _WayUp(len(channels))
        self.head = _Head(class_num, bins, score_bias, has_finest_tower=first_block < 2)

    def forward(self, x: paddle.Tensor | Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Give the logits of scores and distances of every cell."""
        if self.first_block == 2:
            finest, *pyramid = x
            return self.head(self.way_up(pyramid), finest)
        return self.head(self.way_up(self.way_down(self.esnet(x) if self.first_block == 0 else x)))

    def trunk(self, picture: paddle.Tensor, first_block: int) -> list[paddle.Tensor]:
        """Run what a network of this ``first_block`` leaves out: maps of several sizes, float32 (B, C, h, w)."""
        maps = self.esnet(picture)
        if first_block == 1:
            return maps
        pyramid = self.way_down(maps)
        return [self.head.branches[0].tower(pyramid[0]), *pyramid]


def cell_centres(height: int, width: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Centres of the head's cells for pictures of height x width pixels.

    Returns:
        float32 (cells, 2), (x, y) in pixels; float32 (cells, 1), the stride of each.
    """
    centres, strides = [], []
    for stride in STRIDES:
        # Maps are padded: 416 / 64 cells are 7, as the strided convolutions give.
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = paddle.meshgrid(paddle.arange(rows, dtype="float32"), paddle.arange(columns, dtype="float32"))
        centres.append((paddle.stack([x.flatten(), y.flatten()], axis=1) + 0.5) * stride)
        strides.append(paddle.full([rows * columns, 1], stride, "float32"))
    return paddle.concat(centres), paddle.concat(strides)


def decode_boxes(distances: paddle.Tensor, centres: paddle.Tensor, strides: paddle.Tensor) -> paddle.Tensor:
    """Turn the logits of distributions into boxes: the expected distance of each side (arXiv 2006.04388, eq. 5).

    Args:
        distances: float32 (..., cells, 4 * bins), logits.
        centres, strides: as :func:`cell_centres` gives them.

    Returns:
        float32 (..., cells, 4), x1, y1, x2, y2 in pixels.
    """
    bins = distances.shape[-1] // 4
    probabilities = F.softmax(distances.reshape([*distances.shape[:-1], 4, bins]), axis=-1)
    expected = (probabilities * paddle.arange(bins, dtype="float32")).sum(axis=-1) * strides
    return paddle.concat([centres - expected[..., :2], centres + expected[..., 2:]], axis=-1)


class _Conv(nn.Conv2D):
    """A convolution that keeps the size (at stride 1), with its bias, and hard swish unless it is linear."""

    def __init__(
        self,
        before: int,
        width: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        groups = before if depthwise else 1
        super().__init__(before, width, kernel, stride=stride, padding=kernel // 2, groups=groups)
        self._linear = linear

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = super().forward(x)
        return x if self._linear else F.hardswish(x)


class _SqueezeExcite(nn.Layer):
    """Channel attention (arXiv 1709.01507) with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2D(channels, channels // 4, 1)
        self.excite = nn.Conv2D(channels // 4, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        pooled = mean_over_map(x, self.training)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(pooled))), slope=1 / 6, offset=0.5)


class _ESBlock(nn.Layer):
    """Enhanced shuffle block at stride 1: half the channels pass, the others go through a ghost-like pair."""

    def __init__(self, channels: int, share: float) -> None:
        super().__init__()
        self._half = channels // 2
        inner = _to_multiple_of_4(channels * share)
        self.narrow = _Conv(self._half, inner // 2)
        self.depthwise = _Conv(inner // 2, inner // 2, 3, depthwise=True, linear=True)
        self.attention = _SqueezeExcite(inner)
        self.widen = _Conv(inner, self._half)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        kept, changed = x[:, : self._half], x[:, self._half :]
        narrow = self.narrow(changed)
        both = paddle.concat([narrow, self.depthwise(narrow)], axis=1)
        return F.channel_shuffle(paddle.concat([kept, self.widen(self.attention(both))], axis=1), 2)


class _ESDownBlock(nn.Layer):
    """Enhanced shuffle block at stride 2: two strided branches, mixed by a depthwise separable convolution."""

    def __init__(self, before: int, channels: int, share: float) -> None:
        super().__init__()
        half = channels // 2
        inner = _to_multiple_of_4(half * share)
        self.left_depthwise = _Conv(before, before, 3, 2, depthwise=True, linear=True)
        self.left_widen = _Conv(before, half)
        self.right_narrow = _Conv(before, inner)
        self.right_depthwise = _Conv(inner, inner, 3, 2, depthwise=True, linear=True)
        self.attention = _SqueezeExcite(inner)
        self.right_widen = _Conv(inner, half)
        self.mix_depthwise = _Conv(channels, channels, 3, depthwise=True)
        self.mix = _Conv(channels, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        left = self.left_widen(self.left_depthwise(x))
        right = self.right_widen(self.attention(self.right_depthwise(self.right_narrow(x))))
        return self.mix(self.mix_depthwise(paddle.concat([left, right], axis=1)))


class _ESNet(nn.Layer):
    """The backbone (section 3.1 of the paper); gives the maps at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM_CHANNELS, 3, 2)
        before = _STEM_CHANNELS
        for number, (channels, (first, *others)) in enumerate(_STAGES, start=2):
            blocks = [_ESDownBlock(before, channels, first), *(_ESBlock(channels, share) for share in others)]
            self.add_sublayer(f"stage{number}", nn.Sequential(*blocks))
            before = channels

    def forward(self, picture: paddle.Tensor) -> list[paddle.Tensor]:
        x = F.max_pool2d(self.stem(picture), 3, 2, 1)
        maps = []
        for number in range(2, 2 + len(_STAGES)):
            x = getattr(self, f"stage{number}")(x)
            maps.append(x)
        return maps


class _CSP(nn.Layer):
    """Cross-stage partial block: a depthwise branch beside a plain one."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.plain = _Conv(before, half)
        self.deep = _Conv(before, half)
        self.narrow = _Conv(half, half)
        self.separable = _Separable(half)
        self.join = _Conv(channels, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        plain = self.plain(x)
        return self.join(paddle.concat([self.separable(self.narrow(self.deep(x))), plain], axis=1))


class _Separable(nn.Layer):
    """Depthwise 5x5, then pointwise, each with hard swish."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = _Conv(channels, channels, _KERNEL, stride, depthwise=True)
        self.pointwise = _Conv(channels, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.pointwise(self.depthwise(x))


class _Up(nn.Layer):
    """A step up the pyramid: the finer map at half its size, joined with the coarser one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strided = _Separable(channels, 2)
        self.join = _CSP(2 * channels, channels)

    def forward(self, finer: paddle.Tensor, coarser: paddle.Tensor) -> paddle.Tensor:
        return self.join(paddle.concat([self.strided(finer), coarser], axis=1))


class _WayDown(nn.Layer):
    """The first half of the neck, CSP-PAN (section 3.2): from the coarsest map to the finest."""

    def __init__(self, before: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.LayerList([_Conv(width, _NECK_CHANNELS) for width in before])
        self.down = nn.LayerList([_CSP(2 * _NECK_CHANNELS, _NECK_CHANNELS) for _ in before[1:]])

    def forward(self, maps: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        reduced = [self.reduce[number](maps[number]) for number in range(len(maps))]
        pyramid = [reduced[-1]]
        for number in range(len(self.down)):
            pyramid.insert(0, self.down[number](paddle.concat([_double(pyramid[0]), reduced[-2 - number]], axis=1)))
        return pyramid


class _WayUp(nn.Layer):
    """The second half of the neck: back to the coarsest map, and to one more at stride 64."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.up = nn.LayerList([_Up(_NECK_CHANNELS) for _ in range(maps - 1)])
        self.extra_from_input = _Separable(_NECK_CHANNELS, 2)
        self.extra_from_output = _Separable(_NECK_CHANNELS, 2)

    def forward(self, pyramid: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        outputs = [pyramid[0]]
        for number in range(len(self.up)):
            outputs.append(self.up[number](outputs[-1], pyramid[number + 1]))
        return [*outputs, self.extra_from_input(pyramid[-1]) + self.extra_from_output(outputs[-1])]


class _Branch(nn.Layer):
    """The head at one stride."""

    def __init__(self, outputs: int, has_tower: bool) -> None:
        super().__init__()
        if has_tower:
            self.tower = nn.Sequential(*(_Separable(_NECK_CHANNELS) for _ in range(_HEAD_BLOCKS)))
        self.output = nn.Conv2D(_NECK_CHANNELS, outputs, 1)


class _Head(nn.Layer):
    """Two depthwise separable convolutions a stride, then scores and distances by one convolution (section 3.2)."""

    def __init__(self, class_num: int, bins: int, score_bias: float, has_finest_tower: bool) -> None:
        super().__init__()
        self._class_num = class_num
        self.branches = nn.LayerList()
        for number in range(len(STRIDES)):
            branch = _Branch(class_num + 4 * bins, has_tower=has_finest_tower or number > 0)
            branch.output.bias.set_value(np.repeat(np.float32([score_bias, 0.0]), [class_num, 4 * bins]))
            self.branches.append(branch)

    def forward(
        self, maps: Sequence[paddle.Tensor], finest: paddle.Tensor | None = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        rows = []
        for number in range(len(STRIDES)):
            branch = self.branches[number]
            x = finest if number == 0 and finest is not None else branch.tower(maps[number])
            rows.append(branch.output(x).flatten(2).transpose([0, 2, 1]))
        cells = paddle.concat(rows, axis=1)
        return cells[..., : self._class_num], cells[..., self._class_num :]


def _double(x: paddle.Tensor) -> paddle.Tensor:
    """Repeat every pixel twice both ways.

    Not ``interpolate(scale_factor=2)``: some Paddle versions cannot run on oneDNN what it exports.
    """
    batch, channels, height, width = x.shape
    x = x.reshape([batch, channels, height, 1, width, 1]).expand([-1, -1, -1, 2, -1, 2])
    return x.reshape([batch, channels, 2 * height, 2 * width])


def _to_multiple_of_4(channels: float) -> int:
    """Round to a multiple of four, up where that would lose more than a tenth."""
    rounded = max(4, int(channels + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * channels else rounded
