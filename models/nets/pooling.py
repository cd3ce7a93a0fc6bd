"""The mean over a map, fast in training and quiet in an export."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F


def mean_over_map(x: paddle.Tensor, training: bool) -> paddle.Tensor:
    """Average height and width: float (B, C, H, W) to (B, C, 1, 1).

    Args:
        x: maps.
        training: compute it as a product, which is the same: the gradients of Paddle's own pooling and mean are ten
            times slower on a CPU. Exports use the pooling, which takes maps of any size.
    """
    if not training:
        return F.adaptive_avg_pool2d(x, 1)
    area = x.shape[2] * x.shape[3]
    return paddle.matmul(x.flatten(2), paddle.full([area, 1], 1.0 / area, x.dtype)).unsqueeze(3)


def check_map(net: nn.Layer, x: paddle.Tensor, sides: tuple[int, int]) -> None:
    """See that pictures have a size that a network with linear layers over its last map can take.

    Args:
        net: for the message; has ``fixed_input_size``.
        x: pictures (B, 3, H, W).
        sides: least and greatest height or width whose last map is as large as the linear layers expect.

    Raises:
        ValueError: another size, or one that is not known because an export leaves it open.
    """
    low, high = sides
    size = [side for side in x.shape[2:] if isinstance(side, int) and side >= 0]  # an export's open sides are tensors
    if len(size) == 2 and low <= min(size) and max(size) <= high:
        return
    shown = "x".join(map(str, size)) if len(size) == 2 else "any size"
    made_for = "x".join(map(str, net.fixed_input_size))
    raise ValueError(
        f"{type(net).__name__} takes pictures of {made_for} pixels (sides from {low} to {high} work), not of {shown}"
    )
