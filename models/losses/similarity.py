"""Distillation of a teacher's similarities into codes."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F


class SimilarityPreservingLoss(nn.Layer):
    """Mean squared difference between the students' and a teacher's cosine similarities within a batch.

    After Tung and Mori, *Similarity-Preserving Knowledge Distillation* (arXiv 1907.09682, Eq. 4), with cosines
    instead of row-normalised Gram matrices, since a cosine of tanh features is nearly a Hamming distance of their
    codes. It keeps apart what the classes in training do not name, and so protects unseen kinds of pictures.

    Args:
        low: teacher's cosine that maps to similarity 0 (for features after ReLU cosines start far above 0).
    """

    def __init__(self, low: float = 0.375) -> None:
        super().__init__()
        self.low = low

    def forward(self, output: dict[str, paddle.Tensor], teacher: paddle.Tensor, group: paddle.Tensor) -> paddle.Tensor:
        """Compare all pairs of pictures whose features come from one teacher.

        Args:
            output: ``features`` float32 (B, bits).
            teacher: float32 (B, d), unit length; zeros where a teacher has fewer dimensions.
            group: int64 (B,): which teacher a row comes from; -1 for none.
        """
        features = F.normalize(output["features"], axis=1)
        target = ((teacher @ teacher.T - self.low) / (1.0 - self.low)).clip(min=-0.2)
        group = group.reshape([-1, 1])
        paired = ((group == group.T) & (group >= 0)).astype("float32")
        return (paired * (features @ features.T - target) ** 2).sum() / paired.sum().clip(min=1.0)
