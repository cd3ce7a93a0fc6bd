"""Exact search by comparing with every code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes
from index_store.hamming.base import BLOCK, DEFAULTS, Chunk, Hits, Rows, SearchParameters, Work
from index_store.hamming.rowmap import RowMap
from index_store.hamming.segments import SEGMENT_BYTES, Mask, Segments
from index_store.locks import ReadWriteLock


class FlatIndex:
    """Exact search by comparing with every code. Takes bits / 8 + 12 bytes an item.

    Removal moves the last pair into the hole, so it takes the same time however many there are.
    """

    method = "Flat"
    recent = 0

    def __init__(self, bits: int, threads: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Make an empty index."""
        self.bits = bits
        self._pairs = Segments(bits, threads, segment_bytes)
        self._positions = RowMap()
        self._exports: list[FlatExport] = []

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self._pairs)

    @property
    def nbytes(self) -> int:
        """The memory that the present items take."""
        return len(self._pairs) * (self._pairs.code_size + 8) + self._positions.nbytes

    @property
    def parameters(self) -> Mapping[str, int]:
        """Nothing tunes it."""
        return {}

    def add(self, rows: Rows, codes: Codes) -> None:
        """Add pairs; see HammingIndex."""
        positions = np.arange(len(self), len(self) + len(rows), dtype=np.int64)
        self._positions.put(rows, positions)
        self._pairs.append(rows, codes)

    def remove(self, rows: Rows) -> int:
        """Remove pairs in time that depends on how many they are, not on how many there are."""
        gone = np.unique(self._positions.present(rows))
        if not gone.size:
            return 0
        count = len(self)
        total = count - gone.size
        holes = gone[gone < total]
        movers = np.setdiff1d(np.arange(total, count, dtype=np.int64), gone, assume_unique=True)
        gone_rows, _ = self._pairs.read(gone, with_codes=False)
        moved_rows, moved_codes = self._pairs.read(movers)
        for export in self._exports:
            export.note_move(holes, movers, moved_rows, moved_codes, total)
        self._pairs.write(holes, moved_rows, moved_codes)
        self._positions.put(moved_rows, holes)
        self._positions.discard(gone_rows)
        self._pairs.truncate(total)
        return int(gone.size)

    def read(self, rows: Rows) -> tuple[Rows, Codes]:
        """Return copies of those pairs of these rows that it holds, in the order of their positions."""
        return self._pairs.read(self._positions.present(rows))

    def read_all(self) -> tuple[Rows, Codes]:
        """Return copies of all pairs."""
        return self._pairs.read(np.arange(len(self), dtype=np.int64))

    def holds(self, rows: Rows) -> NDArray[np.bool_]:
        """Say of each of these rows whether it is there, bool (n,)."""
        return self._positions.get(rows) >= 0

    def select(self, rows: Rows) -> FlatSelection:
        """Return these rows as a selection to search among."""
        positions = self._positions.get(rows)
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[positions[positions >= 0]] = True
        return FlatSelection(Mask(mask, self._pairs.capacity), int(np.count_nonzero(positions < 0)))

    def search(
        self,
        codes: Codes,
        radius: int,
        top_k: int,
        among: FlatSelection | None = None,
        parameters: SearchParameters = DEFAULTS,
    ) -> list[Hits]:
        """Find the nearest within ``radius``; see HammingIndex."""
        return self._pairs.search(codes, radius, top_k, None if among is None else among.mask)

    def nearest_outside(
        self,
        codes: Codes,
        radius: int,
        among: FlatSelection | None = None,
        parameters: SearchParameters = DEFAULTS,
    ) -> list[Hits]:
        """Find the nearest beyond ``radius``; see HammingIndex."""
        return self._pairs.nearest_outside(codes, radius, None if among is None else among.mask)

    def export(self) -> FlatExport:
        """Start a walk over all pairs."""
        export = FlatExport(self)
        self._exports.append(export)
        return export

    def worn(self) -> str | None:
        """It never wears."""
        return None

    def fold_is_due(self) -> bool:
        """There is nothing to fold."""
        return False

    def fold(self, lock: ReadWriteLock, work: Work) -> None:
        """There is nothing to fold."""


class FlatSelection:
    """Rows of a FlatIndex to search among."""

    def __init__(self, mask: Mask, missing: int) -> None:
        """Take their positions, and how many rows are not there."""
        self.mask = mask
        self.missing = missing

    @property
    def count(self) -> int:
        """How many rows it has."""
        return self.mask.count


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

    @property
    def facts(self) -> Mapping[str, int]:
        """The pairs are everything."""
        return {}

    def next_chunk(self) -> Chunk | None:
        """Return copies of the next rows and codes; None at the end."""
        if self._next < self._end:
            start, self._next = self._next, min(self._next + BLOCK, self._end)
            return Chunk("pairs", self._index._pairs.read(np.arange(start, self._next, dtype=np.int64)))
        return Chunk("pairs", self._rescued.pop()) if self._rescued else None

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
