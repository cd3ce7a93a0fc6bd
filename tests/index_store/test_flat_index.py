"""The Flat index against plain counting of bits, in segments so small that everything crosses them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from index_store.hamming import FlatIndex, Hits, RowMap


def make_codes(rng: random.Random, count: int, code_size: int, few_bits: bool = False) -> np.ndarray:
    """Random codes; with ``few_bits`` nearly equal ones, so that distances tie all the time."""
    codes = np.frombuffer(rng.randbytes(count * code_size), dtype=np.uint8).reshape(count, code_size).copy()
    if few_bits:
        codes[:, 1:] = 0
    return codes


def fill(codes: np.ndarray, segment_bytes: int, first_row: int = 1) -> FlatIndex:
    index = FlatIndex(codes.shape[1] * 8, threads=2, segment_bytes=segment_bytes)
    index.add(np.arange(first_row, first_row + len(codes), dtype=np.int64), codes)
    return index


def distances(query: np.ndarray, codes: np.ndarray) -> list[int]:
    return np.unpackbits(query ^ codes, axis=1).sum(axis=1, dtype=np.int64).tolist()


def check_hits(hits: Hits, pairs: list[tuple[int, int]], radius: int, top_k: int) -> None:
    """``pairs`` are (distance, row) of all that may be found."""
    within = sorted(pair for pair in pairs if pair[0] <= radius)
    found = list(zip(hits.distances.tolist(), hits.rows.tolist(), strict=True))
    assert [distance for distance, _ in found] == sorted(distance for distance, _ in found)
    assert len(set(found)) == len(found)
    assert set(found) <= set(within)
    assert hits.truncated == (len(within) > top_k)
    if hits.truncated:
        last = within[top_k - 1][0]
        assert set(found) >= {pair for pair in within if pair[0] <= last}
        assert len(found) > top_k
    else:
        assert sorted(found) == within


@pytest.mark.parametrize("code_size", [1, 3, 8, 16, 20, 32, 64, 100])
@pytest.mark.parametrize("few_bits", [False, True])
def test_search_equals_counting_bits(rng: random.Random, code_size: int, few_bits: bool) -> None:
    codes = make_codes(rng, 400, code_size, few_bits)
    queries = make_codes(rng, 5, code_size, few_bits)
    for segment_bytes in (code_size, 7 * code_size, 1 << 20):
        index = fill(codes, segment_bytes)
        for top_k in (1, 10, 350, 1000):
            for radius in (0, 2, code_size * 4, code_size * 8):
                results = index.search(queries, radius, top_k)
                for query, hits in zip(queries, results, strict=True):
                    pairs = [(d, row) for row, d in enumerate(distances(query, codes), 1)]
                    check_hits(hits, pairs, radius, top_k)


@pytest.mark.parametrize("segment_bytes", [3 * 2, 1 << 20])
def test_ties_beyond_what_is_asked_for_are_all_found(segment_bytes: int) -> None:
    codes = np.zeros((500, 2), dtype=np.uint8)
    codes[:20] = 0xFF
    (hits,) = fill(codes, segment_bytes).search(np.full((1, 2), 0xFF, dtype=np.uint8), 16, 25)
    assert sorted(hits.rows.tolist()) == list(range(1, 501))
    assert hits.truncated


@pytest.mark.parametrize("segment_bytes", [5 * 4, 1 << 20])
def test_selection_comes_before_top_k(rng: random.Random, segment_bytes: int) -> None:
    codes = make_codes(rng, 600, 4, few_bits=True)
    index = fill(codes, segment_bytes)
    query = make_codes(rng, 1, 4)
    for size in (0, 1, 30, 599):
        rows = rng.sample(range(1, 601), size)
        among = index.select(np.array([*rows, 5000], dtype=np.int64))
        assert among.missing == 1
        pairs = [(d, row) for row, d in enumerate(distances(query[0], codes), 1) if row in set(rows)]
        for top_k in (1, 20, 100):
            (hits,) = index.search(query, 32, top_k, among)
            check_hits(hits, pairs, 32, top_k)


@pytest.mark.parametrize("segment_bytes", [5 * 4, 1 << 20])
def test_nearest_outside_equals_counting_bits(rng: random.Random, segment_bytes: int) -> None:
    codes = make_codes(rng, 300, 4, few_bits=True)
    index = fill(codes, segment_bytes)
    query = make_codes(rng, 1, 4)
    rows = np.array(rng.sample(range(1, 301), 40), dtype=np.int64)
    for radius in range(33):
        for among in (None, index.select(rows)):
            (hits,) = index.nearest_outside(query, radius, among)
            pairs = [
                (d, row)
                for row, d in enumerate(distances(query[0], codes), 1)
                if d > radius and (among is None or row in rows)
            ]
            nearest = min(pairs, default=(None, None))[0]
            assert sorted(hits.rows.tolist()) == [row for d, row in pairs if d == nearest]
            assert set(hits.distances.tolist()) <= {nearest}


def test_large_searches_on_several_threads_equal_counting_bits(rng: random.Random) -> None:
    codes, queries = make_codes(rng, 40_000, 64), make_codes(rng, 16, 64)
    for segment_bytes in (30_000 * 64, 1 << 30):
        index = fill(codes, segment_bytes)
        for query, hits in zip(queries, index.search(queries, 230, 10), strict=True):
            pairs = [(d, row) for row, d in enumerate(distances(query, codes), 1)]
            check_hits(hits, pairs, 230, 10)


def test_an_empty_index_finds_nothing() -> None:
    index = FlatIndex(64, threads=1)
    query = np.zeros((2, 8), dtype=np.uint8)
    assert [len(hits.rows) for hits in index.search(query, 64, 10)] == [0, 0]
    assert [len(hits.rows) for hits in index.nearest_outside(query, 0)] == [0, 0]
    assert index.remove(np.array([1, 2], dtype=np.int64)) == 0
    assert index.search(np.empty((0, 8), dtype=np.uint8), 64, 10) == []


@pytest.mark.parametrize("segment_bytes", [8, 3 * 8, 1 << 20])
def test_adding_and_removing_at_random_keeps_the_right_pairs(rng: random.Random, segment_bytes: int) -> None:
    index = FlatIndex(64, threads=1, segment_bytes=segment_bytes)
    truth: dict[int, bytes] = {}
    last_row = 0
    for step in range(300):
        if rng.random() < 0.55:
            count = rng.choice([1, 1, 2, 30])
            # Rows leave gaps, as they do when transactions are taken back.
            rows = np.array([last_row + rng.randrange(1, 500) + 500 * n for n in range(count)], dtype=np.int64)
            last_row = int(rows[-1])
            codes = make_codes(rng, count, 8)
            index.add(rows, codes)
            truth.update(zip(rows.tolist(), (code.tobytes() for code in codes), strict=True))
        else:
            gone = rng.sample(sorted(truth), min(len(truth), rng.choice([1, 1, 5, 200])))
            unknown = [last_row + 7, -1] if step % 2 else []
            assert index.remove(np.array(gone + unknown + gone[:1], dtype=np.int64)) == len(gone)
            for row in gone:
                del truth[row]
        assert len(index) == len(truth)
        assert contents(index) == truth
        assert index.nbytes >= 0


def contents(index: FlatIndex) -> dict[int, bytes]:
    """What the index holds, found by searching for everything."""
    (hits,) = index.search(np.zeros((1, index.bits // 8), dtype=np.uint8), index.bits, len(index) + 1)
    rows = hits.rows.tolist()
    positions = index._positions.get(hits.rows)
    read, codes = index._pairs.read(np.sort(positions))
    assert sorted(read.tolist()) == sorted(rows)
    return dict(zip(read.tolist(), (code.tobytes() for code in codes), strict=True))


def test_an_export_loses_no_pair_that_moves_meanwhile(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_store.hamming.flat.BLOCK", 10)
    for _ in range(60):
        codes = make_codes(rng, 100, 2)
        index = fill(codes, 7 * 2)
        present = set(range(1, 101))
        export, last_row, exported = index.export(), 100, []
        while (chunk := export.next_chunk()) is not None:
            exported += [
                (row, code.tobytes()) for row, code in zip(chunk.columns[0].tolist(), chunk.columns[1], strict=True)
            ]
            gone = np.array(rng.sample(range(1, last_row + 1), rng.choice([0, 1, 5, 30])), dtype=np.int64)
            index.remove(gone)
            present -= set(gone.tolist())
            if rng.random() < 0.5:
                index.add(np.array([last_row + 1], dtype=np.int64), make_codes(rng, 1, 2))
                last_row += 1
        export.close()
        rows = [int(row) for row, _ in exported if row <= 100]
        assert set(rows) >= present
        assert len(rows) == len(set(rows))
        assert all(code == codes[row - 1].tobytes() for row, code in exported if row <= 100)
        assert index._exports == []


def test_a_row_map_forgets_pages_that_became_empty() -> None:
    rows = RowMap()
    many = np.arange(1, 50_001, dtype=np.int64)
    rows.put(many, many + 7)
    assert (rows.get(many) == many + 7).all()
    assert rows.get(np.array([0, 50_001, 10**9], dtype=np.int64)).tolist() == [-1, -1, -1]
    full = rows.nbytes
    assert full / 50_000 < 5
    rows.discard(many[:40_000])
    assert rows.nbytes < full / 2
    assert (rows.get(many[:40_000]) == -1).all()
    assert (rows.get(many[40_000:]) == many[40_000:] + 7).all()


def test_a_row_map_refuses_positions_that_it_cannot_hold() -> None:
    with pytest.raises(OverflowError):
        RowMap().put(np.array([1], dtype=np.int64), np.array([2**31], dtype=np.int64))
