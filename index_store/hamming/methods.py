"""The index methods there are, which kind of index serves a gallery of which size, and how each is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from index_store.base import Method
from index_store.hamming.base import Chunk, HammingIndex, Work
from index_store.hamming.flat import FlatIndex
from index_store.hamming.gpu import GpuFlat
from index_store.hamming.graph import Graph
from index_store.hamming.layered import LayeredIndex, Structure
from index_store.hamming.lists import InvertedLists, choose_nlist
from index_store.hamming.segments import Segments
from index_store.validation import check_positive

_GPU_FROM = 1_024  # items; fewer take a CPU less time than a GPU needs to begin


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How indexes are made.

    ``nlist`` is the number of inverted lists (None: by the number of items, see ``choose_nlist``) and
    ``nprobe`` how many of them a search looks at unless it says so itself (None: a twentieth).
    ``ef_construction`` is how many candidates a graph keeps while it links a node, ``ef_search`` how many
    while it is searched. ``ivf_from`` and ``hnsw_from`` are the items from which lists and a graph are made;
    below them comparing with every code is as fast, and exact. ``auto_from`` is where ``auto`` leaves Flat.
    ``gpu`` lets a GPU compare with every code, if Faiss has one.

    Raises InvalidQuery for a number below 1.
    """

    nlist: int | None = None
    nprobe: int | None = None
    ef_construction: int = 100
    ef_search: int = 128
    ivf_from: int = 4_096
    hnsw_from: int = 1_024
    auto_from: int = 200_000
    gpu: bool = False

    def __post_init__(self) -> None:
        """Check every number."""
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and each.name != "gpu":
                check_positive(each.name, value)


@dataclass(frozen=True, slots=True)
class Plan:
    """The kind of index that shall serve, and why."""

    kind: str
    reason: str


def plan(method: Method, items: int, serving: str, options: IndexOptions) -> Plan:
    """Choose the kind of index for a method and a number of items, where one of kind ``serving`` serves.

    A gallery that shrinks keeps its lists or graph until it has half of the items that they were made from,
    so that one that sways about the border is not built anew each time.
    """
    flat = "Flat" if not options.gpu or items < _GPU_FROM else GpuFlat.method
    if method == "Flat":
        return Plan(flat, f"{method} was chosen: exact, every code is compared")
    least = {"auto": options.auto_from, "IVF": options.ivf_from, "HNSW32": options.hnsw_from}[method]
    if method != "HNSW32":
        least = max(least, options.nlist or 0)
    kind = "IVF" if method == "auto" else method
    enough = items >= (least // 2 if serving == kind else least)
    if method == "auto":
        reason = (
            f"auto: from {least:,} items on IVF is several times faster than comparing every code"
            if enough
            else f"auto: below {least:,} items comparing every code is fast, and exact"
        )
    else:
        reason = f"{method} was chosen"
        if not enough:
            reason += f"; it is made from {least:,} items on, and until then every code is compared"
    return Plan(kind if enough else flat, reason)


def make_index(bits: int, threads: int) -> HammingIndex:
    """Return an empty index, which is Flat; ``threads`` is the most that one search may use."""
    return FlatIndex(bits, threads)


def build(kind: str, pairs: Segments, threads: int, options: IndexOptions, work: Work) -> HammingIndex:
    """Return an index of a kind that holds these pairs. Its searches use at most ``threads``.

    Raises GpuFailed.
    """
    structure: Structure
    if kind == GpuFlat.method and len(pairs):
        return LayeredIndex(GpuFlat(pairs, threads), threads)
    if kind == "Flat" or not len(pairs):
        index = FlatIndex(pairs.bits, threads)
        for rows, codes in pairs.blocks():
            index.add(rows, codes)
        return index
    if kind == InvertedLists.method:
        nlist = min(options.nlist or choose_nlist(len(pairs)), len(pairs))
        structure = InvertedLists.build(pairs, nlist, options.nprobe, threads, work)
    else:
        structure = Graph.build(pairs, options.ef_construction, options.ef_search, threads, work)
    return LayeredIndex(structure, threads)


def load(
    kind: str, facts: Mapping[str, int], chunks: Iterable[Chunk], bits: int, threads: int, options: IndexOptions
) -> HammingIndex:
    """Return the index that a snapshot holds, with its recent pairs. Raises CorruptSnapshot, KeyError."""
    structure: Structure
    recent: list[Chunk] = []
    if kind == InvertedLists.method:
        structure = InvertedLists.load(facts, _aside(chunks, recent), bits, options.nprobe, threads)
    elif kind == Graph.method:
        structure = Graph.load(facts, _aside(chunks, recent), bits, options.ef_search, threads)
    else:
        return load_flat(chunks, bits, threads)
    index = LayeredIndex(structure, threads)
    for chunk in recent:
        index.add(*chunk.columns)
    return index


def load_flat(chunks: Iterable[Chunk], bits: int, threads: int) -> HammingIndex:
    """Return a Flat index of all pairs of a snapshot, whatever kind of index it is of."""
    index = FlatIndex(bits, threads)
    for chunk in chunks:
        if chunk.kind in ("pairs", "lists"):
            index.add(chunk.columns[0], chunk.columns[1])
        elif chunk.kind == "nodes":
            rows, _, codes = chunk.columns
            index.add(rows[rows >= 0], codes[rows >= 0])
    return index


def _aside(chunks: Iterable[Chunk], pairs: list[Chunk]) -> Iterable[Chunk]:
    """Pass chunks on, but put those of recent pairs aside."""
    for chunk in chunks:
        if chunk.kind == "pairs":
            pairs.append(chunk)
        else:
            yield chunk
