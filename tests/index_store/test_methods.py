"""Which kind of index serves when, how each is made, and that a snapshot of each can be read as each."""

from __future__ import annotations

import random

import numpy as np
import pytest

from index_store import IndexOptions, InvalidQuery
from index_store.base import CorruptSnapshot
from index_store.hamming import Chunk, HammingIndex, Segments, Work, build, load, load_flat, make_index, plan

WORK = Work(1, lambda: None)
OPTIONS = IndexOptions(nlist=20, nprobe=20, ef_search=1000, ivf_from=100, hnsw_from=60, auto_from=1000)


@pytest.mark.parametrize(
    ("method", "items", "serving", "kind"),
    [
        ("Flat", 0, "Flat", "Flat"),
        ("Flat", 10**9, "IVF", "Flat"),
        ("Flat", 10**9, "HNSW32", "Flat"),
        ("IVF", 0, "Flat", "Flat"),
        ("IVF", 99, "Flat", "Flat"),
        ("IVF", 100, "Flat", "IVF"),
        ("IVF", 99, "IVF", "IVF"),
        ("IVF", 50, "IVF", "IVF"),
        ("IVF", 49, "IVF", "Flat"),
        ("IVF", 99, "HNSW32", "Flat"),
        ("IVF", 100, "HNSW32", "IVF"),
        ("HNSW32", 59, "IVF", "Flat"),
        ("HNSW32", 59, "Flat", "Flat"),
        ("HNSW32", 60, "Flat", "HNSW32"),
        ("HNSW32", 30, "HNSW32", "HNSW32"),
        ("HNSW32", 29, "HNSW32", "Flat"),
        ("HNSW32", 0, "HNSW32", "Flat"),
        ("auto", 999, "Flat", "Flat"),
        ("auto", 1000, "Flat", "IVF"),
        ("auto", 500, "IVF", "IVF"),
        ("auto", 499, "IVF", "Flat"),
        ("auto", 10**9, "HNSW32", "IVF"),
    ],
)
def test_the_kind_that_serves(method: str, items: int, serving: str, kind: str) -> None:
    assert plan(method, items, serving, OPTIONS).kind == kind


def test_more_lists_than_that_are_made_of_more_items() -> None:
    options = IndexOptions(nlist=500, ivf_from=100, auto_from=200)
    for method in ("IVF", "auto"):
        assert [plan(method, items, "Flat", options).kind for items in (499, 500)] == ["Flat", "IVF"]
        assert [plan(method, items, "IVF", options).kind for items in (249, 250)] == ["Flat", "IVF"]


def test_a_plan_says_why() -> None:
    options = IndexOptions()
    assert plan("Flat", 5, "Flat", options).reason == "Flat was chosen: exact, every code is compared"
    assert (
        plan("IVF", 5, "Flat", options).reason
        == "IVF was chosen; it is made from 4,096 items on, and until then every code is compared"
    )
    assert plan("HNSW32", 5000, "Flat", options).reason == "HNSW32 was chosen"
    assert "below 200,000 items" in plan("auto", 5, "Flat", options).reason
    assert "from 200,000 items on" in plan("auto", 10**6, "Flat", options).reason


def test_a_gallery_that_sways_about_the_border_keeps_its_kind() -> None:
    serving, kinds = "Flat", []
    for items in (90, 110, 95, 105, 60, 140, 51, 49, 99, 100):
        serving = plan("IVF", items, serving, OPTIONS).kind
        kinds.append(serving)
    assert kinds == ["Flat", *["IVF"] * 6, "Flat", "Flat", "IVF"]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "9", True])
@pytest.mark.parametrize(
    "name", ["nlist", "nprobe", "ef_construction", "ef_search", "ivf_from", "hnsw_from", "auto_from"]
)
def test_impossible_options_are_refused_by_name(name: str, wrong: object) -> None:
    with pytest.raises(InvalidQuery, match=name):
        IndexOptions(**{name: wrong})


def filled(tools, rng: random.Random, kind: str, count: int = 120) -> tuple[HammingIndex, dict[int, bytes]]:
    """An index with recent and removed pairs, and what is in it."""
    codes = tools.make_codes(rng, count + 30, 8)
    rows = np.arange(1, count + 31, dtype=np.int64)
    pairs = Segments(64, 1)
    pairs.append(rows[:count], codes[:count])
    index = build(kind, pairs, 1, OPTIONS, WORK)
    index.add(rows[count:], codes[count:])
    index.remove(rows[::9])
    truth = dict(zip(rows.tolist(), (code.tobytes() for code in codes), strict=True))
    return index, {row: code for row, code in truth.items() if (row - 1) % 9}


def check(index: HammingIndex, truth: dict[int, bytes], tools, rng: random.Random) -> None:
    assert len(index) == len(truth)
    query = tools.make_codes(rng, 1, 8)
    pairs = [(tools.popcount(query.tobytes(), code), row) for row, code in truth.items()]
    (hits,) = index.search(query, 64, 1000)
    tools.check_hits(hits, pairs, 64, 1000)


@pytest.mark.every_method
def test_an_index_is_of_the_kind_that_was_asked_for(tools, rng: random.Random, method: str) -> None:
    index, truth = filled(tools, rng, method)
    assert (index.method, index.bits) == (method, 64)
    assert index.nbytes >= len(truth) * 16
    assert index.recent == (0 if method == "Flat" else 27)
    check(index, truth, tools, rng)


@pytest.mark.every_method
def test_an_index_of_nothing_is_flat(method: str) -> None:
    assert build(method, Segments(64, 1), 1, OPTIONS, WORK).method == "Flat"
    assert make_index(64, 1).method == "Flat"


def test_fewer_pairs_than_lists_make_one_list_a_pair(tools, rng: random.Random) -> None:
    pairs = Segments(64, 1)
    codes = tools.make_codes(rng, 7, 8)
    pairs.append(np.arange(1, 8, dtype=np.int64), codes)
    index = build("IVF", pairs, 1, OPTIONS, WORK)
    assert index.parameters == {"nlist": 7, "nprobe": 7}
    check(index, {row: code.tobytes() for row, code in enumerate(codes, 1)}, tools, rng)


def chunks_of(index: HammingIndex) -> tuple[dict[str, int], list[Chunk]]:
    export, chunks = index.export(), []
    while (chunk := export.next_chunk()) is not None:
        chunks.append(chunk)
    export.close()
    return dict(export.facts), chunks


@pytest.mark.every_method
def test_a_snapshot_can_be_read_as_what_it_is_and_as_a_flat_index(tools, rng: random.Random, method: str) -> None:
    index, truth = filled(tools, rng, method)
    facts, chunks = chunks_of(index)
    loaded = load(method, facts, chunks, 64, 1, OPTIONS)
    assert (loaded.method, loaded.recent, loaded.parameters) == (method, index.recent, index.parameters)
    check(loaded, truth, tools, rng)
    flat = load_flat(chunks, 64, 1)
    assert flat.method == "Flat"
    check(flat, truth, tools, rng)


@pytest.mark.parametrize(
    ("written", "read"), [("IVF", "HNSW32"), ("HNSW32", "IVF"), ("Flat", "IVF"), ("Flat", "HNSW32")]
)
def test_one_kind_is_not_taken_for_another(tools, rng: random.Random, written: str, read: str) -> None:
    facts, chunks = chunks_of(filled(tools, rng, written)[0])
    with pytest.raises((CorruptSnapshot, KeyError)):
        load(read, facts, chunks, 64, 1, OPTIONS)
    other, _ = chunks_of(filled(tools, rng, read)[0])
    with pytest.raises(CorruptSnapshot):
        load(read, other, chunks, 64, 1, OPTIONS)
