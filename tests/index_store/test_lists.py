"""Inverted lists against plain counting of bits."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest

from index_store import GalleryClosed
from index_store.base import CorruptSnapshot
from index_store.hamming import Chunk, SearchParameters, Segments, Work
from index_store.hamming.lists import InvertedLists, choose_nlist

WORK = Work(1, lambda: None)
ALL = SearchParameters(nprobe=10**6)
FIRST_ROW = 5


def build(codes: np.ndarray, nlist: int, nprobe: int | None = None) -> InvertedLists:
    """Lists of these codes, whose rows are FIRST_ROW, FIRST_ROW + 1 and so on."""
    pairs = Segments(codes.shape[1] * 8, 1, segment_bytes=7 * codes.shape[1])
    pairs.append(np.arange(FIRST_ROW, FIRST_ROW + len(codes), dtype=np.int64), codes)
    return InvertedLists.build(pairs, nlist, nprobe, 2, WORK)


def truth_of(codes: np.ndarray) -> dict[int, bytes]:
    return {row: code.tobytes() for row, code in enumerate(codes, FIRST_ROW)}


def as_truth(rows: np.ndarray, codes: np.ndarray) -> dict[int, bytes]:
    assert len(set(rows.tolist())) == len(rows)
    return {row: code.tobytes() for row, code in zip(rows.tolist(), codes, strict=True)}


def check(lists: InvertedLists, truth: dict[int, bytes], tools, rng: random.Random) -> None:
    """The lists hold exactly this, wherever one looks."""
    known = np.array(sorted(truth), dtype=np.int64)
    assert len(lists) == len(truth)
    assert as_truth(*lists.read(known)) == truth
    query = tools.make_codes(rng, 1, lists.bits // 8)
    distances, rows = lists.nearest(query, len(truth) + 3, ALL)
    counted = {row: tools.popcount(query.tobytes(), code) for row, code in truth.items()}
    assert dict(zip(rows[0, :-3].tolist(), distances[0, :-3].tolist(), strict=True)) == counted
    assert distances[0, :-3].tolist() == sorted(counted.values())
    assert rows[0, -3:].tolist() == [-1, -1, -1]
    seen: dict[int, bytes] = {}
    for number in range(lists.nlist):
        seen.update(as_truth(*lists._views(number)))
    assert seen == truth


@pytest.mark.parametrize("code_size", [1, 3, 8, 64])
@pytest.mark.parametrize("nlist", [1, 7, 200])
def test_with_all_lists_a_search_equals_counting_bits(tools, rng: random.Random, code_size: int, nlist: int) -> None:
    codes = tools.make_codes(rng, 200, code_size)
    lists = build(codes, nlist)
    assert lists.parameters == {"nlist": nlist, "nprobe": max(1, nlist // 20)}
    check(lists, truth_of(codes), tools, rng)
    queries = tools.make_codes(rng, 5, code_size)
    distances, _ = lists.nearest(queries, 10, ALL)
    assert distances.tolist() == [sorted(tools.distances(query, codes))[:10] for query in queries]


def test_with_few_lists_a_search_finds_those_of_the_nearest_centroids(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 300, 8)
    lists = build(codes, 20, nprobe=2)
    query = tools.make_codes(rng, 1, 8)
    for nprobe in (1, 5, 20):
        order = np.argsort(tools.distances(query, lists._centroids), kind="stable")
        last = tools.distances(query, lists._centroids)[order[nprobe - 1]]
        surely = [n for n in range(20) if tools.distances(query, lists._centroids)[n] < last]
        perhaps = [n for n in range(20) if tools.distances(query, lists._centroids)[n] <= last]
        _, rows = lists.nearest(query, 300, SearchParameters(nprobe=nprobe))
        found = set(rows[rows >= 0].tolist())
        assert found >= {row for n in surely for row in lists._views(n)[0].tolist()}
        assert found <= {row for n in perhaps for row in lists._views(n)[0].tolist()}
    assert (lists.nearest(query, 300, SearchParameters())[1] >= 0).sum() < 300


@pytest.mark.parametrize("which", ["first", "last", "both", "all of a list", "all", "none"])
def test_removal_wherever_a_pair_lies(tools, rng: random.Random, which: str) -> None:
    codes = tools.make_codes(rng, 120, 4)
    lists, truth = build(codes, 6), truth_of(codes)
    number = max(range(6), key=lambda n: len(lists._views(n)[0]))
    rows = lists._views(number)[0].copy()
    gone = {
        "first": rows[:1],
        "last": rows[-1:],
        "both": rows[[0, -1]],
        "all of a list": rows,
        "all": np.array(sorted(truth), dtype=np.int64),
        "none": rows[:0],
    }[which]
    unknown = np.array([10**6, -1, 0, FIRST_ROW - 1, *gone.tolist()[:1]], dtype=np.int64)
    assert lists.remove(np.concatenate([gone, unknown])) == len(gone)
    for row in gone.tolist():
        del truth[row]
    check(lists, truth, tools, rng)
    assert lists.remove(gone) == 0
    back = tools.make_codes(rng, len(gone), 4)
    lists.add(gone + 1000, back, np.full(len(gone), number, dtype=np.int64))
    truth.update(as_truth(gone + 1000, back))
    check(lists, truth, tools, rng)


def test_adding_and_removing_at_random_keeps_the_right_pairs(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 50, 2)
    lists, truth = build(codes, 5), truth_of(codes)
    last_row = max(truth)
    for _ in range(150):
        if rng.random() < 0.5 and truth:
            gone = rng.sample(sorted(truth), min(len(truth), rng.choice([1, 2, 30])))
            assert lists.remove(np.array(gone, dtype=np.int64)) == len(gone)
            for row in gone:
                del truth[row]
        else:
            count = rng.choice([0, 1, 3, 25])
            rows = np.arange(last_row + 3, last_row + 3 + count, dtype=np.int64)
            last_row += 5000  # over the borders of the row map's pages
            new = tools.make_codes(rng, count, 2)
            lists.add(rows, new, np.array([rng.randrange(5) for _ in range(count)], dtype=np.int64))
            truth.update(as_truth(rows, new))
        check(lists, truth, tools, rng)


def test_reading_passes_over_what_is_not_there(tools, rng: random.Random) -> None:
    codes = tools.make_codes(rng, 60, 4)
    lists, truth = build(codes, 4), truth_of(codes)
    rows = np.array([FIRST_ROW + 3, 10**7, FIRST_ROW + 59, -1, FIRST_ROW], dtype=np.int64)
    assert as_truth(*lists.read(rows)) == {row: truth[row] for row in (FIRST_ROW, FIRST_ROW + 3, FIRST_ROW + 59)}
    read_rows, read_codes = lists.read(rows[1:2])
    assert (read_rows.shape, read_codes.shape) == ((0,), (0, 4))


def load(lists: InvertedLists, chunks: Iterable[Chunk], **facts: int) -> InvertedLists:
    return InvertedLists.load({**lists.facts, **facts}, chunks, lists.bits, None, 1)


@pytest.mark.parametrize("block", [1, 10, 10**6])
def test_loaded_lists_answer_as_those_that_were_written(tools, rng: random.Random, monkeypatch, block: int) -> None:
    monkeypatch.setattr("index_store.hamming.lists.BLOCK", block)
    codes = tools.make_codes(rng, 150, 8)
    lists, truth = build(codes, 9), truth_of(codes)
    lists.remove(lists._views(4)[0].copy())  # an empty list
    truth = {row: code for row, code in truth.items() if lists._places.get(np.array([row]))[0] >= 0}
    loaded = load(lists, lists.chunks())
    check(loaded, truth, tools, rng)
    assert loaded.facts == lists.facts
    queries = tools.make_codes(rng, 20, 8)
    for nprobe in (1, 3):
        tuned = SearchParameters(nprobe=nprobe)
        assert loaded.nearest(queries, 150, tuned)[0].tolist() == lists.nearest(queries, 150, tuned)[0].tolist()


def test_what_stays_during_a_walk_comes_once_and_no_chunk_is_much_longer_than_a_block(
    tools, rng: random.Random, monkeypatch
) -> None:
    monkeypatch.setattr("index_store.hamming.lists.BLOCK", 10)
    for _ in range(30):
        codes = tools.make_codes(rng, 200, 2)
        lists, truth = build(codes, 4), truth_of(codes)
        walked: list[int] = []
        for chunk in lists.chunks():
            if chunk.kind == "centroids":
                continue
            assert len(chunk.columns[0]) <= 10
            part = as_truth(*chunk.columns[:2])
            assert part.items() <= truth_of(codes).items()
            walked += part
            gone = rng.sample(sorted(truth), min(len(truth), rng.choice([0, 1, 4])))
            lists.remove(np.array(gone, dtype=np.int64))
            for row in gone:
                del truth[row]
        assert len(set(walked)) == len(walked)
        assert set(walked) >= truth.keys()


def centroids_are_missing(chunks: list[Chunk]) -> list[Chunk]:
    return chunks[1:]


def nothing_came(chunks: list[Chunk]) -> list[Chunk]:
    return []


def a_centroid_is_missing(chunks: list[Chunk]) -> list[Chunk]:
    return [Chunk("centroids", (chunks[0].columns[0][1:],)), *chunks[1:]]


def there_is_a_graph(chunks: list[Chunk]) -> list[Chunk]:
    return [*chunks, Chunk("links", (np.zeros(3, dtype=np.int32),))]


def centroids_come_twice(chunks: list[Chunk]) -> list[Chunk]:
    return [chunks[0], *chunks]


def a_pair_is_in_no_list(chunks: list[Chunk]) -> list[Chunk]:
    rows, codes, lists = chunks[1].columns
    return [chunks[0], Chunk("lists", (rows, codes, lists + 5))]


def a_pair_is_in_a_negative_list(chunks: list[Chunk]) -> list[Chunk]:
    rows, codes, lists = chunks[1].columns
    return [chunks[0], Chunk("lists", (rows, codes, lists - 1))]


@pytest.mark.parametrize(
    "spoil",
    [
        centroids_are_missing,
        nothing_came,
        a_centroid_is_missing,
        there_is_a_graph,
        centroids_come_twice,
        a_pair_is_in_no_list,
        a_pair_is_in_a_negative_list,
    ],
)
def test_impossible_chunks_are_refused(tools, rng: random.Random, spoil) -> None:
    lists = build(tools.make_codes(rng, 60, 4), 5)
    with pytest.raises(CorruptSnapshot):
        load(lists, spoil(list(lists.chunks())))


def test_centroids_of_another_length_are_refused(tools, rng: random.Random) -> None:
    lists = build(tools.make_codes(rng, 60, 4), 5)
    with pytest.raises(CorruptSnapshot, match="length"):
        InvertedLists.load(lists.facts, lists.chunks(), 64, None, 1)


@pytest.mark.parametrize(
    ("items", "nlist"),
    [(1, 1), (7, 1), (8, 1), (15, 1), (16, 2), (4096, 512), (40_000, 5000), (40_001, 800), (10**6, 4000)],
)
def test_how_many_lists_suit(items: int, nlist: int) -> None:
    assert choose_nlist(items) == nlist


def test_lists_are_worn_when_the_gallery_outgrew_them_either_way(tools, rng: random.Random) -> None:
    lists = build(tools.make_codes(rng, 40, 4), 5)
    assert lists.worn() is None
    lists.remove(np.arange(FIRST_ROW, FIRST_ROW + 30, dtype=np.int64))
    assert lists.worn() is None
    lists.remove(np.array([FIRST_ROW + 30], dtype=np.int64))
    assert lists.worn() == "the lists were trained for 40 items, 9 are in them"
    rows = np.arange(1000, 1151, dtype=np.int64)
    lists.add(rows, tools.make_codes(rng, 151, 4), np.zeros(151, dtype=np.int64))
    assert lists.worn() is None
    lists.add(rows[:1] + 999, tools.make_codes(rng, 1, 4), np.zeros(1, dtype=np.int64))
    assert "161 are in them" in lists.worn()


def test_equal_codes_fill_one_list(tools, rng: random.Random) -> None:
    codes = np.zeros((300, 8), dtype=np.uint8)
    lists = build(codes, 20)
    assert sorted(len(lists._views(number)[0]) for number in range(20)) == [0] * 19 + [300]
    check(lists, truth_of(codes), tools, rng)


def test_building_ends_when_it_is_to_and_tells_its_progress(tools, rng: random.Random) -> None:
    pairs = Segments(64, 1)
    pairs.append(np.arange(200, dtype=np.int64), tools.make_codes(rng, 200, 8))
    told: list[float] = []
    InvertedLists.build(pairs, 10, None, 1, Work(1, lambda: None, told.append))
    assert told == sorted(told)
    assert told[-1] == 1

    calls = 0

    def stop_at_last() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise GalleryClosed

    with pytest.raises(GalleryClosed):
        InvertedLists.build(pairs, 10, None, 1, Work(1, stop_at_last))
