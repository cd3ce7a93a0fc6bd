"""Pairs in memory, and the exact search among them by Faiss's kernels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes
from index_store.hamming.base import BLOCK, SPARE, Distances, Hits, Rows, cut, no_hits

SEGMENT_BYTES = 64 << 20
_THREAD_BYTES = 16 << 20  # a thread that reads less than this costs more to wait for than it saves
_EXACT_TOP_K = 0
_kernels: Any = faiss  # its type stubs do not know the binary kernels


class Segments:
    """Pairs by position, in segments of a fixed size that are searched one after another.

    Growing never copies them, and memory of a segment that was not written yet is not resident. They are ours
    rather than an IndexBinaryFlat's because its vector doubles when it grows, and because removal there
    shifts all that follow. The kernels are those that IndexBinaryFlat calls.
    """

    def __init__(self, bits: int, threads: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Hold nothing yet."""
        self.bits = bits
        self.code_size = bits // 8
        self.capacity = max(1, segment_bytes // self.code_size)
        self._threads = threads
        self._segments: list[_Segment] = []
        self._count = 0

    @classmethod
    def of(cls, rows: Rows, codes: Codes, threads: int) -> Segments:
        """Hold these pairs, int64 (n,) and uint8 (n, bits / 8), without copying them."""
        pairs = cls(codes.shape[1] * 8, threads)
        pairs.capacity = max(1, len(rows))
        if len(rows):
            pairs._segments.append(_Segment(rows, codes))
        pairs._count = len(rows)
        return pairs

    def __len__(self) -> int:
        """How many pairs there are."""
        return self._count

    def append(self, rows: Rows, codes: Codes) -> Rows:
        """Add pairs at the end; return their positions."""
        start, total = self._count, self._count + len(rows)
        while len(self._segments) * self.capacity < total:
            self._segments.append(_Segment.empty(self.capacity, self.code_size))
        positions = np.arange(start, total, dtype=np.int64)
        self.write(positions, rows, codes)
        self._count = total
        return positions

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` pairs."""
        self._count = count
        del self._segments[-(-count // self.capacity) :]

    def read(self, positions: Rows, with_codes: bool = True) -> tuple[Rows, Codes]:
        """Return copies of the pairs at these positions, ascending."""
        rows = np.empty(len(positions), dtype=np.int64)
        codes = np.empty((len(positions) if with_codes else 0, self.code_size), dtype=np.uint8)
        for segment, part, places in self._parts(positions):
            rows[part] = segment.rows[places]
            if with_codes:
                codes[part] = segment.codes[places]
        return rows, codes

    def write(self, positions: Rows, rows: Rows, codes: Codes) -> None:
        """Put pairs at these positions, ascending."""
        for segment, part, places in self._parts(positions):
            segment.rows[places] = rows[part]
            segment.codes[places] = codes[part]

    def blocks(self) -> Iterator[tuple[Rows, Codes]]:
        """Yield views of all pairs in the order of their positions."""
        for segment, count in self._filled():
            for start in range(0, count, BLOCK):
                end = min(start + BLOCK, count)
                yield segment.rows[start:end], segment.codes[start:end]

    def search(self, codes: Codes, radius: int, top_k: int, among: Mask | None = None) -> list[Hits]:
        """Find the nearest within ``radius``; see HammingIndex."""
        available = self._count if among is None else among.count
        k = min(top_k + SPARE, available)
        if not k or not len(codes):
            return [no_hits() for _ in range(len(codes))]
        # Faiss splits by queries. The setting is the calling thread's own, so it is made at each call.
        helpful = len(codes) * available * self.code_size // _THREAD_BYTES
        _kernels.omp_set_num_threads(max(1, min(self._threads, len(codes), helpful)))
        all_distances, all_rows = self._nearest(codes, k, among)
        return [
            cut(distances, rows, radius, top_k, k == available, partial(self._within, query[None], among=among))
            for query, distances, rows in zip(codes, all_distances, all_rows, strict=True)
        ]

    def nearest_outside(self, codes: Codes, radius: int, among: Mask | None = None) -> list[Hits]:
        """Find the nearest beyond ``radius`` by one plain pass over all distances; see HammingIndex."""
        _kernels.omp_set_num_threads(1)
        return [self._nearest_outside(query[None], radius, among) for query in codes]

    def _nearest(self, codes: Codes, k: int, among: Mask | None) -> tuple[Distances, Rows]:
        """Return distances and rows (n, k) of the k nearest, by distance."""
        parts_d, parts_r = [], []
        for number, (segment, count) in enumerate(self._filled()):
            distances = np.empty((len(codes), min(k, count)), dtype=np.int32)
            places = np.empty(distances.shape, dtype=np.int64)
            heap = _kernels.int_maxheap_array_t()
            heap.nh, heap.k = distances.shape
            heap.val, heap.ids = _kernels.swig_ptr(distances), _kernels.swig_ptr(places)
            _kernels.hammings_knn_hc(
                heap,
                _kernels.swig_ptr(codes),
                _kernels.swig_ptr(segment.codes),
                count,
                self.code_size,
                1,
                _EXACT_TOP_K,
                None if among is None else among.selectors[number],
            )
            # Where a selector lets fewer than k pass, the place is -1 and the distance the largest int32.
            parts_r.append(segment.rows[places])
            parts_d.append(distances)
        if len(parts_d) == 1:
            return parts_d[0], parts_r[0]
        all_distances, all_rows = np.concatenate(parts_d, axis=1), np.concatenate(parts_r, axis=1)
        order = np.argsort(all_distances, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(all_distances, order, axis=1), np.take_along_axis(all_rows, order, axis=1)

    def _within(self, query: Codes, radius: int, *, among: Mask | None) -> tuple[Rows, Distances]:
        """Return everything within ``radius`` (inclusive) of one query, by distance."""
        parts_d, parts_r = [], []
        for number, (segment, count) in enumerate(self._filled()):
            found = _kernels.RangeSearchResult(1)
            _kernels.hamming_range_search(
                _kernels.swig_ptr(query),
                _kernels.swig_ptr(segment.codes),
                1,
                count,
                radius + 1,  # Faiss keeps what is strictly nearer
                self.code_size,
                found,
                None if among is None else among.selectors[number],
            )
            size = int(_kernels.rev_swig_ptr(found.lims, 2)[1])
            places = _kernels.rev_swig_ptr(found.labels, size)
            parts_r.append(segment.rows[places])
            parts_d.append(_kernels.rev_swig_ptr(found.distances, size).astype(np.int32))
        rows, distances = np.concatenate(parts_r), np.concatenate(parts_d)
        order = np.argsort(distances, kind="stable")
        return rows[order], distances[order]

    def _nearest_outside(self, query: Codes, radius: int, among: Mask | None) -> Hits:
        best, rows = self.bits + 1, [np.empty(0, dtype=np.int64)]
        distances = np.empty((1, BLOCK), dtype=np.int32)
        position = 0
        for some_rows, block in self.blocks():
            size = len(block)
            _kernels.hammings(
                _kernels.swig_ptr(query),
                _kernels.swig_ptr(block),
                1,
                size,
                self.code_size,
                _kernels.swig_ptr(distances),
            )
            outside = distances[0, :size] > radius
            if among is not None:
                outside &= among.mask[position : position + size]
            nearest = int(distances[0, :size].min(initial=self.bits + 1, where=outside))
            if nearest < best:
                best, rows = nearest, []
            if nearest == best <= self.bits:
                rows.append(some_rows[outside & (distances[0, :size] == best)])
            position += size
        found = np.concatenate(rows)
        return Hits(found, np.full(len(found), best, dtype=np.int32), truncated=False)

    def _filled(self) -> list[tuple[_Segment, int]]:
        full = [(segment, self.capacity) for segment in self._segments]
        if full:
            last = full[-1][0]
            full[-1] = (last, self._count - self.capacity * (len(full) - 1))
        return full

    def _parts(self, positions: Rows) -> list[tuple[_Segment, slice, Rows]]:
        """Split ascending positions by segment: the segment, where in ``positions``, places within it."""
        if not positions.size:
            return []
        first, last = int(positions[0]) // self.capacity, int(positions[-1]) // self.capacity
        bounds = np.searchsorted(positions, np.arange(first, last + 2) * self.capacity).tolist()
        return [
            (
                self._segments[number],
                slice(start, end),
                positions[start:end] - number * self.capacity,
            )
            for number, start, end in zip(range(first, last + 1), bounds[:-1], bounds[1:], strict=True)
        ]


class Mask:
    """Some positions of Segments, as a mask and as Faiss bitmaps, one a segment."""

    def __init__(self, mask: NDArray[np.bool_], capacity: int) -> None:
        """Take a mask (n,) over all positions of segments of this capacity."""
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self.selectors = [
            _kernels.IDSelectorBitmap(np.packbits(mask[start : start + capacity], bitorder="little"))
            for start in range(0, len(mask), capacity)
        ]


class _Segment:
    """Room for a fixed number of pairs."""

    __slots__ = ("codes", "rows")

    def __init__(self, rows: Rows, codes: Codes) -> None:
        self.rows = rows
        self.codes = codes

    @classmethod
    def empty(cls, capacity: int, code_size: int) -> _Segment:
        return cls(np.empty(capacity, dtype=np.int64), np.empty((capacity, code_size), dtype=np.uint8))
