"""Deep supervised hashing with a margin in the space of codes and a classifier on them."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F

from .celoss import cross_entropy
from .labels import check_classes, check_features, check_multi_hot, class_pairs, shared_class_pairs
from .settings import not_negative


class DSHSDLoss(nn.Layer):
    """Cross-entropy of the logits, and contrastive loss of the pairs of a batch.

    After Wu et al., *Deep Supervised Hashing Based on Stable Distribution*, IEEE Access, 2019 (ieeexplore.ieee.org
    document 8648432), as PP-ShiTu trains it: a classification loss, and a loss that draws pictures of one class
    together and pushes others apart up to a margin of 2K. With D the squared Euclidean distance of two
    pictures' features, ::

        loss = classification + alpha * mean over pairs of D / 2                 for pairs of one class
                                                           max(0, 2K - D) / 2   for pairs of two classes

    The mean goes over all B x B pairs, each picture with itself among them. For codes of -1 and 1, D is four times
    the Hamming distance: different classes are pushed until half of the bits differ. Features should come from
    a tanh (``Arch.Neck: {name: Tanh}``): the loss has no other quantisation term.

    Pairs are made within one device's batch. Batches of one picture or one class, features up to 1e15 and logits
    up to 1e17 in size give finite values and gradients.

    Args:
        alpha: weight of the pairs. D grows with the bits, so 0.05 suits 48; 0.001 to 1.
        multi_label: a picture may show several classes. Two pictures are similar when they share one, and
            classification is binary cross-entropy of every logit, summed over the classes, averaged over the
            pictures. (PP-ShiTu has the same two terms, but one-hot encodes the labels first, so that it cannot
            take more than one class a picture; given one class a picture the values agree.)

    Raises:
        ValueError: alpha is negative.
    """

    def __init__(self, alpha: float, multi_label: bool = False) -> None:
        super().__init__()
        self.alpha = not_negative("alpha", alpha)
        self.multi_label = bool(multi_label)

    def forward(self, output: dict[str, paddle.Tensor], label: paddle.Tensor) -> paddle.Tensor:
        """Classify the pictures of the batch, and compare all their pairs.

        Args:
            output: ``features`` float (B, K) in (-1, 1), ``logits`` float (B, C).
            label: int64 (B,) or (B, 1): numbers of classes. A picture with -1 takes part in neither term. With
                ``multi_label`` also (B, C) of 0 and 1: a picture of no class is in no pair, but is classified; a
                row of -1 is in neither.

        Returns:
            A scalar.

        Raises:
            ValueError: shapes do not fit, or a label is no class.
        """
        features, logits = output["features"], output["logits"]
        batch, classes = check_features(features), logits.shape[1]
        if self.multi_label and tuple(label.shape) == (batch, classes):
            hot = check_multi_hot(label, batch, classes)
            pairs = shared_class_pairs(hot)
            classification = _binary_cross_entropy(logits, hot, (hot[:, 0] >= 0).astype(logits.dtype))
        else:
            label = check_classes(label, batch, classes, "the number of logits")
            pairs = class_pairs(label)
            classification = self._classification(logits, label)
        return classification + self.alpha * _contrast(features, *pairs)

    def _classification(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        if not self.multi_label:
            return cross_entropy(logits, label)
        hot = F.one_hot(label.clip(min=0), logits.shape[1])
        return _binary_cross_entropy(logits, hot, (label >= 0).astype(logits.dtype))


def _binary_cross_entropy(logits: paddle.Tensor, hot: paddle.Tensor, known: paddle.Tensor) -> paddle.Tensor:
    # Not F.binary_cross_entropy_with_logits, whose gradient at a logit of 0 is off by 1 in Paddle 3.2.
    losses = (F.softplus(logits) - hot * logits).sum(axis=1)
    return (known * losses).sum() / known.sum().clip(min=1.0)


def _contrast(features: paddle.Tensor, similar: paddle.Tensor, different: paddle.Tensor) -> paddle.Tensor:
    margin = 2.0 * features.shape[1]
    distances = _squared_distances(features)
    losses = similar * distances + different * (margin - distances).clip(min=0.0)
    return losses.sum() / (2.0 * (similar.sum() + different.sum()).clip(min=1.0))


def _squared_distances(features: paddle.Tensor) -> paddle.Tensor:
    """Squared Euclidean distances (B, B), without the B x B x K differences."""
    # Distances do not change when the origin moves; near the features' mean less is lost to cancellation.
    features = features - features.mean(axis=0, keepdim=True).detach()
    squares = features.square().sum(axis=1, keepdim=True)
    distances = (squares + squares.T - 2.0 * features @ features.T).clip(min=0.0)
    # To itself a picture has none, whatever is left over where sums and products are rounded in another order.
    return distances * (1.0 - paddle.eye(features.shape[0], dtype=features.dtype))
