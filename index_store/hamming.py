"""Binary indexes in memory, searched by Hamming distance with Faiss.

An index holds (row, code) pairs: rows are the catalog's row numbers, positive and never used twice. It is
safe for many readers *or* one writer at a time; whoever owns it sees to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes

Rows = NDArray[np.int64]
Distances = NDArray[np.int32]

SPARE = 64  # neighbours asked for beyond top_k, so that a tie at the k-th is nearly always seen whole
_SEGMENT_BYTES = 64 << 20
_BLOCK = 65_536  # codes handled at once where a whole pass would need memory for all of them
_THREAD_BYTES = 16 << 20  # a thread that reads less than this costs more to wait for than it saves
_EXACT_TOP_K = 0
_kernels: Any = faiss  # its type stubs do not know the binary kernels


@dataclass(frozen=True, slots=True)
class Hits:
    """What one query found: rows int64 (m,) and distances int32 (m,), nearest first, ties in any order."""

    rows: Rows
    distances: Distances
    truncated: bool


class Selection(Protocol):
    """Some of an index's rows, to search among. It holds while nothing is added or removed."""

    @property
    def missing(self) -> int:
        """How many of the rows asked for the index does not hold."""


class Export(Protocol):
    """A walk over all pairs of an index that may go on, block by block, while pairs come and go."""

    def next_block(self) -> tuple[Rows, Codes] | None:
        """Return copies of the next rows (n,) and codes (n, bits / 8); None at the end.

        Every row that is present from the start to the end of the walk comes at least once. The owner sees
        to it that nothing changes during this call.
        """

    def close(self) -> None:
        """End the walk early or late."""


class HammingIndex(Protocol):
    """An index of binary codes. Which kinds there are is for ``make_index`` to know."""

    @property
    def method(self) -> str:
        """The method's name in settings."""

    @property
    def bits(self) -> int:
        """The length of the codes."""

    @property
    def nbytes(self) -> int:
        """The memory that the present items take."""

    def __len__(self) -> int:
        """How many pairs there are."""

    def add(self, rows: Rows, codes: Codes) -> None:
        """Add pairs: int64 (n,) and uint8 (n, bits / 8). The rows must be new."""

    def remove(self, rows: Rows) -> int:
        """Remove the pairs with these rows; return how many there were."""

    def select(self, rows: Rows) -> Any:
        """Return these rows as a selection to search among."""

    def search(self, codes: Codes, radius: int, top_k: int, among: Any = None) -> list[Hits]:
        """Find, for each query, the nearest within ``radius`` (inclusive).

        The hits hold the ``top_k`` nearest *and* everything as near as the last of these, so that the caller
        can order ties by what the index does not know; and at least one hit more if ``truncated``.
        """

    def nearest_outside(self, codes: Codes, radius: int, among: Any = None) -> list[Hits]:
        """Find, for each query, everything at the smallest distance above ``radius``."""

    def export(self) -> Export:
        """Start a walk over all pairs."""


def make_index(method: str, bits: int, threads: int) -> HammingIndex:
    """Return an empty index; ``threads`` is the most that one search may use."""
    makers = {"Flat": FlatIndex}
    return makers[method](bits, threads)


class FlatIndex:
    """Exact search by comparing with every code.

    Takes bits / 8 + 12 bytes an item. The codes lie in segments that are searched one after another, so that
    growing never copies them; memory of a segment that was not written yet is not resident. They are ours
    rather than an IndexBinaryFlat's because its vector doubles when it grows, and because removal here moves
    the last pair into the hole instead of shifting all. The kernels are those that IndexBinaryFlat calls.
    """

    method = "Flat"

    def __init__(self, bits: int, threads: int, segment_bytes: int = _SEGMENT_BYTES) -> None:
        """Make an empty index."""
        self.bits = bits
        self._threads = threads
        self._code_size = bits // 8
        self._capacity = max(1, segment_bytes // self._code_size)
        self._segments: list[_Segment] = []
        self._count = 0
        self._positions = RowMap()
        self._exports: list[FlatExport] = []

    def __len__(self) -> int:
        """How many pairs there are."""
        return self._count

    @property
    def nbytes(self) -> int:
        """The memory that the present items take."""
        return self._count * (self._code_size + 8) + self._positions.nbytes

    def add(self, rows: Rows, codes: Codes) -> None:
        """Add pairs; see HammingIndex."""
        start, total = self._count, self._count + len(rows)
        while len(self._segments) * self._capacity < total:
            self._segments.append(_Segment(self._capacity, self._code_size))
        positions = np.arange(start, total, dtype=np.int64)
        self._positions.put(rows, positions)
        self._write(positions, rows, codes)
        self._count = total

    def remove(self, rows: Rows) -> int:
        """Remove pairs in time that depends on how many they are, not on how many there are."""
        found = self._positions.get(rows)
        gone = np.unique(found[found >= 0])
        if not gone.size:
            return 0
        total = self._count - gone.size
        holes = gone[gone < total]
        movers = np.setdiff1d(np.arange(total, self._count, dtype=np.int64), gone, assume_unique=True)
        gone_rows, _ = self._read(gone, with_codes=False)
        moved_rows, moved_codes = self._read(movers)
        for export in self._exports:
            export.note_move(holes, movers, moved_rows, moved_codes, total)
        self._write(holes, moved_rows, moved_codes)
        self._positions.put(moved_rows, holes)
        self._positions.discard(gone_rows)
        self._count = total
        del self._segments[-(-total // self._capacity) :]
        return int(gone.size)

    def select(self, rows: Rows) -> FlatSelection:
        """Return these rows as a selection to search among."""
        positions = self._positions.get(rows)
        missing = int(np.count_nonzero(positions < 0))
        mask = np.zeros(self._count, dtype=np.bool_)
        mask[positions[positions >= 0]] = True
        return FlatSelection(mask, self._capacity, missing)

    def search(self, codes: Codes, radius: int, top_k: int, among: FlatSelection | None = None) -> list[Hits]:
        """Find the nearest within ``radius``; see HammingIndex."""
        available = self._count if among is None else among.count
        k = min(top_k + SPARE, available)
        if not k or not len(codes):
            return [_no_hits() for _ in range(len(codes))]
        # Faiss splits by queries. The setting is the calling thread's own, so it is made at each call.
        helpful = len(codes) * available * self._code_size // _THREAD_BYTES
        _kernels.omp_set_num_threads(max(1, min(self._threads, len(codes), helpful)))
        all_distances, all_rows = self._nearest(codes, k, among)
        results = []
        for query, distances, rows in zip(codes, all_distances, all_rows, strict=True):
            within = int(np.searchsorted(distances, radius, side="right"))
            if within <= top_k:  # then either nothing is left or the next one lies outside
                results.append(Hits(rows[:within], distances[:within], truncated=False))
                continue
            last = distances[top_k - 1]
            tied = int(np.searchsorted(distances, last, side="right"))
            if tied == k < available:  # the tie goes on beyond what was asked for
                rows, distances = self._within(query[None], int(last), among)  # noqa: PLW2901
                tied = len(rows)
            keep = max(tied, top_k + 1)
            results.append(Hits(rows[:keep], distances[:keep], truncated=True))
        return results

    def nearest_outside(self, codes: Codes, radius: int, among: FlatSelection | None = None) -> list[Hits]:
        """Find the nearest beyond ``radius`` by one plain pass over all distances; see HammingIndex."""
        _kernels.omp_set_num_threads(1)
        return [self._nearest_outside(query[None], radius, among) for query in codes]

    def export(self) -> FlatExport:
        """Start a walk over all pairs."""
        export = FlatExport(self)
        self._exports.append(export)
        return export

    def _nearest(self, codes: Codes, k: int, among: FlatSelection | None) -> tuple[Distances, Rows]:
        """Return distances and rows (n, k) of the k nearest, by distance."""
        parts_d, parts_r = [], []
        for number, (segment, count) in enumerate(self._filled_segments()):
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
                self._code_size,
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

    def _within(self, query: Codes, radius: int, among: FlatSelection | None) -> tuple[Rows, Distances]:
        """Return everything within ``radius`` (inclusive) of one query, by distance."""
        parts_d, parts_r = [], []
        for number, (segment, count) in enumerate(self._filled_segments()):
            found = _kernels.RangeSearchResult(1)
            _kernels.hamming_range_search(
                _kernels.swig_ptr(query),
                _kernels.swig_ptr(segment.codes),
                1,
                count,
                radius + 1,  # Faiss keeps what is strictly nearer
                self._code_size,
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

    def _nearest_outside(self, query: Codes, radius: int, among: FlatSelection | None) -> Hits:
        best, rows = self.bits + 1, [np.empty(0, dtype=np.int64)]
        distances = np.empty((1, _BLOCK), dtype=np.int32)
        position = 0
        for segment, count in self._filled_segments():
            for start in range(0, count, _BLOCK):
                size = min(_BLOCK, count - start)
                block = segment.codes[start : start + size]
                _kernels.hammings(
                    _kernels.swig_ptr(query),
                    _kernels.swig_ptr(block),
                    1,
                    size,
                    self._code_size,
                    _kernels.swig_ptr(distances),
                )
                outside = distances[0, :size] > radius
                if among is not None:
                    outside &= among.mask[position + start : position + start + size]
                nearest = int(distances[0, :size].min(initial=self.bits + 1, where=outside))
                if nearest < best:
                    best, rows = nearest, []
                if nearest == best <= self.bits:
                    at_best = outside & (distances[0, :size] == best)
                    rows.append(segment.rows[start : start + size][at_best])
            position += count
        found = np.concatenate(rows)
        return Hits(found, np.full(len(found), best, dtype=np.int32), truncated=False)

    def _filled_segments(self) -> list[tuple[_Segment, int]]:
        full = [(segment, self._capacity) for segment in self._segments]
        if full:
            last = full[-1][0]
            full[-1] = (last, self._count - self._capacity * (len(full) - 1))
        return full

    def _read(self, positions: Rows, with_codes: bool = True) -> tuple[Rows, Codes]:
        """Return copies of the pairs at these positions, ascending."""
        rows = np.empty(len(positions), dtype=np.int64)
        codes = np.empty((len(positions) if with_codes else 0, self._code_size), dtype=np.uint8)
        for segment, part, places in self._parts(positions):
            rows[part] = segment.rows[places]
            if with_codes:
                codes[part] = segment.codes[places]
        return rows, codes

    def _write(self, positions: Rows, rows: Rows, codes: Codes) -> None:
        """Put pairs at these positions, ascending."""
        for segment, part, places in self._parts(positions):
            segment.rows[places] = rows[part]
            segment.codes[places] = codes[part]

    def _parts(self, positions: Rows) -> list[tuple[_Segment, slice, Rows]]:
        """Split ascending positions by segment: the segment, where in ``positions``, places within it."""
        if not positions.size:
            return []
        first, last = int(positions[0]) // self._capacity, int(positions[-1]) // self._capacity
        bounds = np.searchsorted(positions, np.arange(first, last + 2) * self._capacity).tolist()
        return [
            (
                self._segments[number],
                slice(start, end),
                positions[start:end] - number * self._capacity,
            )
            for number, start, end in zip(range(first, last + 1), bounds[:-1], bounds[1:], strict=True)
        ]


class _Segment:
    """Room for a fixed number of pairs."""

    __slots__ = ("codes", "rows")

    def __init__(self, capacity: int, code_size: int) -> None:
        self.codes: Codes = np.empty((capacity, code_size), dtype=np.uint8)
        self.rows: Rows = np.empty(capacity, dtype=np.int64)


class FlatSelection:
    """Positions of a FlatIndex to search among, as a mask and as Faiss bitmaps, one a segment."""

    def __init__(self, mask: NDArray[np.bool_], capacity: int, missing: int) -> None:
        """Make a selection out of a mask (n,) over all positions."""
        self.mask = mask
        self.missing = missing
        self.count = int(np.count_nonzero(mask))
        self.selectors = [
            _kernels.IDSelectorBitmap(np.packbits(mask[start : start + capacity], bitorder="little"))
            for start in range(0, len(mask), capacity)
        ]


class FlatExport:
    """A walk over a FlatIndex by position.

    Removal moves pairs from the end into holes. A pair that would slip past the walk that way, from a
    position still to come to one already passed, is kept aside and comes at the end.
    """

    def __init__(self, index: FlatIndex) -> None:
        """Start at the first position; pairs added from now on need not come."""
        self._index = index
        self._next = 0
        self._end = len(index)
        self._rescued: list[tuple[Rows, Codes]] = []

    def next_block(self) -> tuple[Rows, Codes] | None:
        """Return copies of the next rows and codes; None at the end."""
        if self._next < self._end:
            start, self._next = self._next, min(self._next + _BLOCK, self._end)
            return self._index._read(np.arange(start, self._next, dtype=np.int64))
        return self._rescued.pop() if self._rescued else None

    def note_move(self, holes: Rows, movers: Rows, rows: Rows, codes: Codes, total: int) -> None:
        """Learn that the pairs at ``movers`` go to ``holes`` and that ``total`` pairs remain."""
        slips = (holes < self._next) & (movers >= self._next) & (movers < self._end)
        if slips.any():
            self._rescued.append((rows[slips], codes[slips]))
        self._end = max(min(self._end, total), self._next)

    def close(self) -> None:
        """End the walk."""
        if self in self._index._exports:
            self._index._exports.remove(self)


class RowMap:
    """A map from rows to positions that takes about four bytes an item.

    Rows come in rising order and go at random, so it is a table in pages; a page whose last row went is
    dropped. (A dictionary takes some hundred bytes an item.)
    """

    _SHIFT = 12
    _PAGE = 1 << _SHIFT
    _LARGEST = np.iinfo(np.int32).max

    def __init__(self) -> None:
        """Make an empty map."""
        self._pages: dict[int, NDArray[np.int32]] = {}

    @property
    def nbytes(self) -> int:
        """The memory that the pages take."""
        return len(self._pages) * self._PAGE * 4

    def put(self, rows: Rows, positions: Rows) -> None:
        """Set the positions (n,) of rows (n,)."""
        if positions.size and int(positions.max()) > self._LARGEST:
            raise OverflowError(f"a Flat index holds at most {self._LARGEST + 1} items")
        for number, part, places in self._by_page(rows):
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = np.full(self._PAGE, -1, dtype=np.int32)
            page[places] = positions[part]

    def get(self, rows: Rows) -> Rows:
        """Return the positions (n,) of rows (n,), -1 for those that are not there."""
        positions = np.full(len(rows), -1, dtype=np.int64)
        for number, part, places in self._by_page(rows):
            page = self._pages.get(number)
            if page is not None:
                positions[part] = page[places]
        return positions

    def discard(self, rows: Rows) -> None:
        """Forget rows (n,)."""
        for number, _, places in self._by_page(rows):
            page = self._pages.get(number)
            if page is not None:
                page[places] = -1
                if (page < 0).all():
                    del self._pages[number]

    def _by_page(self, rows: Rows) -> list[tuple[int, Any, Rows]]:
        """Split rows by page: the page's number, where in ``rows``, places within the page."""
        if not rows.size:
            return []
        numbers, places = rows >> self._SHIFT, rows & (self._PAGE - 1)
        if (numbers == numbers[0]).all():
            return [(int(numbers[0]), slice(None), places)]
        order = np.argsort(numbers, kind="stable")
        bounds = np.flatnonzero(np.diff(numbers[order])) + 1
        return [(int(numbers[part[0]]), part, places[part]) for part in np.split(order, bounds)]


def _no_hits() -> Hits:
    return Hits(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), truncated=False)
