"""Necks and classification heads over the features of a backbone."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F


class Tanh(nn.Layer):
    """Neck that squashes features into (-1, 1), so that their signs are a good code."""

    def __init__(self) -> None:  # a layer's own arguments are none of a configuration's
        super().__init__()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """float32 (B, bits) to the same shape."""
        return F.tanh(x)


class FullyConnected(nn.Layer):
    """Linear head: features (B, embedding_size) to logits (B, class_num), as ``FC`` in PP-ShiTu."""

    def __init__(self, embedding_size: int, class_num: int) -> None:
        super().__init__()
        self.fc = nn.Linear(embedding_size, class_num)

    def forward(self, features: paddle.Tensor, label: paddle.Tensor | None = None) -> paddle.Tensor:
        """Logits; the label is not used."""
        return self.fc(features)


class CosMargin(nn.Layer):
    """Large-margin cosine head (CosFace, Wang et al., arXiv 1801.09414, Eq. 4).

    Logits are ``scale * (cos(features, class) - margin * [class is the label])``. Because the features come
    from tanh, a cosine between them is nearly a Hamming distance between their signs (d = bits (1 - cos) / 2 for
    saturated features), so the margin is one in Hamming space: it is what makes codes separate unseen classes.

    Args:
        embedding_size: length of the features.
        class_num: number of classes.
        margin: cosine by which the own class must win.
        scale: inverse temperature of the softmax.
    """

    def __init__(self, embedding_size: int, class_num: int, margin: float = 0.2, scale: float = 20.0) -> None:
        super().__init__()
        self.margin = margin
        self.scale = scale
        self.weight = self.create_parameter(
            [embedding_size, class_num], default_initializer=nn.initializer.Normal(std=0.02)
        )

    def forward(self, features: paddle.Tensor, label: paddle.Tensor | None = None) -> paddle.Tensor:
        """float32 (B, embedding_size) and, in training, int64 (B,) labels (-1: none) to logits (B, class_num)."""
        cosine = F.normalize(features, axis=1) @ F.normalize(self.weight, axis=0)
        if label is not None:
            own = F.one_hot(label.clip(min=0), self.weight.shape[1]) * (label >= 0).astype("float32").unsqueeze(1)
            cosine = cosine - self.margin * own
        return self.scale * cosine
