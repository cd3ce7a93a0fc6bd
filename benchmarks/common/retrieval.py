"""How well a ranking finds pictures of the same class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Quality:
    """``top1``: share of queries whose best match has their class; ``mean_ap``: mean average precision."""

    top1: float
    mean_ap: float


def leave_one_out(similarity: Floats, labels: npt.NDArray[np.str_]) -> Quality:
    """Search every item among all others. ``similarity`` is (n, n); equal ones rank by position."""
    ranked = []
    for query in range(len(labels)):
        order = np.argsort(-similarity[query], kind="stable")
        ranked.append(labels[order[order != query]] == labels[query])
    return quality(ranked)


def queries_in_gallery(
    similarity: Floats, query_labels: npt.NDArray[np.str_], gallery_labels: npt.NDArray[np.str_]
) -> Quality:
    """Search queries (n) in a gallery (m). ``similarity`` is (n, m); equal ones rank by position."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    return quality([gallery_labels[row] == label for row, label in zip(order, query_labels, strict=True)])


def quality(ranked: Sequence[npt.NDArray[np.bool_]]) -> Quality:
    """Top-1 and mean average precision of rankings, each a vector of whether the match is right, best first.

    Queries without any right match in the gallery count for top-1 and not for the mean average precision.
    """
    precisions = []
    for right in ranked:
        places = np.flatnonzero(right)
        if places.size:
            precisions.append(float(np.mean(np.arange(1, places.size + 1) / (places + 1))))
    top1 = float(np.mean([bool(right[0]) for right in ranked]))
    return Quality(top1, float(np.mean(precisions)))


def inner_product(queries: Floats, gallery: Floats) -> Floats:
    """Similarity of unit vectors, or of +-1 vectors (then bits less twice the Hamming distance)."""
    return np.asarray(queries @ gallery.T, dtype=np.float32)


def hamming_similarity(queries: npt.NDArray[np.uint8], gallery: npt.NDArray[np.uint8]) -> Floats:
    """Minus the Hamming distance of packed codes (n, bytes) and (m, bytes): float32 (n, m)."""
    a, b = (np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1 for codes in (queries, gallery))
    return np.asarray((a @ b.T - a.shape[1]) / 2, dtype=np.float32)
