"""VGG19 (Simonyan and Zisserman, arXiv 1409.1556, Table 1, configuration E), and with a sigmoid for hashing.

Parameter names are those of PaddleClas, so that its weights load; its convolutions have no biases.
"""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F

from .activated import Activated
from .pooling import check_map

_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions and their channels
_SIDES = (224, 255)  # pictures whose last map is 7x7


class VGG19(nn.Layer):
    """VGG19 up to a vector: 140 million parameters.

    Args:
        class_num: length of the output (the bits of a binary feature model).

    Shape:
        input float32 (B, 3, 224, 224), RGB with ImageNet mean and deviation (any sides from 224 to 255 work);
        output float32 (B, class_num).

    Attributes:
        output_layers: names of the layers that ``class_num`` shapes; weights for another number leave them random.
        fixed_input_size: (height, width) that it is exported for.
    """

    output_layers = ("fc3",)
    fixed_input_size: tuple[int, int] | None = (224, 224)

    def __init__(self, class_num: int = 1000) -> None:
        super().__init__()
        before = 3
        for number, (convolutions, width) in enumerate(_BLOCKS, start=1):
            self.add_sublayer(f"conv_block_{number}", _Block(before, width, convolutions))
            before = width
        # As in the reference, dropped inputs are not made up for in training; evaluation halves them all instead.
        self.drop = nn.Dropout(0.5, mode="downscale_in_infer")
        self.fc1 = nn.Linear(7 * 7 * 512, 4096)
        self.fc2 = nn.Linear(4096, 4096)
        self.fc3 = nn.Linear(4096, class_num)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the five blocks and three linear layers.

        Raises:
            ValueError: pictures of a size that the linear layers do not fit.
        """
        check_map(self, x, _SIDES)
        for number in range(1, len(_BLOCKS) + 1):
            x = getattr(self, f"conv_block_{number}")(x)
        x = self.drop(F.relu(self.fc1(x.flatten(1))))
        x = self.drop(F.relu(self.fc2(x)))
        return self.fc3(x)


class VGG19Sigmoid(VGG19):
    """VGG19 whose output lies in (0, 1), so that ``round`` makes it a code: the last layer is ``fc3.origin_layer``.

    PaddleClas's later releases put the sigmoid after ``fc2`` instead, and leave the output unbounded, which
    ``round`` was not made for. Here it is where its first release had it.
    """

    def __init__(self, class_num: int = 1000) -> None:
        super().__init__(class_num)
        self.fc3 = Activated(self.fc3, F.sigmoid)


class _Block(nn.Layer):
    """Convolutions with ReLU, then the maximum of every 2x2 pixels."""

    def __init__(self, before: int, width: int, convolutions: int) -> None:
        super().__init__()
        for number in range(1, convolutions + 1):
            conv = nn.Conv2D(before if number == 1 else width, width, 3, padding=1, bias_attr=False)
            self.add_sublayer(f"conv{number}", conv)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        for conv in self.children():
            x = F.relu(conv(x))
        return F.max_pool2d(x, 2)
