"""Deep Cauchy Hashing: similar pictures within a small Hamming ball."""

from __future__ import annotations

import math

import paddle
from paddle import nn

from .labels import check_classes, check_features, class_pairs
from .settings import count, not_negative, positive

_LARGEST_COSINE = 0.99
_LEAST_NORMS = 1e-4
# Keeps the square root off 0, where its slope is infinite; far below what _LEAST_NORMS lets through.
_LEAST_SQUARE = 1e-30


class DCHLoss(nn.Layer):
    """Cauchy cross-entropy of the pairs of a batch, and Cauchy quantisation loss of its pictures.

    After Cao, Long, Liu and Wang, *Deep Cauchy Hashing for Hamming Space Retrieval*, CVPR 2018, Sec. 3. The
    Hamming distance of two codes is relaxed to ``d(x, y) = K/2 (1 - cos(x, y))`` bits, and two pictures are similar
    with the probability ``gamma / (gamma + d)`` of a Cauchy distribution, which falls steeply near 0: so this
    loss pulls similar pictures within few bits where the logistic function of other methods no longer cares. Then ::

        loss = mean over pairs of one class  of log(1 + d(x, y) / gamma)
             + mean over pairs of two classes of log(1 + gamma / d(x, y))
             + _lambda * mean over pictures of log(1 + d(|x|, (1, ..., 1)) / gamma)

    which is the paper's weighted form: there every pair has the weight n / n_same or n / n_different, and the
    term ``s log(d / gamma) + log(1 + gamma / d)`` with s = 1 for pairs of one class, else 0.

    Where this follows PP-ShiTu's variant instead of the paper: a cosine counts as at most 0.99 (so a similar pair
    within 0.5 % of the bits has no gradient, and no logarithm of 0 arises), the product of two lengths as at
    least 1e-4, and each picture is also paired with itself. Batches of one picture or one class, and
    features from all 0 up to 1e17 in size, give finite values and gradients.

    Distances depend on the direction of the features only, not on their length: the gradient shrinks as the
    features grow, and features of exactly 0 have none. Pairs are made within one device's batch.

    Args:
        gamma: the distance in bits at which two pictures are as likely similar as not. The smaller, the tighter
            the classes, and the likelier that some of them fall into one ball. K/5 to K; 20 is usual for 48 bits.
        _lambda: weight of the quantisation loss, which draws every feature of a picture to the same size (it
            compares directions, so not to 1). 0 to 1; 0.1 is usual.
        n_class: how many classes there are; a greater label is refused.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, gamma: float, _lambda: float, n_class: int) -> None:
        super().__init__()
        self.gamma = positive("gamma", gamma)
        self._lambda = not_negative("_lambda", _lambda)
        self.n_class = count("n_class", n_class)

    def forward(self, output: dict[str, paddle.Tensor], label: paddle.Tensor) -> paddle.Tensor:
        """Compare all pairs of the batch.

        Args:
            output: ``features`` float (B, K), not squashed.
            label: int64 (B,) or (B, 1). A picture with -1 takes part in no pair, only in the quantisation loss.

        Returns:
            A scalar.

        Raises:
            ValueError: shapes do not fit, or a label is no class.
        """
        features = output["features"]
        label = check_classes(label, check_features(features), self.n_class, "n_class")
        similar, different = class_pairs(label)
        norms = _norms(features)
        far = self._relative(features @ features.T, norms @ norms.T, features.shape[1])
        pull = (similar * paddle.log1p(far)).sum() / similar.sum().clip(min=1.0)
        push = (different * paddle.log1p(1.0 / far)).sum() / different.sum().clip(min=1.0)
        return pull + push + self._lambda * self._quantisation(features, norms)

    def _quantisation(self, features: paddle.Tensor, norms: paddle.Tensor) -> paddle.Tensor:
        bits = features.shape[1]
        sizes = features.abs().sum(axis=1, keepdim=True)
        return paddle.log1p(self._relative(sizes, norms * math.sqrt(bits), bits)).mean()

    def _relative(self, products: paddle.Tensor, norms: paddle.Tensor, bits: int) -> paddle.Tensor:
        """Distances in units of gamma, from inner products and products of lengths."""
        cosines = products / norms.clip(min=_LEAST_NORMS)
        return (1.0 - cosines.clip(max=_LARGEST_COSINE)) * (bits / 2 / self.gamma)


def _norms(features: paddle.Tensor) -> paddle.Tensor:
    """Lengths (B, 1), with a gradient at 0."""
    return features.square().sum(axis=1, keepdim=True).clip(min=_LEAST_SQUARE).sqrt()
