"""Centroids for inverted lists: k-means among binary codes under the Hamming distance.

The mean of a cluster is the majority of each bit, which minimises the sum of Hamming distances (k-majority;
Grana et al., "A fast approach for integrating ORB descriptors in the bag of words model", 2013). Faiss trains
by k-means on floats of -1 and 1 and takes the signs at the end: the same idea, but assigning by float
products takes several times as long as comparing bits, and a search finds no more in its lists
(``benchmarks/index_methods.py`` runs both).
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from index_store.base import Codes
from index_store.hamming.base import BLOCK, Rows, Work

_ROUNDS = 10
_LEAST_GAIN = 0.002  # of the mean distance; below it another round moves next to nothing
_CLUSTERS_AT_ONCE = 256
_kernels: Any = faiss  # its type stubs do not know the binary kernels


def train(sample: Codes, nlist: int, work: Work) -> Codes:
    """Return ``nlist`` centroids, uint8 (nlist, bits / 8), of a sample (n, bits / 8), n not below ``nlist``.

    The same sample gives the same centroids.
    """
    rng = np.random.default_rng(nlist)
    centroids = sample[rng.choice(len(sample), nlist, replace=False)]
    before = np.inf
    for number in range(_ROUNDS):
        lists, distance = assign(sample, centroids, work)
        work.tell((number + 1) / _ROUNDS)
        centroids = _majorities(sample, lists, centroids, rng)
        if distance > before * (1 - _LEAST_GAIN):
            break
        before = distance
    return centroids


def assign(codes: Codes, centroids: Codes, work: Work) -> tuple[Rows, float]:
    """Return the nearest centroid of each code, int64 (n,), and the mean distance to it."""
    quantizer = faiss.IndexBinaryFlat(centroids.shape[1] * 8)
    quantizer.add(centroids)
    lists = np.empty(len(codes), dtype=np.int64)
    total = 0
    for start in range(0, len(codes), BLOCK):
        work.go_on()
        _kernels.omp_set_num_threads(work.threads)
        distances, nearest = quantizer.search(codes[start : start + BLOCK], 1)
        lists[start : start + BLOCK] = nearest[:, 0]
        total += int(distances.sum(dtype=np.int64))
    return lists, total / max(1, len(codes))


def _majorities(sample: Codes, lists: Rows, centroids: Codes, rng: np.random.Generator) -> Codes:
    """Return the majority code of each list; a tied bit stays, an empty list starts at a random code."""
    order = np.argsort(lists, kind="stable")
    counts = np.bincount(lists, minlength=len(centroids))
    ends = np.cumsum(counts)
    new = np.empty_like(centroids)
    for start in range(0, len(centroids), _CLUSTERS_AT_ONCE):
        part = slice(start, min(start + _CLUSTERS_AT_ONCE, len(centroids)))
        first = ends[part.start] - counts[part.start]
        bits = np.unpackbits(sample[order[first : ends[part.stop - 1]]], axis=1)
        filled = counts[part] > 0
        ones = np.zeros((len(filled), bits.shape[1]), dtype=np.int64)
        if filled.any():
            begins = (ends[part] - counts[part] - first)[filled]
            ones[filled] = np.add.reduceat(bits, begins, axis=0, dtype=np.int64)
        lead = 2 * ones - counts[part, None]
        majority = np.where(lead == 0, np.unpackbits(centroids[part], axis=1), lead > 0)
        new[part] = np.packbits(majority.astype(np.uint8), axis=1)
    empty = np.flatnonzero(counts == 0)
    new[empty] = sample[rng.choice(len(sample), len(empty))]
    return new
