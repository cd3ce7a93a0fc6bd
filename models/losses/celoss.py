"""Softmax cross-entropy over the classes seen in training."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F


class CELoss(nn.Layer):
    """Cross-entropy of the logits, averaged over the labelled pictures of the batch.

    Args:
        epsilon: label smoothing (Szegedy et al., arXiv 1512.00567, Sec. 7); 0 for none.
    """

    def __init__(self, epsilon: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= epsilon < 1.0:
            raise ValueError(f"epsilon must lie in [0, 1), not {epsilon}")
        self.epsilon = epsilon

    def forward(self, output: dict[str, paddle.Tensor], label: paddle.Tensor) -> paddle.Tensor:
        """``logits`` float32 (B, C) and int64 (B,) or (B, 1) labels, -1 for unlabelled, to a scalar."""
        logits = output["logits"]
        label = label.reshape([-1])
        labelled = (label >= 0).astype("float32")
        target = F.one_hot(label.clip(min=0), logits.shape[1])
        if self.epsilon:
            target = target * (1.0 - self.epsilon) + self.epsilon / logits.shape[1]
        # Not F.log_softmax, which Paddle's CPU kernel cuts off at -64.
        losses = paddle.logsumexp(logits, axis=1) - (target * logits).sum(axis=1)
        return (losses * labelled).sum() / labelled.sum().clip(min=1.0)
