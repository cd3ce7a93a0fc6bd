"""The recognition wrapper: backbone, perhaps a neck, perhaps a classification head."""

from __future__ import annotations

import paddle
from paddle import nn


class RecModel(nn.Layer):
    """``RecModel`` of PP-ShiTu: what is trained has a head, what is exported ends at the features.

    Args:
        backbone: pictures to (B, bits).
        neck: (B, bits) to (B, bits), or None.
        head: features and labels to logits, or None.
    """

    def __init__(self, backbone: nn.Layer, neck: nn.Layer | None = None, head: nn.Layer | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, x: paddle.Tensor, label: paddle.Tensor | None = None) -> paddle.Tensor | dict[str, paddle.Tensor]:
        """Without a head the features (B, bits); with one a map of ``features`` and ``logits`` (B, class_num)."""
        features = self.backbone(x)
        if self.neck is not None:
            features = self.neck(features)
        if self.head is None:
            return features
        return {"features": features, "logits": self.head(features, label)}
