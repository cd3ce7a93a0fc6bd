"""Locality-constrained deep supervised hashing: inner products as the logits of being similar."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F

from .labels import check_classes, check_features, class_pairs
from .settings import count, not_negative

_LARGEST_LOGIT = 50.0


class LCDSHLoss(nn.Layer):
    """Logistic loss of the pairs of a batch, and what their similarities lose when features become codes.

    After Zhu and Gao, *Locality-Constrained Deep Supervised Hashing for Image Retrieval*, IJCAI 2017. Two
    pictures are similar with the probability sigma(t), where t = x.y / 2 is half the inner product of their features
    and sigma the logistic function. With b = sgn(x).sgn(y) / 2, the same for their codes, ::

        loss = mean over pairs of log(1 + exp(-t))                for pairs of one class
                                  log(1 + exp(t))                 for pairs of two classes
             + _lambda * mean over pairs of (sigma(t) - sigma(b))^2

    The first term is the negative log-likelihood of the pairs' labels; the second, in place of a quantisation loss
    of each feature, keeps a pair's similarity (its locality) when both are binarised. The means go over all B x B
    pairs, each picture with itself among them. As in PP-ShiTu t is clipped to -50..50 in both terms: beyond, a pair
    has no gradient, even where it is wrong. Signs have no gradient.

    Inner products grow with the square of the features: with 48 bits, independent features of deviation 0.3, 1 and
    3 give t a deviation of 0.3, 3.5 and 31, and in the last case five pairs of six have no gradient to speak of. A
    mean that all pictures share makes all of them similar. So start with small, centred features, of about 0.1 to
    0.3 (see ``fc_std`` of the networks); features of exactly 0 have no gradient.

    Pairs are made within one device's batch. Batches of one picture or one class, and features up to 1e17 in size,
    give finite values and gradients.

    Args:
        n_class: how many classes there are; a greater label is refused.
        _lambda: weight of the second term, 0 to 10; 3 is usual.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, n_class: int, _lambda: float) -> None:
        super().__init__()
        self.n_class = count("n_class", n_class)
        self._lambda = not_negative("_lambda", _lambda)

    def forward(self, output: dict[str, paddle.Tensor], label: paddle.Tensor) -> paddle.Tensor:
        """Compare all pairs of the batch.

        Args:
            output: ``features`` float (B, K), not squashed.
            label: int64 (B,) or (B, 1). A picture with -1 takes part in no pair, and so in neither term.

        Returns:
            A scalar.

        Raises:
            ValueError: shapes do not fit, or a label is no class.
        """
        features = output["features"]
        label = check_classes(label, check_features(features), self.n_class, "n_class")
        similar, different = class_pairs(label)
        logits = (features @ features.T / 2.0).clip(min=-_LARGEST_LOGIT, max=_LARGEST_LOGIT)
        signs = features.detach().sign()
        lost = (F.sigmoid(logits) - F.sigmoid(signs @ signs.T / 2.0)).square()
        likelihood = similar * F.softplus(-logits) + different * F.softplus(logits)
        paired = similar + different
        return (likelihood + self._lambda * paired * lost).sum() / paired.sum().clip(min=1.0)
