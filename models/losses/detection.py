"""Losses of a detector's cells: quality focal loss, distribution focal loss and generalised IoU."""

from __future__ import annotations

import paddle
from paddle.nn import functional as F


def quality_focal_loss(logits: paddle.Tensor, quality: paddle.Tensor, beta: float = 2.0) -> paddle.Tensor:
    """Cross-entropy against a quality from 0 to 1, weighted by how far off it is (Li et al., arXiv 2006.04388, eq. 2).

    Args:
        logits: float32, any shape.
        quality: float32 of the same shape: the overlap of a cell's box with its object, 0 where there is none.
        beta: power of the weight |quality - sigmoid(logits)|.

    Returns:
        float32 of the same shape.
    """
    # Not F.binary_cross_entropy_with_logits: its gradient is wrong at a logit of 0 (Paddle 3.2.2, CPU).
    entropy = F.softplus(logits) - logits * quality
    return (quality - F.sigmoid(logits)).abs() ** beta * entropy


def distribution_focal_loss(logits: paddle.Tensor, distances: paddle.Tensor) -> paddle.Tensor:
    """Cross-entropy against the two bins around a distance (Li et al., arXiv 2006.04388, eq. 6).

    Args:
        logits: float32 (n, bins).
        distances: float32 (n,), in bins; those outside of 0 to bins - 1 count as the nearest that is inside.

    Returns:
        float32 (n,).
    """
    bins = logits.shape[-1]
    # A little below the last bin, so that there is one above.
    distances = distances.clip(0.0, bins - 1 - 1e-3)
    below = distances.floor()
    above_share = distances - below
    below = below.astype("int64").unsqueeze(1)
    log_probability = F.log_softmax(logits, axis=-1)
    low = paddle.take_along_axis(log_probability, below, 1).squeeze(1)
    high = paddle.take_along_axis(log_probability, below + 1, 1).squeeze(1)
    return -(1 - above_share) * low - above_share * high


def giou_loss(boxes: paddle.Tensor, objects: paddle.Tensor) -> paddle.Tensor:
    """One minus the generalised intersection over union (Rezatofighi et al., arXiv 1902.09630, algorithm 1).

    Args:
        boxes, objects: float32 (n, 4), x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.

    Returns:
        float32 (n,), from 0 to 2.
    """
    shared = _area(paddle.maximum(boxes[:, :2], objects[:, :2]), paddle.minimum(boxes[:, 2:], objects[:, 2:]))
    union = _area(boxes[:, :2], boxes[:, 2:]) + _area(objects[:, :2], objects[:, 2:]) - shared
    hull = _area(paddle.minimum(boxes[:, :2], objects[:, :2]), paddle.maximum(boxes[:, 2:], objects[:, 2:]))
    return 1 - shared / union.clip(min=1e-9) + (hull - union) / hull.clip(min=1e-9)


def _area(low: paddle.Tensor, high: paddle.Tensor) -> paddle.Tensor:
    sides = F.relu(high - low)
    return sides[:, 0] * sides[:, 1]
