"""Retrieval metrics of binary codes: what the reference computes by inner product, here by packed Hamming distance.

Definitions, with *relevant* for a gallery picture of the query's class:

- **Recall@k**: the share of queries with a relevant picture among their k nearest (the cumulative match
  characteristic of person re-identification, not the share of relevant pictures that were found).
- **Precision@k**: the share of relevant pictures among the k nearest, averaged over all queries. Ranks beyond the end
  of the gallery count as not relevant.
- **mAP**: the mean over queries of the average precision over the whole ranking, which is the mean of the precision at
  the rank of each relevant picture.
- Recall@k and mAP leave out queries without a relevant picture in the gallery; Precision@k does not. So does
  PaddleClas (``ppcls/metric/metrics.py``); it averages the means of blocks of 64 queries, though, which differs where
  queries are left out, and we do not.
- Equal distances rank by gallery position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference import pack_bits

from .hamming_ranking import Codes, Distances, check_codes, hamming_distances, rank_gallery

Labels = npt.NDArray[np.integer[Any]]
RADIUS = 2
"""The radius of a hash table lookup that probes its neighbouring buckets, at which papers compare codes."""

_STATISTICS_BLOCK = 8192  # codes unpacked at once; a multiple of 8


@dataclass(frozen=True)
class Evaluation:
    """How well codes retrieve, and how well they use their bits.

    Attributes:
        bits: length of the codes.
        queries, gallery: how many there are.
        answerable: queries with a relevant picture in the gallery.
        recall, precision: Recall@k and Precision@k by k; see the module.
        mean_average_precision: mAP over the whole ranking; NaN like recall where no query is answerable.
        map_radius2: MAP@H<=2 (Cao et al., *Deep Cauchy Hashing for Hamming Space Retrieval*, CVPR 2018, Sec. 4.1): the
            average precision of the ranking cut behind distance 2, its mean over the relevant pictures inside, averaged
            over all queries; without a relevant picture inside it is 0. The authors' code orders what is inside by
            the real-valued features; codes alone are ranked here, ties by gallery position.
        precision_radius2: share of relevant pictures among those within distance 2, averaged over all queries; with
            nothing inside it is 0 (ibid., P@H<=2).
        empty_radius2: share of queries with nothing within distance 2.
        curve_precision, curve_recall: precision-recall curve by radius, from 0 to bits, over all pairs of a query and a
            gallery picture: relevant pairs within the radius over all pairs within it (NaN where there are none), and
            over all relevant pairs (Weiss et al., *Spectral Hashing*, NIPS 2008). Pairs, not queries, weigh alike.
        bit_balance: mean of each bit over the gallery as -1 or 1; 0 is balanced.
        bit_correlation: mean of the absolute correlation of two different bits over the gallery, of those bits that
            are not constant; 0 with fewer than two.
        constant_bits: bits that are the same in all of the gallery.
        distinct_codes: different codes in the gallery.
    """

    bits: int
    queries: int
    gallery: int
    answerable: int
    recall: dict[int, float]
    precision: dict[int, float]
    mean_average_precision: float
    map_radius2: float
    precision_radius2: float
    empty_radius2: float
    curve_precision: tuple[float, ...]
    curve_recall: tuple[float, ...]
    bit_balance: tuple[float, ...]
    bit_correlation: float
    constant_bits: int
    distinct_codes: int

    def figures(self) -> dict[str, float]:
        """Give the figures that a log line holds, by the reference's names where it has them."""
        return {
            **{f"recall{k}": value for k, value in self.recall.items()},
            "mAP": self.mean_average_precision,
            **{f"precision@{k}": value for k, value in self.precision.items()},
            "mAP@radius2": self.map_radius2,
            "precision@radius2": self.precision_radius2,
        }

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON's types, the figures by their names in :meth:`figures`, null for what is undefined."""
        curve = enumerate(zip(self.curve_precision, self.curve_recall, strict=True))
        content = {
            "bits": self.bits,
            "queries": self.queries,
            "gallery": self.gallery,
            "answerable": self.answerable,
            **self.figures(),
            "empty@radius2": self.empty_radius2,
            "distinct_codes": self.distinct_codes,
            "constant_bits": self.constant_bits,
            "bit_correlation": self.bit_correlation,
            "bit_balance": list(self.bit_balance),
            "precision_recall": [
                {"radius": r, "precision": precision, "recall": recall} for r, (precision, recall) in curve
            ],
        }
        return _without_nan(content)


def retrieval_metrics(
    query: npt.NDArray[np.floating],
    gallery: npt.NDArray[np.floating],
    query_label: Labels,
    gallery_label: Labels,
    topk: int | Sequence[int],
) -> dict[str, float]:
    """Compute the reference's metrics; the module says how each is defined.

    Args:
        query, gallery: float (n, bits) and (m, bits) of -1 and 1, bits a multiple of 8.
        query_label, gallery_label: integers (n, 1) or (n,) and (m, 1) or (m,).
        topk: the ranks of Recall@k and Precision@k.

    Returns:
        ``recall{k}`` and ``precision@{k}`` for each k, and ``mAP``; NaN where no query has its class in the gallery.

    Raises:
        ValueError: a shape, dtype or value is not as described.
    """
    for name, codes in (("query", query), ("gallery", gallery)):
        if not np.issubdtype(codes.dtype, np.floating) or not (np.abs(codes) == 1).all():
            raise ValueError(f"{name} codes must be floats of -1 and 1; pack_bits(...) makes codes of features")
    ranks = (topk,) if isinstance(topk, int) else tuple(topk)
    packed = pack_bits(query), pack_bits(gallery)
    evaluation = evaluate_codes(*packed, query_label, gallery_label, recall_topk=ranks, precision_topk=ranks)
    return {name: value for name, value in evaluation.figures().items() if "radius" not in name}


def evaluate_codes(
    query: Codes,
    gallery: Codes,
    query_label: Labels,
    gallery_label: Labels,
    *,
    recall_topk: Iterable[int] = (1, 5),
    precision_topk: Iterable[int] = (),
    exclude_self: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Search every query in the gallery by Hamming distance and measure what is found.

    Args:
        query, gallery: uint8 (n, bits // 8) and (m, bits // 8).
        query_label, gallery_label: integers (n, 1) or (n,) and (m, 1) or (m,).
        recall_topk, precision_topk: the ranks of Recall@k and Precision@k.
        exclude_self: the two sets are the same pictures in the same order, and each is searched among the others.
        progress: called with the number of queries done, after each.

    Raises:
        ValueError: a shape or dtype is not as described.
    """
    bits = check_codes(query, gallery)
    wanted, labels = _flat(query_label, len(query), "query"), _flat(gallery_label, len(gallery), "gallery")
    ranks = _check_ranks(recall_topk), _check_ranks(precision_topk)
    if exclude_self and len(query) != len(gallery):
        raise ValueError(f"exclude_self needs the same pictures on both sides, not {len(query)} and {len(gallery)}")
    own = np.arange(len(query), dtype=np.int64) if exclude_self else None
    tally = _Tally(bits, *ranks)
    for number, (order, distances) in enumerate(rank_gallery(query, gallery, own)):
        tally.add(distances, labels[order] == wanted[number])
        if progress is not None:
            progress(number + 1)
    balance, correlation, constant = bit_statistics(gallery)
    return Evaluation(
        bits=bits,
        queries=len(query),
        gallery=len(gallery),
        **tally.result(),
        bit_balance=tuple(balance.tolist()),
        bit_correlation=correlation,
        constant_bits=constant,
        distinct_codes=len(np.unique(gallery, axis=0)),
    )


class _Tally:
    """Sums over queries of what :class:`Evaluation` shows as means."""

    def __init__(self, bits: int, recall_topk: tuple[int, ...], precision_topk: tuple[int, ...]) -> None:
        self._radii = np.arange(bits + 1)
        self._pairs, self._relevant_pairs = np.zeros((2, bits + 1), np.int64)
        self._hits = dict.fromkeys(recall_topk, 0)
        self._found = dict.fromkeys(precision_topk, 0)
        self._queries = self._answerable = self._empty = 0
        self._average_precision = self._average_precision_inside = self._precision_inside = 0.0

    def add(self, distances: Distances, relevant: npt.NDArray[np.bool_]) -> None:
        """Count one query: its ranking's distances (m,), ascending, and what of it has its class (m,)."""
        places = np.flatnonzero(relevant)
        precisions = np.arange(1, len(places) + 1) / (places + 1)
        self._queries += 1
        self._pairs += np.searchsorted(distances, self._radii, side="right")
        self._relevant_pairs += np.searchsorted(distances[places], self._radii, side="right")
        for k in self._found:
            self._found[k] += int(np.searchsorted(places, k))
        inside = int(np.searchsorted(distances, RADIUS, side="right"))
        relevant_inside = int(np.searchsorted(places, inside))
        self._empty += inside == 0
        if inside:
            self._precision_inside += relevant_inside / inside
        if relevant_inside:
            self._average_precision_inside += float(precisions[:relevant_inside].mean())
        if len(places):
            self._answerable += 1
            self._average_precision += float(precisions.mean())
            for k in self._hits:
                self._hits[k] += int(places[0]) < k

    def result(self) -> dict[str, Any]:
        """Give the means, as :class:`Evaluation` names them."""
        with np.errstate(invalid="ignore"):
            curve_precision = self._relevant_pairs / self._pairs
            curve_recall = self._relevant_pairs / self._relevant_pairs[-1]
        return {
            "answerable": self._answerable,
            "recall": {k: _ratio(hits, self._answerable) for k, hits in self._hits.items()},
            "precision": {k: found / (k * self._queries) for k, found in self._found.items()},
            "mean_average_precision": _ratio(self._average_precision, self._answerable),
            "map_radius2": self._average_precision_inside / self._queries,
            "precision_radius2": self._precision_inside / self._queries,
            "empty_radius2": self._empty / self._queries,
            "curve_precision": tuple(curve_precision.tolist()),
            "curve_recall": tuple(curve_recall.tolist()),
        }


def bit_statistics(codes: Codes) -> tuple[npt.NDArray[np.float64], float, int]:
    """Measure how codes use their bits, taken as -1 and 1.

    Args:
        codes: uint8 (n, bits // 8).

    Returns:
        The mean of each bit, float64 (bits,); the mean absolute correlation of two different bits, over those that are
        not constant (0 with fewer than two); the number of constant bits.
    """
    bits, count = codes.shape[1] * 8, len(codes)
    # One row a bit, eight codes a byte: where two rows differ, the bits do.
    blocks = (codes[start : start + _STATISTICS_BLOCK] for start in range(0, count, _STATISTICS_BLOCK))
    packed = np.concatenate([np.packbits(np.unpackbits(block, axis=1), axis=0) for block in blocks])
    rows = np.ascontiguousarray(packed.T)
    ones = np.bitwise_count(rows).sum(axis=1, dtype=np.int64)
    mean = 2 * ones / count - 1
    varying = (ones > 0) & (ones < count)
    kept = int(varying.sum())
    if kept < 2:
        return mean, 0.0, bits - kept
    rows, part = rows[varying], mean[varying]
    products = 1 - 2 * hamming_distances(rows, rows) / count
    deviation = np.sqrt(1 - part**2)
    correlation = np.abs((products - np.outer(part, part)) / np.outer(deviation, deviation))
    np.fill_diagonal(correlation, 0)
    return mean, float(correlation.sum() / (kept * (kept - 1))), bits - kept


def _flat(labels: Labels, count: int, name: str) -> Labels:
    if labels.shape not in ((count,), (count, 1)) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name} labels must be integers ({count},) or ({count}, 1), not {labels.dtype} {labels.shape}"
        )
    return labels.reshape(count)


def _check_ranks(topk: Iterable[int]) -> tuple[int, ...]:
    ranks = tuple(topk)
    if any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ranks):
        raise ValueError(f"ranks must be whole numbers from 1, not {list(ranks)}")
    return ranks


def _ratio(value: float, count: int) -> float:
    return value / count if count else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
