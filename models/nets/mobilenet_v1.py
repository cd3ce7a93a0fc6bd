"""MobileNet v1 (Howard et al., arXiv 1704.04861, Table 1) with batch norm folded into the convolutions.

Folded, because the ImageNet weights this project may start from are: ``conv0``, then ``conv{i}_dw`` and
``conv{i}_pw`` for i = 1 to 13, each with a bias. Every convolution is followed by ReLU6; the 3x3 ones of
stride 2 pad 1 below and right only, as the TensorFlow release that the weights come from does.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F

from .pooling import mean_over_map

# (output channels, stride) of the thirteen depthwise separable blocks, Table 1
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
LAST_BLOCK = len(_BLOCKS)


class MobileNetV1(nn.Layer):
    """MobileNet v1 at width 1.0 up to a vector.

    Args:
        class_num: length of the output (the bits of a binary feature model), from a batch norm ``norm`` (the
            maps are never negative; centred, their projections split pictures evenly) and a linear layer ``fc``.
            0 leaves both out: the output is the pooled embedding of :attr:`embedding_size` numbers.
        pooled_blocks: the blocks whose maps are averaged and concatenated into the embedding. The paper
            pools the last one only; the shallower ones keep colour and texture, which tell products apart.
        first_block: the input is the output map of the block before it instead of a picture, to train the
            upper blocks on a frozen trunk's output. Parameters below it do not exist then.
        norm: False leaves the batch norm before ``fc`` out.
        fc_std: standard deviation of the normal distribution that the weights of ``fc`` start from; None for
            Paddle's default (Xavier). The pairwise losses need small features to begin with: LCDSH's inner
            products are otherwise in the flat part of its logistic function (the deep-hash papers take 0.01).

    Shape:
        input float32 (B, 3, H, W), RGB as (byte - 127.5) / 127.5; output float32 (B, class_num).

    Attributes:
        output_layers: names of the layers above the embedding; weights without them leave them random.
        fixed_input_size: None: takes, and is exported for, pictures of any size.
    """

    output_layers = ("norm", "fc")
    fixed_input_size: tuple[int, int] | None = None

    def __init__(
        self,
        class_num: int = 0,
        pooled_blocks: Sequence[int] = (LAST_BLOCK,),
        first_block: int = 0,
        norm: bool = True,
        fc_std: float | None = None,
    ) -> None:
        super().__init__()
        channels = [32, *(width for width, _ in _BLOCKS)]
        if not pooled_blocks or not all(0 <= block <= LAST_BLOCK for block in pooled_blocks):
            raise ValueError(f"pooled_blocks must name blocks from 0 to {LAST_BLOCK}, not {list(pooled_blocks)}")
        if not 0 <= first_block <= LAST_BLOCK:
            raise ValueError(f"first_block must lie from 0 to {LAST_BLOCK}, not {first_block}")
        self.pooled_blocks = tuple(pooled_blocks)
        self.first_block = first_block
        if first_block == 0:
            self.conv0 = _Conv(3, 32, 3, stride=2)
        for block in range(max(1, first_block), LAST_BLOCK + 1):
            width, stride = _BLOCKS[block - 1]
            before = channels[block - 1]
            self.add_sublayer(f"conv{block}_dw", _Conv(before, before, 3, stride=stride, groups=before))
            self.add_sublayer(f"conv{block}_pw", _Conv(before, width, 1))
        self.embedding_size = sum(channels[block] for block in self.pooled_blocks)
        self.norm = nn.BatchNorm1D(self.embedding_size) if class_num and norm else None
        initializer = None if fc_std is None else nn.initializer.Normal(std=fc_std)
        self.fc = nn.Linear(self.embedding_size, class_num, weight_attr=initializer) if class_num else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the blocks from ``first_block`` on, pool and project."""
        embedding = self.embed(x)
        if self.norm is not None:
            embedding = self.norm(embedding)
        return embedding if self.fc is None else self.fc(embedding)

    def embed(self, x: paddle.Tensor) -> paddle.Tensor:
        """Pooled maps before ``fc``: float32 (B, embedding_size)."""
        pooled = []
        # A pooled block below first_block cannot be seen; the one right below it is the input itself.
        if self.first_block > 1 and self.first_block - 1 in self.pooled_blocks:
            pooled.append(self._pool(x))
        for block in range(self.first_block, LAST_BLOCK + 1):
            x = self.conv0(x) if block == 0 else self._separable(block, x)
            if block in self.pooled_blocks:
                pooled.append(self._pool(x))
        return pooled[0] if len(pooled) == 1 else paddle.concat(pooled, axis=1)

    def _pool(self, x: paddle.Tensor) -> paddle.Tensor:
        """Mean over height and width: float32 (B, C, H, W) to (B, C)."""
        return mean_over_map(x, self.training).flatten(1)

    def trunk(self, x: paddle.Tensor, first_block: int) -> paddle.Tensor:
        """Run the blocks below ``first_block`` only: what a net built with it takes as input."""
        for block in range(first_block):
            x = self.conv0(x) if block == 0 else self._separable(block, x)
        return x

    def _separable(self, block: int, x: paddle.Tensor) -> paddle.Tensor:
        return getattr(self, f"conv{block}_pw")(getattr(self, f"conv{block}_dw")(x))


class _Conv(nn.Conv2D):
    """A convolution, its bias and ReLU6, with TensorFlow's SAME padding."""

    def __init__(self, before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else [0, 1, 0, 1]
        super().__init__(before, width, kernel, stride=stride, padding=padding, groups=groups)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.relu6(super().forward(x))
