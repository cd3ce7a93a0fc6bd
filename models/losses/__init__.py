"""Losses: each takes the network's outputs and the labels of a batch, and returns a scalar.

All but :class:`SimilarityPreservingLoss`, which takes a teacher's features in place of labels, are called as
``loss({"features": (B, K), "logits": (B, C)}, label)`` with int64 labels (B,) or (B, 1), -1 for a picture without one.
"""

from paddle import nn

from .celoss import CELoss
from .dch import DCHLoss
from .dshsd import DSHSDLoss
from .lcdsh import LCDSHLoss
from .similarity import SimilarityPreservingLoss

LOSSES: dict[str, type[nn.Layer]] = {
    "CELoss": CELoss,
    "DCHLoss": DCHLoss,
    "DSHSDLoss": DSHSDLoss,
    "LCDSHLoss": LCDSHLoss,
    "SimilarityPreservingLoss": SimilarityPreservingLoss,
}
"""By their names in ``Loss.Train``."""
NEED_LOGITS = ("CELoss", "DSHSDLoss")
"""The names of those that take the outputs of a head."""

__all__ = ["LOSSES", "NEED_LOGITS", "CELoss", "DCHLoss", "DSHSDLoss", "LCDSHLoss", "SimilarityPreservingLoss"]
