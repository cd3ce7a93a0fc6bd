"""Inverted lists: codes by their nearest centroid, of which a search looks at the nearest ``nprobe`` lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import faiss
import numpy as np

from index_store.base import Codes, CorruptSnapshot
from index_store.hamming.base import BLOCK, Chunk, Distances, Rows, SearchParameters, Work
from index_store.hamming.layered import Folding
from index_store.hamming.rowmap import RowMap
from index_store.hamming.segments import Segments
from index_store.hamming.training import assign, train

_POINTS_A_LIST = 39  # what Faiss asks for at least; more improve the lists little
_FEW = 40_000  # items up to which the reference's rule, N / 8 lists, is followed
_OUTGROWN = 4  # times more or fewer items than the lists were trained for
_LOCKED_AT_ONCE = 64  # pairs that go in while searches wait; a fraction of a millisecond
_SHIFT = 32  # a place is the list's number and the position in it
_SPARE = 16
_DEFAULT_SHARE = 20  # of the lists is searched, one in so many
_kernels: Any = faiss  # its type stubs do not know the binary kernels


def choose_nlist(items: int) -> int:
    """Return how many lists suit so many items: the reference's N / 8, above 40,000 items 4 sqrt(N)."""
    return max(1, items // 8 if items <= _FEW else round(4 * items**0.5))


class InvertedLists:
    """A Faiss IndexBinaryIVF whose pairs can be removed in a time that does not depend on their number.

    Takes bits / 8 + 16 bytes an item. Faiss's own ``remove_ids`` looks through all lists, or keeps a hash
    table of some fifty bytes an item; here a table says where each row is, and the last pair of its list
    moves into the hole. Pairs go in and out in place, so the owner locks.
    """

    method = "IVF"

    def __init__(self, centroids: Codes, trained_items: int, nprobe: int | None, threads: int) -> None:
        """Make empty lists, one a centroid, uint8 (nlist, bits / 8), trained for so many items.

        ``nprobe`` of them are searched unless a search says otherwise (None: a twentieth).
        """
        self.bits: int = centroids.shape[1] * 8
        self.nlist = len(centroids)
        self._threads = threads
        self._trained_items = trained_items
        self._default_nprobe = nprobe or max(1, self.nlist // _DEFAULT_SHARE)
        self._centroids = centroids
        self._quantizer = faiss.IndexBinaryFlat(self.bits)
        self._quantizer.add(centroids)
        self._index = faiss.IndexBinaryIVF(self._quantizer, self.bits, self.nlist)
        self._index.is_trained = True
        self._lists = _kernels.downcast_InvertedLists(self._index.invlists)
        self._places = RowMap(np.int64)
        self._count = 0

    @classmethod
    def build(cls, pairs: Segments, nlist: int, nprobe: int | None, threads: int, work: Work) -> InvertedLists:
        """Train lists on pairs and put all of them in; at least ``nlist`` pairs are needed.

        Searches will use ``threads``, building uses those of ``work``.
        """
        rng = np.random.default_rng(len(pairs))
        some = rng.choice(len(pairs), min(len(pairs), nlist * _POINTS_A_LIST), replace=False)
        _, sample = pairs.read(np.sort(some))
        # A list takes its first round's centroids in the order of the sample.
        centroids = train(sample[rng.permutation(len(sample))], nlist, work.part(0, 0.6))
        index = cls(centroids, len(pairs), nprobe, threads)
        lists = np.empty(len(pairs), dtype=np.int64)
        done = 0
        for _, codes in pairs.blocks():
            lists[done : done + len(codes)], _ = assign(codes, centroids, work)
            done += len(codes)
            work.tell(0.6 + 0.3 * done / len(pairs))
        index._fill(pairs, lists, work.part(0.9, 1))
        return index

    def __len__(self) -> int:
        """How many pairs there are."""
        return self._count

    @property
    def nbytes(self) -> int:
        """The memory that the present pairs and the centroids take."""
        pairs = self._count * (self.bits // 8 + 8)
        return pairs + self._places.nbytes + self._centroids.nbytes

    @property
    def parameters(self) -> Mapping[str, int]:
        """How many lists there are and how many of them a search looks at."""
        return {"nlist": self.nlist, "nprobe": self._nprobe(SearchParameters())}

    def worn(self) -> str | None:
        """Say that the lists were trained for a gallery of quite another size."""
        small, large = sorted((self._count, self._trained_items))
        if large > _OUTGROWN * small:
            return f"the lists were trained for {self._trained_items:,} items, {self._count:,} are in them"
        return None

    def add(self, rows: Rows, codes: Codes, lists: Rows) -> None:
        """Put pairs in these lists."""
        if not len(rows):
            return
        order = np.argsort(lists, kind="stable")
        numbers, starts = np.unique(lists[order], return_index=True)
        places = np.empty(len(rows), dtype=np.int64)
        for number, part in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            own_rows, own_codes = rows[part], codes[part]
            offset = self._lists.add_entries(
                number, len(part), _kernels.swig_ptr(own_rows), _kernels.swig_ptr(own_codes)
            )
            places[part] = np.arange(offset, offset + len(part)) | number << _SHIFT
        self._places.put(rows, places)
        self._note_count(self._count + len(rows))

    def remove(self, rows: Rows) -> int:
        """Remove the pairs with these rows; return how many there were."""
        places = np.unique(self._places.present(rows))
        for number, offsets in _by_list(places):
            own_rows, own_codes = self._views(number)
            total = len(own_rows) - len(offsets)
            holes = offsets[offsets < total]
            movers = np.setdiff1d(np.arange(total, len(own_rows)), offsets, assume_unique=True)
            self._places.discard(own_rows[offsets])
            own_rows[holes], own_codes[holes] = own_rows[movers], own_codes[movers]
            self._places.put(own_rows[holes], holes | number << _SHIFT)
            self._lists.resize(number, total)
        self._note_count(self._count - len(places))
        return int(places.size)

    def read(self, rows: Rows) -> tuple[Rows, Codes]:
        """Return copies of those pairs of these rows that it holds."""
        places = self._places.present(rows)
        found_rows = np.empty(len(places), dtype=np.int64)
        found_codes = np.empty((len(places), self.bits // 8), dtype=np.uint8)
        done = 0
        for number, offsets in _by_list(places):
            own_rows, own_codes = self._views(number)
            end = done + len(offsets)
            found_rows[done:end], found_codes[done:end] = own_rows[offsets], own_codes[offsets]
            done = end
        return found_rows, found_codes

    def worth_asking(self, top_k: int, parameters: SearchParameters) -> int:
        """Return a few more than ``top_k``: many more make a search through lists a sixth slower."""
        return top_k + _SPARE

    def nearest(self, codes: Codes, k: int, parameters: SearchParameters) -> tuple[Distances, Rows]:
        """Return distances and rows (n, k) of the nearest in the lists searched; -1 where there are fewer."""
        _kernels.omp_set_num_threads(max(1, min(self._threads, len(codes))))
        tuned = _kernels.IVFSearchParameters(nprobe=self._nprobe(parameters))
        distances, rows = self._index.search(codes, k, params=tuned)
        return distances, rows

    def fold(self, folding: Folding) -> None:
        """Put recent pairs in, a few at a time, while others search."""
        lists, _ = assign(folding.codes, self._centroids, replace(folding.work, threads=1))
        for start in range(0, len(lists), _LOCKED_AT_ONCE):
            folding.work.go_on()
            part = slice(start, start + _LOCKED_AT_ONCE)
            rows, codes = folding.rows[part], folding.codes[part]
            with folding.lock.write():
                there = folding.take(rows)
                self.add(rows[there], codes[there], lists[part][there])

    @property
    def facts(self) -> Mapping[str, int]:
        """What it takes besides the chunks to make the lists again."""
        return {"nlist": self.nlist, "trained_items": self._trained_items}

    def chunks(self) -> Iterator[Chunk]:
        """Yield the centroids and all pairs, list by list, each list as it is then.

        A list may hold most of a gallery (of equal codes, say), so it may come in several chunks.
        """
        yield Chunk("centroids", (self._centroids,))
        number = 0
        while number < self.nlist:
            rows, codes, lists, count = [], [], [], 0
            while number < self.nlist and count < BLOCK:
                own_rows, own_codes = self._views(number)
                rows.append(own_rows.copy())
                codes.append(own_codes.copy())
                lists.append(np.full(len(own_rows), number, dtype=np.int64))
                number, count = number + 1, count + len(own_rows)
            columns = (np.concatenate(rows), np.concatenate(codes), np.concatenate(lists))
            for start in range(0, count, BLOCK):
                yield Chunk("lists", tuple(column[start : start + BLOCK] for column in columns))

    @classmethod
    def load(
        cls, facts: Mapping[str, int], chunks: Iterable[Chunk], bits: int, nprobe: int | None, threads: int
    ) -> InvertedLists:
        """Make the lists again out of what ``facts`` and ``chunks`` said. Raises CorruptSnapshot, KeyError."""
        remaining = iter(chunks)
        first = next(remaining, None)
        if first is None or first.kind != "centroids" or len(first.columns[0]) != facts["nlist"]:
            raise CorruptSnapshot("the lists do not begin with their centroids")
        index = cls(first.columns[0].copy(), facts["trained_items"], nprobe, threads)
        for chunk in remaining:
            if chunk.kind != "lists":
                raise CorruptSnapshot(f"there are {chunk.kind} among lists")
            rows, codes, lists = chunk.columns
            if len(lists) and not 0 <= lists.min() <= lists.max() < index.nlist:
                raise CorruptSnapshot("a pair is in a list that there is not")
            index.add(rows, codes, lists)
        if index.bits != bits:
            raise CorruptSnapshot("the centroids are of another length than the codes")
        return index

    def _fill(self, pairs: Segments, lists: Rows, work: Work) -> None:
        """Put all pairs in at once, so that each list takes no more memory than it needs."""
        order = np.argsort(lists, kind="stable")
        counts = np.bincount(lists, minlength=self.nlist)
        ends = np.cumsum(counts)
        offsets = np.empty(len(lists), dtype=np.int64)
        offsets[order] = np.arange(len(lists)) - np.repeat(ends - counts, counts)
        places = lists << _SHIFT | offsets
        done = 0
        for rows, _ in pairs.blocks():
            self._places.put(rows, places[done : done + len(rows)])
            done += len(rows)
        for number, (start, end) in enumerate(zip((ends - counts).tolist(), ends.tolist(), strict=True)):
            work.go_on()
            rows, codes = pairs.read(order[start:end])
            self._lists.add_entries(number, len(rows), _kernels.swig_ptr(rows), _kernels.swig_ptr(codes))
            work.tell((number + 1) / self.nlist)
        self._note_count(len(lists))

    def _views(self, number: int) -> tuple[Rows, Codes]:
        """Return a list's rows and codes, in place; they hold until the list grows."""
        size = self._lists.list_size(number)
        if not size:  # then Faiss points nowhere
            return np.empty(0, dtype=np.int64), np.empty((0, self.bits // 8), dtype=np.uint8)
        rows = _kernels.rev_swig_ptr(self._lists.get_ids(number), size)
        codes = _kernels.rev_swig_ptr(self._lists.get_codes(number), size * (self.bits // 8))
        return rows, codes.reshape(size, -1)

    def _nprobe(self, parameters: SearchParameters) -> int:
        return min(self.nlist, parameters.nprobe or self._default_nprobe)

    def _note_count(self, count: int) -> None:
        self._count = count
        self._index.ntotal = count


def _by_list(places: Rows) -> Iterator[tuple[int, Rows]]:
    """Part places in order by list: its number and the positions in it."""
    if not places.size:
        return
    numbers, starts = np.unique(places >> _SHIFT, return_index=True)
    for number, part in zip(numbers.tolist(), np.split(places, starts[1:]), strict=True):
        yield number, part & ((1 << _SHIFT) - 1)
