"""A graph of near neighbours (HNSW; Malkov and Yashunin, arXiv:1603.09320) with 32 links a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes, CorruptSnapshot
from index_store.hamming.base import BLOCK, SPARE, Chunk, Distances, Rows, SearchParameters, Work
from index_store.hamming.layered import Folding
from index_store.hamming.rowmap import RowMap
from index_store.hamming.segments import Segments

LINKS = 32
_LINKS_AT_ONCE = 1 << 22  # 16 MB of a snapshot
_WORN_SHARE = 4  # of the nodes are removed ones, one in so many
_LEAST_BATCH = 1_000
_MOST_BATCH = 10_000  # pairs linked in between two looks whether to go on; some seconds' work
_kernels: Any = faiss  # its type stubs do not know the binary kernels


class Graph:
    """A Faiss IndexBinaryHNSW whose nodes can be marked as removed.

    Takes some bits / 8 + 290 bytes a node, removed ones included. The graph itself never changes once it is
    searched: pairs are taken in by a copy that then takes its place, since Faiss cannot link and search at
    the same time. A removed node still leads to its neighbours, so recall does not suffer; when a quarter of
    the nodes are such, the graph wants to be built anew.
    """

    method = "HNSW32"

    def __init__(self, bits: int, ef_construction: int, ef_search: int, threads: int) -> None:
        """Make a graph without nodes; linking and searching keep so many candidates."""
        self.bits = bits
        self._threads = threads
        self._ef_search = ef_search
        self._index = faiss.IndexBinaryHNSW(bits, LINKS)
        self._index.hnsw.efConstruction = ef_construction
        self._storage = _kernels.downcast_IndexBinary(self._index.storage)
        self._rows: Rows = np.empty(0, dtype=np.int64)
        self._positions = RowMap()
        self._removed: int = 0
        self._mark_none()

    @classmethod
    def build(cls, pairs: Segments, ef_construction: int, ef_search: int, threads: int, work: Work) -> Graph:
        """Link all pairs. Searches will use ``threads``, building uses those of ``work``."""
        graph = cls(pairs.bits, ef_construction, ef_search, threads)
        rows = np.concatenate([np.empty(0, dtype=np.int64), *(rows for rows, _ in pairs.blocks())])
        graph._link(rows, lambda start, end: pairs.read(np.arange(start, end))[1], work)
        return graph

    def __len__(self) -> int:
        """How many pairs there are."""
        return int(self._rows.size) - self._removed

    @property
    def nbytes(self) -> int:
        """The memory that the nodes take."""
        nodes = len(self._rows) * (self.bits // 8 + 8 + 4 + 8)
        links = int(self._index.hnsw.neighbors.size()) * 4
        return nodes + links + self._marks.nbytes + self._positions.nbytes

    @property
    def parameters(self) -> Mapping[str, int]:
        """How many candidates building and searching keep."""
        return {"ef_construction": int(self._index.hnsw.efConstruction), "ef_search": self._ef_search}

    def worn(self) -> str | None:
        """Say that many nodes are removed ones."""
        if self._removed * _WORN_SHARE > len(self._rows):
            return f"{self._removed:,} of {len(self._rows):,} nodes of the graph are removed ones"
        return None

    def remove(self, rows: Rows) -> int:
        """Mark nodes as removed; return how many there were."""
        positions = np.unique(self._positions.present(rows))
        self._positions.discard(self._rows[positions])
        self._rows[positions] = -1
        self._mark(positions)
        self._removed += len(positions)
        return len(positions)

    def read(self, rows: Rows) -> tuple[Rows, Codes]:
        """Return copies of those pairs of these rows that it holds."""
        positions = self._positions.present(rows)
        return self._rows[positions], self._codes()[positions]

    def worth_asking(self, top_k: int, parameters: SearchParameters) -> int:
        """Return as many as there are candidates anyway, but not too many."""
        return min(top_k + SPARE, max(parameters.ef_search or self._ef_search, top_k + 1))

    def nearest(self, codes: Codes, k: int, parameters: SearchParameters) -> tuple[Distances, Rows]:
        """Return distances and rows (n, k) of the nearest it finds; -1 where it finds fewer."""
        _kernels.omp_set_num_threads(max(1, min(self._threads, len(codes))))
        ef_search = max(parameters.ef_search or self._ef_search, k)
        selector = self._selector if self._removed else None
        tuned = _kernels.SearchParametersHNSW(efSearch=ef_search, sel=selector)
        distances, positions = self._index.search(codes, k, params=tuned)
        rows = self._rows[positions]
        rows[positions < 0] = -1
        return distances, rows

    def fold(self, folding: Folding) -> None:
        """Link recent pairs into a copy, which takes this graph's place."""
        grown = self._copy()
        grown._link(folding.rows, lambda start, end: folding.codes[start:end], folding.work)
        with folding.lock.write():
            folding.take(folding.rows)
            folding.adopt(grown)

    @property
    def facts(self) -> Mapping[str, int]:
        """What it takes besides the chunks to make the graph again."""
        hnsw = self._index.hnsw
        return {
            "nodes": len(self._rows),
            "links": int(hnsw.neighbors.size()),
            "entry_point": int(hnsw.entry_point),
            "max_level": int(hnsw.max_level),
            "ef_construction": int(hnsw.efConstruction),
        }

    def chunks(self) -> Iterator[Chunk]:
        """Yield nodes and links."""
        levels, codes, links = self._levels(), self._codes(), self._links()
        for start in range(0, len(self._rows), BLOCK):
            part = slice(start, start + BLOCK)
            yield Chunk("nodes", (self._rows[part].copy(), levels[part], codes[part]))
        for start in range(0, len(links), _LINKS_AT_ONCE):
            yield Chunk("links", (links[start : start + _LINKS_AT_ONCE],))

    @classmethod
    def load(cls, facts: Mapping[str, int], chunks: Iterable[Chunk], bits: int, ef_search: int, threads: int) -> Graph:
        """Make the graph again out of what ``facts`` and ``chunks`` said. Raises CorruptSnapshot, KeyError."""
        graph = cls(bits, facts["ef_construction"], ef_search, threads)
        nodes, links = facts["nodes"], facts["links"]
        graph._reserve(nodes, links)
        levels = np.empty(nodes, dtype=np.int32)
        done = linked = 0
        for chunk in chunks:
            if chunk.kind == "nodes":
                end = done + len(chunk.columns[0])
                graph._rows[done:end], levels[done:end], graph._codes()[done:end] = chunk.columns
                done = end
            elif chunk.kind == "links":
                end = linked + len(chunk.columns[0])
                graph._links()[linked:end] = chunk.columns[0]
                linked = end
            else:
                raise CorruptSnapshot(f"there are {chunk.kind} in a graph")
        if (done, linked) != (nodes, links):
            raise CorruptSnapshot(f"{done} nodes and {linked} links came, {nodes} and {links} were announced")
        graph._finish_loading(levels, facts["entry_point"], facts["max_level"])
        graph._check_upper_links(levels)
        return graph

    def _link(self, rows: Rows, codes: Callable[[int, int], Codes], work: Work) -> None:
        """Add nodes; ``codes(start, end)`` gives the codes of these of them."""
        first = len(self._rows)
        start = 0
        while start < len(rows):
            work.go_on()
            _kernels.omp_set_num_threads(work.threads)
            # Each call of Faiss prepares a lock for every node there is, so calls grow with the graph.
            end = min(len(rows), start + min(max(_LEAST_BATCH, (first + start) // 50), _MOST_BATCH))
            self._index.add(codes(start, end))
            start = end
            work.tell(start / len(rows))
        self._positions.put(rows, np.arange(first, first + len(rows), dtype=np.int64))
        self._rows = np.concatenate([self._rows, rows])
        marks = self._marks
        self._mark_none()
        self._marks[: len(marks)] = marks

    def _copy(self) -> Graph:
        """Return a graph of its own that is the same; only marks may be made meanwhile."""
        hnsw = self._index.hnsw
        copy = Graph(self.bits, hnsw.efConstruction, self._ef_search, self._threads)
        copy._reserve(len(self._rows), hnsw.neighbors.size())
        copy._codes()[:] = self._codes()
        copy._links()[:] = self._links()
        copy._rows[:] = self._rows
        copy._finish_loading(self._levels(), hnsw.entry_point, hnsw.max_level)
        return copy

    def _reserve(self, nodes: int, links: int) -> None:
        """Make room for so many nodes and links."""
        self._rows = np.empty(nodes, dtype=np.int64)
        self._storage.xb.resize(nodes * (self.bits // 8))
        self._storage.ntotal = self._index.ntotal = nodes
        self._index.hnsw.neighbors.resize(links)

    def _finish_loading(self, levels: NDArray[np.int32], entry_point: int, max_level: int) -> None:
        """Make everything else out of rows, codes, links and levels. Raises CorruptSnapshot."""
        hnsw, links = self._index.hnsw, self._links()
        per_level = _kernels.vector_to_array(hnsw.cum_nneighbor_per_level)
        if len(levels) and not 1 <= levels.min() <= levels.max() < len(per_level):
            raise CorruptSnapshot("a node has an impossible level")
        offsets = np.concatenate([[0], np.cumsum(per_level[levels])]).astype(np.uint64)
        if int(offsets[-1]) != len(links) or (len(links) and links.max() >= len(levels)):
            raise CorruptSnapshot("the links do not fit the nodes")
        if len(levels) and not (0 <= entry_point < len(levels) and levels[entry_point] == max_level + 1):
            raise CorruptSnapshot("the graph has no such entry")
        _kernels.copy_array_to_vector(levels, hnsw.levels)
        _kernels.copy_array_to_vector(offsets, hnsw.offsets)
        hnsw.entry_point, hnsw.max_level = entry_point, max_level
        there = np.flatnonzero(self._rows >= 0)
        self._positions.put(self._rows[there], there)
        self._mark_none()
        gone = np.flatnonzero(self._rows < 0)
        self._mark(gone)
        self._removed = len(gone)

    def _check_upper_links(self, levels: NDArray[np.int32]) -> None:
        """Raise CorruptSnapshot for a link, above the lowest level, to a node that has no links there."""
        per_level = _kernels.vector_to_array(self._index.hnsw.cum_nneighbor_per_level)
        offsets, links = _kernels.vector_to_array(self._index.hnsw.offsets), self._links()
        for level in range(1, int(levels.max(initial=0))):
            starts = offsets[:-1][levels > level] + per_level[level]
            ends = links[starts[:, None].astype(np.int64) + np.arange(per_level[level + 1] - per_level[level])]
            if (levels[ends[ends >= 0]] <= level).any():
                raise CorruptSnapshot("a link leads to a node that is not in its level")

    def _mark_none(self) -> None:
        """Make a bit for each node. Faiss reads them in place, so a mark holds for the next search."""
        self._marks = np.zeros(-(-len(self._rows) // 8), dtype=np.uint8)
        self._marked = _kernels.IDSelectorBitmap(self._marks)
        self._selector = _kernels.IDSelectorNot(self._marked)

    def _mark(self, positions: Rows) -> None:
        """Set the bits of these nodes."""
        np.bitwise_or.at(self._marks, positions >> 3, (1 << (positions & 7)).astype(np.uint8))

    def _codes(self) -> Codes:
        """View the codes of the nodes, by position."""
        xb = self._storage.xb
        view: Codes = _kernels.rev_swig_ptr(xb.data(), xb.size()) if xb.size() else np.empty(0, dtype=np.uint8)
        return view.reshape(-1, self.bits // 8)

    def _links(self) -> NDArray[np.int32]:
        """View the links of all nodes."""
        links = self._index.hnsw.neighbors
        view: NDArray[np.int32] = (
            _kernels.rev_swig_ptr(links.data(), links.size()) if links.size() else np.empty(0, dtype=np.int32)
        )
        return view

    def _levels(self) -> NDArray[np.int32]:
        """Return the levels of the nodes, by position."""
        levels: NDArray[np.int32] = _kernels.vector_to_array(self._index.hnsw.levels)
        return levels
