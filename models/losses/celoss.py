"""Softmax cross-entropy over the classes seen in training."""

from __future__ import annotations

import paddle
from paddle import nn

from .labels import check_classes


class CELoss(nn.Layer):
    """Cross-entropy of the logits, averaged over the labelled pictures of the batch.

    Args:
        epsilon: label smoothing (Szegedy et al., arXiv 1512.00567, Sec. 7): this share of a picture's target is spread
            evenly over all classes, its own among them. In [0, 1); 0 for none, 0.1 is usual.

    Raises:
        ValueError: epsilon is no such share.
    """

    def __init__(self, epsilon: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= epsilon < 1.0:
            raise ValueError(f"epsilon must lie in [0, 1), not {epsilon}")
        self.epsilon = float(epsilon)

    def forward(self, output: dict[str, paddle.Tensor], label: paddle.Tensor) -> paddle.Tensor:
        """Compare the logits with the labels.

        Args:
            output: ``logits`` float (B, C).
            label: int64 (B,) or (B, 1); a picture with -1 does not count.

        Returns:
            A scalar: 0, with a gradient of 0, where no picture has a label.

        Raises:
            ValueError: shapes do not fit, or a label is no class.
        """
        logits = output["logits"]
        batch, classes = logits.shape
        return cross_entropy(logits, check_classes(label, batch, classes, "the number of logits"), self.epsilon)


def cross_entropy(logits: paddle.Tensor, label: paddle.Tensor, epsilon: float = 0.0) -> paddle.Tensor:
    """Mean over the labelled pictures.

    Args:
        logits: float (B, C).
        label: int64 (B,), below C; -1 for none.
        epsilon: see :class:`CELoss`.
    """
    labelled = (label >= 0).astype(logits.dtype)
    # Gathered, for a one-hot target of 185,341 classes is as large as the logits.
    target = paddle.take_along_axis(logits, label.clip(min=0).unsqueeze(1), axis=1).squeeze(1)
    if epsilon:
        target = (1.0 - epsilon) * target + epsilon * logits.mean(axis=1)
    # Not F.log_softmax, which Paddle's CPU kernel cuts off at -64.
    losses = paddle.logsumexp(logits, axis=1) - target
    return (losses * labelled).sum() / labelled.sum().clip(min=1.0)
