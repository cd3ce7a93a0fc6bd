"""The graph against plain counting of bits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from index_store import GalleryClosed
from index_store.base import CorruptSnapshot
from index_store.hamming import Chunk, SearchParameters, Segments, Work
from index_store.hamming.graph import LINKS, Graph

WORK = Work(1, lambda: None)
THOROUGH = SearchParameters(ef_search=4096)
FIRST_ROW = 5


def build(codes: np.ndarray, work: Work = WORK) -> Graph:
    """A graph of these codes, whose rows are FIRST_ROW, FIRST_ROW + 1 and so on."""
    pairs = Segments(codes.shape[1] * 8, 1, segment_bytes=50 * codes.shape[1])
    pairs.append(np.arange(FIRST_ROW, FIRST_ROW + len(codes), dtype=np.int64), codes)
    return Graph.build(pairs, 100, 64, 2, work)


def truth_of(codes: np.ndarray) -> dict[int, bytes]:
    return {row: code.tobytes() for row, code in enumerate(codes, FIRST_ROW)}


def rows_of(truth: Iterable[int]) -> np.ndarray:
    return np.array(sorted(truth), dtype=np.int64)


def as_truth(rows: np.ndarray, codes: np.ndarray) -> dict[int, bytes]:
    assert len(set(rows.tolist())) == len(rows)
    return {row: code.tobytes() for row, code in zip(rows.tolist(), codes, strict=True)}


def check(graph: Graph, truth: dict[int, bytes], tools, rng: random.Random, *, all_found: bool = True) -> None:
    """The graph holds exactly this; a thorough search finds it all, or if not, nothing else."""
    assert len(graph) == len(truth)
    assert as_truth(*graph.read(rows_of(truth))) == truth
    query = tools.make_codes(rng, 1, graph.bits // 8)
    distances, rows = graph.nearest(query, len(truth) + 3, THOROUGH)
    there = rows[0] >= 0
    found = dict(zip(rows[0, there].tolist(), distances[0, there].tolist(), strict=True))
    counted = {row: tools.popcount(query.tobytes(), code) for row, code in truth.items()}
    assert len(found) == there.sum() <= len(truth)
    assert found.items() <= counted.items()
    assert list(found.values()) == sorted(found.values())
    if all_found:
        assert found == counted


@pytest.mark.parametrize("code_size", [8, 16, 64])
@pytest.mark.parametrize("count", [1, 2, 40, 500])
def test_a_thorough_search_equals_counting_bits(tools, rng: random.Random, code_size: int, count: int) -> None:
    codes = tools.make_codes(rng, count, code_size)
    graph = build(codes)
    assert graph.parameters == {"ef_construction": 100, "ef_search": 64}
    check(graph, truth_of(codes), tools, rng)
    queries = tools.make_codes(rng, 5, code_size)
    distances, _ = graph.nearest(queries, min(10, count), THOROUGH)
    assert distances.tolist() == [sorted(tools.distances(query, codes))[: min(10, count)] for query in queries]


def test_a_hasty_search_finds_most(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 2000, 8)
    graph = build(codes)
    distances, _ = graph.nearest(codes[:200], 1, SearchParameters(ef_search=16))
    assert (distances[:, 0] == 0).mean() > 0.9


def test_removed_nodes_are_never_found_and_lead_on_to_others(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 400, 8)
    graph, truth = build(codes), truth_of(codes)
    while truth:
        gone = rng.sample(sorted(truth), min(len(truth), 45))
        assert graph.remove(np.array([*gone, gone[0], 10**6, -1, 0], dtype=np.int64)) == len(gone)
        for row in gone:
            del truth[row]
        check(graph, truth, tools, rng)
        assert graph.remove(np.array(gone, dtype=np.int64)) == 0
        assert graph.read(np.array(gone, dtype=np.int64))[0].tolist() == []


@pytest.mark.parametrize("which", [[0], [-1], [0, -1], [7, 8, 9, 15, 16]])
def test_marks_hold_at_the_borders_of_bytes(tools, rng: random.Random, which: list[int]) -> None:
    codes = tools.make_codes(rng, 33, 8)
    graph, truth = build(codes), truth_of(codes)
    gone = rows_of(truth)[which]
    assert graph.remove(gone) == len(gone)
    for row in gone.tolist():
        del truth[row]
    check(graph, truth, tools, rng)


def test_a_graph_is_worn_when_more_than_a_quarter_is_removed(tools, rng: random.Random) -> None:
    graph = build(tools.make_codes(rng, 100, 8))
    graph.remove(np.arange(FIRST_ROW, FIRST_ROW + 25, dtype=np.int64))
    assert graph.worn() is None
    graph.remove(np.array([FIRST_ROW + 25], dtype=np.int64))
    assert graph.worn() == "26 of 100 nodes of the graph are removed ones"


def test_a_copy_is_the_same_and_grows_by_itself(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 300, 8)
    graph, truth = build(codes), truth_of(codes)
    graph.remove(rows_of(truth)[::7])
    left = {row: code for row, code in truth.items() if (row - FIRST_ROW) % 7}
    copy = graph._copy()
    assert copy.facts == graph.facts
    check(copy, left, tools, rng)
    new = tools.make_codes(rng, 50, 8)
    copy._link(np.arange(1000, 1050, dtype=np.int64), lambda start, end: new[start:end], WORK)
    copy.remove(rows_of(left)[:10])
    check(graph, left, tools, rng)
    grown = {row: left[row] for row in sorted(left)[10:]}
    check(copy, {**grown, **as_truth(np.arange(1000, 1050), new)}, tools, rng)


def test_a_graph_that_grows_by_many_small_copies_finds_everything(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 40, 8)
    graph, truth = build(codes), truth_of(codes)
    for turn in range(40):
        new = tools.make_codes(rng, 5, 8)
        rows = np.arange(1000 + 10 * turn, 1005 + 10 * turn, dtype=np.int64)
        graph = graph._copy()
        graph._link(rows, lambda start, end, new=new: new[start:end], WORK)
        truth.update(as_truth(rows, new))
    check(graph, truth, tools, rng)


def load(graph: Graph, chunks: Iterable[Chunk], facts: Mapping[str, object] | None = None) -> Graph:
    return Graph.load({**graph.facts, **(facts or {})}, chunks, graph.bits, 64, 1)


@pytest.mark.parametrize("block", [1, 10, 10**6])
def test_a_loaded_graph_answers_as_the_one_that_was_written(tools, rng: random.Random, monkeypatch, block: int) -> None:
    monkeypatch.setattr("index_store.hamming.graph.BLOCK", block)
    monkeypatch.setattr("index_store.hamming.graph._LINKS_AT_ONCE", block * 10)
    codes = tools.make_codes(rng, 150, 8)
    graph, truth = build(codes), truth_of(codes)
    graph.remove(rows_of(truth)[::5])
    loaded = load(graph, graph.chunks())
    check(loaded, {row: code for row, code in truth.items() if (row - FIRST_ROW) % 5}, tools, rng)
    assert loaded.facts == graph.facts
    assert loaded.worn() == graph.worn()
    queries = tools.make_codes(rng, 20, 8)
    hasty = SearchParameters(ef_search=10)
    for one, other in zip(graph.nearest(queries, 10, hasty), loaded.nearest(queries, 10, hasty), strict=True):
        assert one.tolist() == other.tolist()


def test_what_is_removed_during_a_walk_may_come_or_not_and_all_else_comes(
    tools, rng: random.Random, monkeypatch
) -> None:
    monkeypatch.setattr("index_store.hamming.graph.BLOCK", 10)
    codes = tools.make_codes(rng, 100, 8)
    graph, truth = build(codes), truth_of(codes)
    chunks = []
    for chunk in graph.chunks():
        chunks.append(chunk)
        gone = rng.sample(sorted(truth), min(len(truth), 3))
        graph.remove(np.array(gone, dtype=np.int64))
        for row in gone:
            del truth[row]
    loaded = load(graph, chunks)
    held = as_truth(*loaded.read(rows_of(truth_of(codes))))
    assert truth.items() <= held.items() <= truth_of(codes).items()
    check(loaded, held, tools, rng)
    loaded.remove(rows_of(held.keys() - truth.keys()))
    check(loaded, truth, tools, rng)


def nodes_are_missing(chunks: list[Chunk]) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.kind != "nodes"]


def links_are_missing(chunks: list[Chunk]) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.kind != "links"]


def nothing_came(chunks: list[Chunk]) -> list[Chunk]:
    return []


def nodes_come_twice(chunks: list[Chunk]) -> list[Chunk]:
    return [chunks[0], *chunks]


def links_come_twice(chunks: list[Chunk]) -> list[Chunk]:
    return [*chunks, chunks[-1]]


def there_is_a_list(chunks: list[Chunk]) -> list[Chunk]:
    rows, _, codes = chunks[0].columns
    return [*chunks, Chunk("lists", (rows, codes, rows))]


def a_level_is_impossible(chunks: list[Chunk]) -> list[Chunk]:
    rows, levels, codes = chunks[0].columns
    return [Chunk("nodes", (rows, np.where(rows == FIRST_ROW, 0, levels).astype(np.int32), codes)), *chunks[1:]]


def a_level_is_beyond_all(chunks: list[Chunk]) -> list[Chunk]:
    rows, levels, codes = chunks[0].columns
    return [Chunk("nodes", (rows, np.where(rows == FIRST_ROW, 100, levels).astype(np.int32), codes)), *chunks[1:]]


def levels_do_not_fit_the_links(chunks: list[Chunk]) -> list[Chunk]:
    rows, levels, codes = chunks[0].columns
    return [
        Chunk("nodes", (rows, np.where(rows == FIRST_ROW, levels + 1, levels).astype(np.int32), codes)),
        *chunks[1:],
    ]


def a_link_leads_nowhere(chunks: list[Chunk]) -> list[Chunk]:
    links = chunks[-1].columns[0].copy()
    links[3] = 100
    return [*chunks[:-1], Chunk("links", (links,))]


SPOILS = [
    nodes_are_missing,
    links_are_missing,
    nothing_came,
    nodes_come_twice,
    links_come_twice,
    there_is_a_list,
    a_level_is_impossible,
    a_level_is_beyond_all,
    levels_do_not_fit_the_links,
    a_link_leads_nowhere,
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_impossible_chunks_are_refused(tools, rng: random.Random, spoil) -> None:
    graph = build(tools.make_codes(rng, 100, 8))
    with pytest.raises((CorruptSnapshot, ValueError)):
        load(graph, spoil(list(graph.chunks())))


def test_a_link_into_a_level_that_its_end_is_not_in_is_refused(tools, rng: random.Random) -> None:
    graph = build(tools.make_codes(rng, 100, 8))
    nodes, links = graph.chunks()
    levels, spoiled = nodes.columns[1], links.columns[0].copy()
    upper = int(np.argmax(levels > 1))
    assert levels[upper] > 1
    begin = sum(2 * LINKS + LINKS * (int(level) - 1) for level in levels[:upper])
    spoiled[begin + 2 * LINKS] = int(np.argmin(levels))
    with pytest.raises(CorruptSnapshot):
        load(graph, [nodes, Chunk("links", (spoiled,))])


@pytest.mark.parametrize(
    "facts",
    [
        {"nodes": 99},
        {"nodes": 101},
        {"nodes": 0},
        {"nodes": -1},
        {"links": 1},
        {"links": -1},
        {"entry_point": -1},
        {"entry_point": -2},
        {"entry_point": 0},
        {"entry_point": 100},
        {"max_level": -1},
        {"max_level": 0},
        {"max_level": -2},
        {"max_level": 8},
        {"max_level": 99},
        {"entry_point": None},
        {"max_level": "1"},
    ],
)
def test_impossible_facts_are_refused(tools, rng: random.Random, facts: dict[str, object]) -> None:
    graph = build(tools.make_codes(rng, 100, 8))
    with pytest.raises((CorruptSnapshot, ValueError, TypeError)):
        load(graph, graph.chunks(), facts)


@pytest.mark.parametrize("name", ["nodes", "links", "entry_point", "max_level", "ef_construction"])
def test_missing_facts_are_refused(tools, rng: random.Random, name: str) -> None:
    graph = build(tools.make_codes(rng, 50, 8))
    facts = {key: value for key, value in graph.facts.items() if key != name}
    with pytest.raises(KeyError):
        Graph.load(facts, graph.chunks(), 64, 64, 1)


def test_equal_codes_are_held_and_some_of_them_found(tools, rng: random.Random) -> None:
    codes = np.zeros((300, 8), dtype=np.uint8)
    graph = build(codes)
    check(graph, truth_of(codes), tools, rng, all_found=False)
    _, rows = graph.nearest(codes[:1], 10, SearchParameters())
    assert (rows >= 0).all()
    graph.remove(rows_of(truth_of(codes))[:60])
    check(
        graph,
        {row: code for row, code in truth_of(codes).items() if row >= FIRST_ROW + 60},
        tools,
        rng,
        all_found=False,
    )


def test_building_ends_when_it_is_to_and_tells_its_progress(tools, rng: random.Random, monkeypatch) -> None:
    monkeypatch.setattr("index_store.hamming.graph._LEAST_BATCH", 30)
    codes = tools.make_codes(rng, 100, 8)
    told: list[float] = []
    build(codes, Work(1, lambda: None, told.append))
    assert told == [0.3, 0.6, 0.9, 1]
    calls: list[int] = []

    def stop_at_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise GalleryClosed

    with pytest.raises(GalleryClosed):
        build(codes, Work(1, stop_at_third))
