"""Codes that lie in clusters, as those of pictures do, in any number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

_MEMBERS = 10
_FLIPPED = 0.08
_AT_ONCE = 100_000


def make(items: int, bits: int, queries: int) -> tuple[Codes, Codes]:
    """Return shuffled codes uint8 (items, bits / 8) and queries (queries, bits / 8), the same at each call.

    There is a random centre for each ten codes; each code and each query is a centre with 8 % of its bits flipped.
    """
    rng = np.random.default_rng(items)
    centres = rng.integers(0, 256, (max(1, items // _MEMBERS), bits // 8), dtype=np.uint8)
    codes = np.empty((items, bits // 8), dtype=np.uint8)
    order = rng.permutation(items) % len(centres)
    for start in range(0, items, _AT_ONCE):
        codes[start : start + _AT_ONCE] = _flipped(centres[order[start : start + _AT_ONCE]], rng)
    return codes, _flipped(centres[rng.integers(0, len(centres), queries)], rng)


def _flipped(codes: Codes, rng: np.random.Generator) -> Codes:
    chances = rng.random((len(codes), codes.shape[1] * 8), dtype=np.float32)
    return codes ^ np.packbits(chances < _FLIPPED, axis=1)
