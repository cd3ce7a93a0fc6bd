"""Losses. Each takes the network's outputs, the labels and a batch's targets, and returns a scalar."""

from .celoss import CELoss
from .similarity import SimilarityPreservingLoss

__all__ = ["CELoss", "SimilarityPreservingLoss"]
