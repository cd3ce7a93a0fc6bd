"""Rankings of a gallery by Hamming distance, of packed codes and block by block, so that memory stays small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]
Distances = npt.NDArray[np.int32]

_BLOCK_DISTANCES = 4_000_000  # 16 MB of int32: large enough that a call costs nothing, small beside any gallery
_kernels: Any = faiss  # its type stubs do not know the binary kernels


def check_codes(query: Codes, gallery: Codes) -> int:
    """Check two sets of packed codes and return their bits.

    Raises:
        ValueError: not uint8 matrices of one width, or one of them is empty.
    """
    for name, codes in (("query", query), ("gallery", gallery)):
        if codes.ndim != 2 or codes.dtype != np.uint8 or 0 in codes.shape:
            raise ValueError(f"{name} codes must be uint8 (n, bits // 8), n and bits above 0, not {_describe(codes)}")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query codes have {query.shape[1] * 8} bits, gallery codes {gallery.shape[1] * 8}")
    return int(query.shape[1]) * 8


def hamming_distances(query: Codes, gallery: Codes) -> Distances:
    """Count the bits in which codes differ: uint8 (n, b) and (m, b), C-contiguous, to int32 (n, m)."""
    distances = np.empty((len(query), len(gallery)), np.int32)
    threads = _kernels.omp_get_max_threads()
    _kernels.omp_set_num_threads(
        1
    )  # counting is a hundredth of ranking; waking threads for it costs more than it saves
    try:
        _kernels.hammings(
            _kernels.swig_ptr(query),
            _kernels.swig_ptr(gallery),
            len(query),
            len(gallery),
            query.shape[1],
            _kernels.swig_ptr(distances),
        )
    finally:
        _kernels.omp_set_num_threads(threads)
    return distances


def rank_gallery(query: Codes, gallery: Codes, own: Positions | None = None) -> Iterator[tuple[Positions, Distances]]:
    """Rank the gallery for one query after another.

    Args:
        query: uint8 (n, bits // 8).
        gallery: uint8 (m, bits // 8).
        own: int64 (n,), the gallery position of each query's own picture, which is left out of its ranking; -1
            where it is not there. None when no query is in the gallery.

    Yields:
        For each query the gallery positions int64 (m,) by (distance, position) and their distances int32 (m,); one
        fewer where the query itself is left out.

    Raises:
        ValueError: see :func:`check_codes`, or ``own`` is not int64 (n,).
    """
    bits = check_codes(query, gallery)
    if own is not None and (own.shape != (len(query),) or own.dtype != np.int64):
        raise ValueError(f"own must be int64 ({len(query)},), not {_describe(own)}")
    query, gallery = np.ascontiguousarray(query), np.ascontiguousarray(gallery)
    # A stable sort of the narrowest integers is a radix sort, which is what makes whole rankings cheap.
    narrow = np.min_scalar_type(bits)
    step = max(1, _BLOCK_DISTANCES // len(gallery))
    for start in range(0, len(query), step):
        for number, distances in enumerate(hamming_distances(query[start : start + step], gallery), start):
            order = np.argsort(distances.astype(narrow), kind="stable")
            if own is not None and own[number] >= 0:
                order = order[order != own[number]]
            yield order, distances[order]


def _describe(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
