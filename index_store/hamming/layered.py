"""A structure that holds most pairs, and recent ones beside it, searched one by one.

Putting a code into a graph, or many codes into lists, takes too long to let searches wait for it. So a pair
that is added is searched exhaustively at first, and a background thread folds the recent pairs into the
structure when there are enough of them. Until then they are found exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes
from index_store.hamming.base import (
    DEFAULTS,
    SPARE,
    Chunk,
    Distances,
    Export,
    Hits,
    Rows,
    SearchParameters,
    Work,
    cut,
    no_hits,
)
from index_store.hamming.flat import FlatIndex
from index_store.hamming.segments import Segments
from index_store.locks import ReadWriteLock

_GROWTH = 4  # times more neighbours are asked for where those asked for do not settle the answer
_MOST_NEIGHBOURS = 16_384  # beyond this many the answer stays open, and says so
_LEAST_FOLD = 2_000  # pairs; a search looks through so many in some ten microseconds
_FOLD_SHARE = 50  # of the structure's pairs are worth a fold, one in so many


@dataclass(frozen=True, slots=True)
class Folding:
    """Recent pairs on their way into a structure: rows int64 (n,) and codes uint8 (n, bits / 8).

    With the ``lock`` held, ``take`` takes rows out of the recent ones and says which of them were still
    there, and ``adopt`` puts another structure in the place of the old one, without the rows that were
    removed since the folding began.
    """

    rows: Rows
    codes: Codes
    lock: ReadWriteLock
    take: Callable[[Rows], NDArray[np.bool_]]
    adopt: Callable[[Structure], None]
    work: Work


class Structure(Protocol):
    """Pairs arranged so that a search need not look at all of them."""

    @property
    def method(self) -> str:
        """The method's name in settings."""

    @property
    def bits(self) -> int:
        """The length of the codes."""

    @property
    def nbytes(self) -> int:
        """The memory that the present pairs take."""

    @property
    def parameters(self) -> Mapping[str, int]:
        """What tunes it; see HammingIndex."""

    @property
    def facts(self) -> Mapping[str, int]:
        """What it takes besides the chunks to make it again."""

    def __len__(self) -> int:
        """How many pairs there are."""

    def remove(self, rows: Rows) -> int:
        """Remove the pairs with these rows; return how many there were."""

    def read(self, rows: Rows) -> tuple[Rows, Codes]:
        """Return copies of those pairs of these rows that it holds, in any order."""

    def worth_asking(self, top_k: int, parameters: SearchParameters) -> int:
        """Return how many neighbours, above ``top_k``, to ask for so that ties at the last are mostly settled."""

    def nearest(self, codes: Codes, k: int, parameters: SearchParameters) -> tuple[Distances, Rows]:
        """Return distances and rows (n, k) of the k nearest it finds; -1 where it finds fewer."""

    def worn(self) -> str | None:
        """Say why it should be built anew; None while it need not."""

    def fold(self, folding: Folding) -> None:
        """Take recent pairs in."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield its parts; nothing is folded meanwhile, pairs may be removed between two of them."""


class LayeredIndex:
    """A structure and the recent pairs beside it, as one index."""

    def __init__(self, structure: Structure, threads: int) -> None:
        """Begin without recent pairs."""
        self._structure = structure
        self._threads = threads
        self._recent = FlatIndex(structure.bits, threads)
        self._removed_meanwhile: list[Rows] | None = None  # while it folds

    @property
    def method(self) -> str:
        """The structure's name in settings."""
        return self._structure.method

    @property
    def bits(self) -> int:
        """The length of the codes."""
        return self._structure.bits

    @property
    def nbytes(self) -> int:
        """The memory that the present items take."""
        return self._structure.nbytes + self._recent.nbytes

    @property
    def parameters(self) -> Mapping[str, int]:
        """What tunes the structure."""
        return self._structure.parameters

    @property
    def recent(self) -> int:
        """How many pairs are searched one by one."""
        return len(self._recent)

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self._structure) + len(self._recent)

    def add(self, rows: Rows, codes: Codes) -> None:
        """Add pairs to the recent ones."""
        self._recent.add(rows, codes)

    def remove(self, rows: Rows) -> int:
        """Remove pairs wherever they are."""
        if self._removed_meanwhile is not None:
            self._removed_meanwhile.append(rows)
        return self._structure.remove(rows) + self._recent.remove(rows)

    def select(self, rows: Rows) -> GatheredSelection:
        """Gather the codes of these rows: a search among them is exact."""
        parts = [self._structure.read(rows), self._recent.read(rows)]
        found = np.concatenate([part[0] for part in parts])
        codes = np.concatenate([part[1] for part in parts])
        return GatheredSelection(Segments.of(found, codes, self._threads), len(rows) - len(found))

    def search(
        self,
        codes: Codes,
        radius: int,
        top_k: int,
        among: GatheredSelection | None = None,
        parameters: SearchParameters = DEFAULTS,
    ) -> list[Hits]:
        """Find the nearest within ``radius``; see HammingIndex."""
        if among is not None:
            return among.pairs.search(codes, radius, top_k)
        found = self._search_structure(codes, radius, top_k, parameters)
        if not len(self._recent):
            return found
        recent = self._recent.search(codes, radius, top_k)
        return [_merge(one, other, top_k) for one, other in zip(found, recent, strict=True)]

    def nearest_outside(
        self,
        codes: Codes,
        radius: int,
        among: GatheredSelection | None = None,
        parameters: SearchParameters = DEFAULTS,
    ) -> list[Hits]:
        """Find what is nearest beyond ``radius``, as far as the structure finds it; see HammingIndex."""
        if among is not None:
            return among.pairs.nearest_outside(codes, radius)
        recent = self._recent.nearest_outside(codes, radius)
        found = [self._outside(query[None], radius, parameters) for query in codes]
        return [_nearer(one, other) for one, other in zip(found, recent, strict=True)]

    def export(self) -> Export:
        """Start a walk over the structure, then over the recent pairs."""
        return LayeredExport(self._structure, self._recent.export())

    def worn(self) -> str | None:
        """Say why the structure should be built anew."""
        return self._structure.worn()

    def fold_is_due(self) -> bool:
        """Say whether the recent pairs begin to cost a search something."""
        return len(self._recent) >= max(_LEAST_FOLD, len(self._structure) // _FOLD_SHARE)

    def fold(self, lock: ReadWriteLock, work: Work) -> None:
        """Fold the recent pairs into the structure while others search and change."""
        with lock.read():
            rows, codes = self._recent.read_all()
            self._removed_meanwhile = []
        try:
            self._structure.fold(Folding(rows, codes, lock, self._take, self._adopt, work))
        finally:
            with lock.write():
                self._removed_meanwhile = None

    def _take(self, rows: Rows) -> NDArray[np.bool_]:
        there = self._recent.holds(rows)
        self._recent.remove(rows)
        return there

    def _adopt(self, structure: Structure) -> None:
        for rows in self._removed_meanwhile or ():
            structure.remove(rows)
        self._structure = structure

    def _search_structure(self, codes: Codes, radius: int, top_k: int, parameters: SearchParameters) -> list[Hits]:
        available = len(self._structure)
        k = min(self._structure.worth_asking(top_k, parameters), available)
        if not k or not len(codes):
            return [no_hits() for _ in range(len(codes))]
        all_distances, all_rows = self._structure.nearest(codes, k, parameters)
        results = []
        for query, all_d, all_r in zip(codes, all_distances, all_rows, strict=True):
            distances, rows = _found(all_d, all_r)

            def up_to(last: int, query: Codes = query) -> tuple[Rows, Distances]:
                d, r = self._until(query[None], last, k * _GROWTH, parameters)
                end = int(np.searchsorted(d, last, side="right"))
                return r[:end], d[:end]

            all_seen = k == available or len(rows) < k
            results.append(cut(distances, rows, radius, top_k, all_seen, up_to))
        return results

    def _outside(self, query: Codes, radius: int, parameters: SearchParameters) -> Hits:
        k = SPARE
        while True:
            distances, rows = self._until(query, radius, k, parameters)
            begin = int(np.searchsorted(distances, radius, side="right"))
            if begin == len(rows):
                return no_hits()
            end = int(np.searchsorted(distances, distances[begin], side="right"))
            k = _GROWTH * max(k, len(rows))
            if end < len(rows) or k > _MOST_NEIGHBOURS or len(rows) == len(self._structure):
                return Hits(rows[begin:end], distances[begin:end], truncated=False)

    def _until(self, query: Codes, distance: int, k: int, parameters: SearchParameters) -> tuple[Distances, Rows]:
        """Ask for more and more neighbours until one lies beyond a distance, all are there or the bound is met."""
        while True:
            k = min(k, len(self._structure))
            if not k:
                return _found(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))
            (all_d,), (all_r,) = self._structure.nearest(query, k, parameters)
            distances, rows = _found(all_d, all_r)
            if len(rows) < k or distances[-1] > distance or k == len(self._structure) or k >= _MOST_NEIGHBOURS:
                return distances, rows
            k *= _GROWTH


class GatheredSelection:
    """Copies of some pairs of an index, to search among."""

    def __init__(self, pairs: Segments, missing: int) -> None:
        """Take the pairs, and how many rows are not there."""
        self.pairs = pairs
        self.missing = missing


class LayeredExport:
    """A walk over a structure and then over the recent pairs."""

    def __init__(self, structure: Structure, recent: Export) -> None:
        """Start at the structure."""
        self.facts = structure.facts
        self._chunks = structure.chunks()
        self._recent = recent

    def next_chunk(self) -> Chunk | None:
        """Return the next part of the structure or of the recent pairs."""
        chunk = next(self._chunks, None)
        return chunk if chunk is not None else self._recent.next_chunk()

    def close(self) -> None:
        """End the walk."""
        self._recent.close()


def _found(distances: Distances, rows: Rows) -> tuple[Distances, Rows]:
    """Leave out the places that no neighbour was found for; Faiss puts them last."""
    there = rows >= 0
    return (distances, rows) if there.all() else (distances[there], rows[there])


def _merge(one: Hits, other: Hits, top_k: int) -> Hits:
    """Return the nearest of both, ties at the last place included."""
    if not len(other.rows):
        return one
    if not len(one.rows):
        return other
    distances = np.concatenate([one.distances, other.distances])
    order = np.argsort(distances, kind="stable")
    distances, rows = distances[order], np.concatenate([one.rows, other.rows])[order]
    truncated = one.truncated or other.truncated or len(rows) > top_k
    if truncated:
        tied = int(np.searchsorted(distances, distances[top_k - 1], side="right"))
        keep = max(tied, top_k + 1)
        distances, rows = distances[:keep], rows[:keep]
    return Hits(rows, distances, truncated)


def _nearer(one: Hits, other: Hits) -> Hits:
    """Return what is nearer, both if they tie."""
    if not len(other.rows) or (len(one.rows) and one.distances[0] < other.distances[0]):
        return one
    if not len(one.rows) or other.distances[0] < one.distances[0]:
        return other
    return Hits(
        np.concatenate([one.rows, other.rows]), np.concatenate([one.distances, other.distances]), truncated=False
    )
