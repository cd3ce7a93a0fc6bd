"""A structure and the recent pairs beside it against plain counting of bits."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from index_store import GalleryClosed, IndexOptions
from index_store.hamming import HammingIndex, Segments, Work, build, load
from index_store.locks import ReadWriteLock

WORK = Work(1, lambda: None)
OPTIONS = IndexOptions(nprobe=10**6, ef_search=4096)
both_kinds = pytest.mark.parametrize("kind", ["IVF", "HNSW32"])


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("flat", "lists", "graph"):
        monkeypatch.setattr(f"index_store.hamming.{module}.BLOCK", 10)
    monkeypatch.setattr("index_store.hamming.graph._LINKS_AT_ONCE", 1000)
    monkeypatch.setattr("index_store.hamming.graph._LEAST_BATCH", 5)
    monkeypatch.setattr("index_store.hamming.lists._LOCKED_AT_ONCE", 5)
    monkeypatch.setattr("index_store.hamming.layered._LEAST_FOLD", 20)


class Life:
    """An index and what it must hold, {row: code}."""

    def __init__(self, kind: str, codes: np.ndarray, tools, rng: random.Random) -> None:
        self.tools, self.rng, self.size = tools, rng, codes.shape[1]
        self.truth: dict[int, bytes] = {}
        self.last_row = 0
        rows = self.note(codes)
        pairs = Segments(self.size * 8, 1)
        pairs.append(rows, codes)
        self.index: HammingIndex = build(kind, pairs, 2, OPTIONS, WORK)
        assert self.index.method == kind

    def note(self, codes: np.ndarray) -> np.ndarray:
        rows = np.arange(self.last_row + 1, self.last_row + 1 + len(codes), dtype=np.int64)
        self.truth.update(zip(rows.tolist(), (code.tobytes() for code in codes), strict=True))
        self.last_row += len(codes)
        return rows

    def add(self, codes: np.ndarray) -> None:
        self.index.add(self.note(codes), codes)

    def add_random(self, count: int) -> None:
        self.add(self.tools.make_codes(self.rng, count, self.size))

    def remove_random(self, count: int) -> None:
        gone = self.rng.sample(sorted(self.truth), min(count, len(self.truth)))
        assert self.index.remove(np.array([*gone, -1, self.last_row + 1, *gone[:2]], dtype=np.int64)) == len(gone)
        for row in gone:
            del self.truth[row]

    def fold(self, work: Work = WORK) -> None:
        self.index.fold(ReadWriteLock(), work)

    def pairs(self, query: np.ndarray) -> list[tuple[int, int]]:
        return [(self.tools.popcount(query.tobytes(), code), row) for row, code in self.truth.items()]

    def check(self, top_ks: tuple[int, ...] = (1, 10, 1000)) -> None:
        """Everything is found, also by selection, and the nearest outside."""
        assert len(self.index) == len(self.truth)
        query = self.tools.make_codes(self.rng, 1, self.size)
        pairs = self.pairs(query[0])
        some = self.rng.sample(sorted(self.truth), len(self.truth) // 3)
        among = self.index.select(np.array([*some, self.last_row + 5], dtype=np.int64))
        assert among.missing == 1
        chosen = [pair for pair in pairs if pair[1] in set(some)]
        for radius in (0, self.size * 3, self.size * 8):
            for top_k in top_ks:
                (hits,) = self.index.search(query, radius, top_k)
                self.tools.check_hits(hits, pairs, radius, top_k)
                (hits,) = self.index.search(query, radius, top_k, among)
                self.tools.check_hits(hits, chosen, radius, top_k)
            for selection, candidates in ((None, pairs), (among, chosen)):
                (hits,) = self.index.nearest_outside(query, radius, selection)
                nearest = min((d for d, _ in candidates if d > radius), default=None)
                assert sorted(hits.rows.tolist()) == sorted(row for d, row in candidates if d == nearest)
                assert set(hits.distances.tolist()) <= {nearest}


@pytest.fixture
def live(tools, rng: random.Random) -> Callable[..., Life]:
    def make(kind: str, count: int = 100, code_size: int = 8) -> Life:
        return Life(kind, tools.make_codes(rng, count, code_size), tools, rng)

    return make


@both_kinds
def test_recent_pairs_and_those_of_the_structure_are_one_index(live, kind: str) -> None:
    life = live(kind)
    life.check()
    for recent in (1, 15, 60):
        life.add_random(recent)
        life.check()
        life.remove_random(25)
        life.check()
        assert life.index.recent > 0
        life.fold()
        assert life.index.recent == 0
        life.check()
    while life.truth:
        life.remove_random(17)
        life.check()
    life.fold()
    life.check()
    life.add_random(3)
    life.check()


@both_kinds
def test_a_fold_is_due_when_recent_pairs_cost_a_search_something(live, kind: str, monkeypatch) -> None:
    life = live(kind, 1100)
    life.add_random(21)
    assert not life.index.fold_is_due()  # a fiftieth of 1100 is more
    life.add_random(1)
    assert life.index.fold_is_due()
    life.fold()
    assert not life.index.fold_is_due()
    assert life.index.recent == 0


@both_kinds
def test_pairs_that_come_and_go_while_others_are_folded_in(live, kind: str) -> None:
    """Each look whether to go on is a moment at which others write."""
    life = live(kind, 60)

    def change() -> None:
        life.add_random(2)
        life.remove_random(4)
        life.check((5,))

    for _ in range(4):
        life.add_random(30)
        life.fold(Work(1, change))
        life.check()
        assert life.index.recent > 0  # what came meanwhile
    life.fold()
    assert life.index.recent == 0
    life.check()


@both_kinds
def test_what_is_removed_during_a_fold_stays_removed_in_another_one(live, kind: str) -> None:
    life = live(kind, 60)
    recent: list[int] = []

    def remove_some_recent_and_some_old() -> None:
        gone = [row for row in recent if row in life.truth][-2:] + sorted(life.truth)[:1]
        assert life.index.remove(np.array(gone, dtype=np.int64)) == len(gone)
        for row in gone:
            del life.truth[row]

    for _ in range(3):
        life.add_random(25)
        recent[:] = range(life.last_row - 24, life.last_row + 1)
        life.fold(Work(1, remove_some_recent_and_some_old))
        assert life.index.recent == 0
        life.check()


@both_kinds
def test_a_fold_that_ends_early_loses_nothing(live, kind: str) -> None:
    for last_look in range(1, 6):
        life = live(kind, 50)
        life.add_random(40)
        looks: list[int] = []

        def stop(looks: list[int] = looks, last_look: int = last_look) -> None:
            looks.append(1)
            if len(looks) == last_look:
                raise GalleryClosed

        with pytest.raises(GalleryClosed):
            life.fold(Work(1, stop))
        assert life.index.recent > 0
        life.check()
        life.fold()
        life.check()


@both_kinds
def test_searches_beside_a_fold_see_every_pair_once(live, kind: str, tools, rng: random.Random) -> None:
    life, lock = live(kind, 200), ReadWriteLock()
    query = tools.make_codes(rng, 1, 8)
    done = threading.Event()
    errors: list[BaseException] = []
    searches: list[int] = []

    def search() -> None:
        try:
            while not done.is_set():
                with lock.read():
                    (hits,) = life.index.search(query, 64, 10_000)
                assert hits.distances.tolist() == sorted(hits.distances.tolist())
                assert sorted(hits.rows.tolist()) == sorted(life.truth)
                searches.append(1)
        except BaseException as error:
            errors.append(error)

    def wait_for_a_search() -> None:
        seen, deadline = len(searches), time.monotonic() + 60
        while len(searches) == seen and not errors:
            assert time.monotonic() < deadline
            time.sleep(0.0001)

    life.add_random(300)
    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        life.index.fold(lock, Work(1, wait_for_a_search))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert life.index.recent == 0


def test_ties_at_the_last_place_are_all_given(live, tools) -> None:
    """In the lists, among the recent pairs, and in both."""
    life = live("IVF", 30, 2)
    for folded, recent in ((200, 0), (0, 200), (150, 150), (0, 1)):
        life.add(np.zeros((folded, 2), dtype=np.uint8))
        life.fold()
        life.add(np.zeros((recent, 2), dtype=np.uint8))
        query = np.zeros((1, 2), dtype=np.uint8)
        for top_k in (1, 3, 100, 201, 599, 2000):
            for radius in (0, 3, 16):
                (hits,) = life.index.search(query, radius, top_k)
                tools.check_hits(hits, life.pairs(query[0]), radius, top_k)


@both_kinds
def test_ties_beyond_all_bounds_stay_open_and_say_so(live, kind: str, monkeypatch) -> None:
    monkeypatch.setattr("index_store.hamming.layered._MOST_NEIGHBOURS", 100)
    life = live(kind, 20, 8)
    life.add(np.zeros((500, 8), dtype=np.uint8))
    life.fold()
    query = np.zeros((1, 8), dtype=np.uint8)
    (hits,) = life.index.search(query, 5, 3)
    assert hits.truncated
    assert len(hits.rows) > 3
    assert set(hits.distances.tolist()) == {0}
    assert set(hits.rows.tolist()) <= set(range(21, 521))
    (hits,) = life.index.search(query, 5, 499)  # what is asked for outright is given
    assert hits.truncated or kind == "HNSW32"
    if kind == "IVF":
        assert len(hits.rows) == 500
    (hits,) = life.index.nearest_outside(query, 5)  # the bound is met by what lies inside
    assert hits.rows.tolist() == []
    life.add(np.full((1, 8), 1, dtype=np.uint8))
    (hits,) = life.index.nearest_outside(query, 5)
    assert hits.rows.tolist() == [521]


def test_the_bound_is_not_met_by_one_less(live, tools, monkeypatch) -> None:
    monkeypatch.setattr("index_store.hamming.layered._MOST_NEIGHBOURS", 1024)
    life = live("IVF", 10, 8)
    life.add(np.zeros((1000, 8), dtype=np.uint8))
    life.fold()
    query = np.zeros((1, 8), dtype=np.uint8)
    (hits,) = life.index.search(query, 5, 3)
    tools.check_hits(hits, life.pairs(query[0]), 5, 3)
    (hits,) = life.index.nearest_outside(query, 5)
    nearest = min(d for d, _ in life.pairs(query[0]) if d > 5)
    assert sorted(hits.rows.tolist()) == sorted(row for d, row in life.pairs(query[0]) if d == nearest)


@both_kinds
def test_a_walk_during_which_pairs_come_and_go_makes_the_same_index_again(live, kind: str) -> None:
    for _ in range(5):
        life = live(kind, 120)
        life.add_random(45)
        life.remove_random(15)
        at_start, last_row = dict(life.truth), life.last_row
        export, chunks = life.index.export(), []
        while (chunk := export.next_chunk()) is not None:
            chunks.append(chunk)
            life.add_random(1)
            life.remove_random(2)
        export.close()
        loaded = load(kind, export.facts, chunks, 64, 1, OPTIONS)
        late = [row for row in life.truth if row > last_row]
        loaded.remove(np.array([*(at_start.keys() - life.truth.keys()), *range(last_row + 1, life.last_row + 1)]))
        codes = b"".join(life.truth[row] for row in late)
        loaded.add(np.array(late, dtype=np.int64), np.frombuffer(codes, dtype=np.uint8).reshape(-1, 8))
        life.index = loaded
        life.check()
        life.fold()
        life.check()
        assert life.index.recent == 0


@both_kinds
def test_a_long_random_life(live, kind: str, tools) -> None:
    life = live(kind, 40)
    for _ in range(60):
        step = life.rng.randrange(5)
        if step < 2:
            life.add_random(life.rng.choice([1, 2, 20]))
        elif step < 4:
            life.remove_random(life.rng.choice([1, 5, 30]))
        elif life.rng.random() < 0.5:
            life.fold()
        else:
            export, chunks = life.index.export(), []
            while (chunk := export.next_chunk()) is not None:
                chunks.append(chunk)
            export.close()
            life.index = load(kind, export.facts, chunks, 64, 1, OPTIONS)
        life.check((3, 500))


def test_an_index_searched_for_nothing_gives_nothing(live) -> None:
    for kind in ("IVF", "HNSW32"):
        life = live(kind)
        assert life.index.search(np.empty((0, 8), dtype=np.uint8), 64, 3) == []
        assert life.index.nearest_outside(np.empty((0, 8), dtype=np.uint8), 64) == []
        nobody = life.index.select(np.array([10**6], dtype=np.int64))
        assert nobody.missing == 1
        (hits,) = life.index.search(np.zeros((1, 8), dtype=np.uint8), 64, 3, nobody)
        assert (hits.rows.tolist(), hits.truncated) == ([], False)
        (hits,) = life.index.nearest_outside(np.zeros((1, 8), dtype=np.uint8), 0, nobody)
        assert hits.rows.tolist() == []
