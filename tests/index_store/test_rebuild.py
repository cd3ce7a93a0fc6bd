"""An index that is built while others search and write, or while the store is closed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from index_store import GalleryClosed, GalleryStore, Item

CODE = bytes(range(8))
BUILT = ["IVF", "HNSW32"]


def fill(store: GalleryStore, rng: random.Random, count: int) -> list[Item]:
    return store.add([Item(None, f"label {rng.randrange(5)}", rng.randbytes(8)) for _ in range(count)])


class Beside:
    """Calls that are made again and again in threads of their own until the block ends."""

    def __init__(self, *calls: Callable[[], None]) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.counts = [0] * len(calls)
        self.threads = [threading.Thread(target=self.repeat, args=each) for each in enumerate(calls)]

    def repeat(self, number: int, call: Callable[[], None]) -> None:
        try:
            while not self.stop.is_set():
                call()
                self.counts[number] += 1
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> Beside:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert self.errors == []


SWITCHES = ["Flat", "IVF", "HNSW32", "IVF", "Flat", "HNSW32", "Flat"]


@pytest.mark.parametrize(("before", "after"), list(pairwise(SWITCHES)))
def test_searches_and_writes_go_on_while_another_kind_is_built(
    open_store, tools, rng: random.Random, before: str, after: str
) -> None:
    oracle, writes = tools.Oracle(), tools.Oracle()
    store = open_store(method=before)
    oracle.put(*store.add([Item(f"stay-{n}", "stay", rng.randbytes(8)) for n in range(1500)]))
    tools.settle(store)
    graph = "HNSW32" in (before, after)
    mine, other = random.Random(1), random.Random(2)
    during: set[float | None] = set()

    def search() -> None:
        code = other.choice(list(oracle.items.values())).code
        label = other.choice([None, "stay"])
        (result,) = store.search(tools.as_codes([code]), 64, 3000, label)
        found = [(match.distance, match.id) for match in result.matches if match.id in oracle.items]
        assert len({match.id for match in result.matches}) == len(result.matches)
        if graph and label is None:
            assert set(found) <= set(oracle.ranked(code))
        else:
            assert found == oracle.ranked(code)
        during.add(store.stats().rebuild_progress)

    def write() -> None:
        (item,) = store.add([Item(None, "own", mine.randbytes(8))])
        writes.put(item)
        (result,) = store.search(tools.as_codes([item.code]), 0, 10, "own")
        assert item.id in [match.id for match in result.matches]
        if len(writes.items) > 30:
            gone = mine.choice(sorted(writes.items))
            code = writes.items.pop(gone).code
            store.remove([gone])
            (result,) = store.search(tools.as_codes([code]), 64, 3000)
            assert gone not in [match.id for match in result.matches]
        if len(writes.items) > 5:
            new = store.replace(Item(mine.choice(sorted(writes.items)), "own", mine.randbytes(8)))
            writes.put(new)

    last_waited = -1.0

    def wait_for_others(part: float) -> None:
        nonlocal last_waited
        if part < min(1.0, last_waited + 0.15):
            return
        last_waited = part
        counts = list(beside.counts)
        deadline = time.monotonic() + 60
        while any(now - then < 2 for now, then in zip(beside.counts, counts, strict=True)):
            assert time.monotonic() < deadline
            assert beside.errors == []
            time.sleep(0.001)

    with Beside(search, write) as beside:
        store.rebuild(after, wait_for_others)
    assert {0.0, 1.0} <= during
    assert store.stats().serving == store.method == after
    oracle.put(*writes.items.values())
    oracle.check(store, [CODE])


@pytest.mark.parametrize("built", BUILT)
def test_a_long_rebuild_ends_soon_when_the_store_is_closed(open_store, tools, rng: random.Random, built: str) -> None:
    oracle, outcome = tools.Oracle(), []
    store = open_store()
    oracle.put(*fill(store, rng, 3000))
    far = threading.Event()

    def progress(part: float) -> None:
        if part > 0.15:
            far.set()
            store._live._closing.wait(20)  # closing begins in the midst of it, however fast the machine is

    def rebuild() -> None:
        try:
            store.rebuild(built, progress)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=rebuild)
    thread.start()
    assert far.wait(20)
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 10
    thread.join(10)
    assert [type(error) for error in outcome] == [GalleryClosed]
    with open_store(method=None) as store:
        assert store.method == "Flat"  # the one that was not finished is not remembered
        oracle.check(store, [CODE])


@pytest.mark.parametrize("built", BUILT)
def test_a_store_can_be_closed_while_the_background_builds(open_store, tools, rng, built: str, monkeypatch) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 1000))
    begun = threading.Event()
    build = {"IVF": "lists.InvertedLists", "HNSW32": "graph.Graph"}[built]

    def slow(self, *_: object) -> None:
        begun.set()
        while True:  # only the look whether to go on ends it
            time.sleep(0.001)
            _[-1].go_on()

    with monkeypatch.context() as patched:
        patched.setattr(f"index_store.hamming.{build}.build", classmethod(slow))
        store = open_store(method=built)
        assert begun.wait(20)
        oracle.check_search(store, [CODE], 64, 2000)
        oracle.put(*fill(store, rng, 10))
        assert store.stats().serving == "Flat"
        assert "until it is, Flat serves" in store.stats().reason
        assert store.stats().rebuild_progress is not None
        store.close()
        assert store.background_error is None
    with open_store(method=None) as store:
        assert store.method == built
        oracle.check(store, [CODE])
        assert store.stats().serving == built


@pytest.mark.parametrize("built", BUILT)
def test_a_rebuild_catches_up_with_everything_that_changed_meanwhile(open_store, tools, rng, built: str) -> None:
    oracle, store = tools.Oracle(), open_store()
    oracle.put(*fill(store, rng, 300))

    told: list[float] = []

    def change(part: float) -> None:
        """Write whenever a part of the catalog was read: a rebuild must not follow the writers for ever."""
        told.append(part)
        assert sum(each <= 0.1 for each in told) < 50
        if part > 0.1 and len(told) % 7:
            return
        oracle.put(*fill(store, rng, 7))
        oracle.put(store.replace(Item(rng.choice(sorted(oracle.items)), "replaced", rng.randbytes(8))))
        for item_id in rng.sample(sorted(oracle.items), 5):
            store.remove([item_id])
            del oracle.items[item_id]

    for method in (built, None, "Flat", "Flat", built):
        store.rebuild(method, change)
        oracle.check_search(store, [CODE], 64, 2000)
        oracle.check(store, [CODE])


@pytest.mark.parametrize("built", BUILT)
def test_a_gallery_that_is_emptied_during_a_rebuild_is_empty_after_it(open_store, tools, rng, built: str) -> None:
    oracle, store = tools.Oracle(), open_store()
    oracle.put(*fill(store, rng, 100))

    def empty(part: float) -> None:
        if part > 0:
            store.remove(oracle.items)
            oracle.items.clear()

    store.rebuild(built, empty)
    oracle.check(store, [CODE])
    tools.settle(store)
    assert store.stats().serving == "Flat"
    oracle.put(*fill(store, rng, 100))
    oracle.check(store, [CODE])
    assert store.stats().serving == built


@pytest.mark.parametrize("built", BUILT)
def test_too_little_memory_for_a_rebuild_changes_nothing(open_store, tools, rng, built: str, monkeypatch) -> None:
    from index_store import StorageUnavailable

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    oracle, store = tools.Oracle(), open_store()
    oracle.put(*fill(store, rng, 100))
    with monkeypatch.context() as short:
        short.setattr("index_store.live_index.build", fail)
        with pytest.raises(StorageUnavailable, match="memory"):
            store.rebuild(built)
    assert (store.method, store.stats().serving, store.stats().rebuild_progress) == ("Flat", "Flat", None)
    oracle.check(store, [CODE])
    store.rebuild(built)
    oracle.check(store, [CODE])


@pytest.mark.every_method
def test_a_gallery_that_sways_about_the_border_is_always_right(open_store, tools, rng, method: str) -> None:
    oracle, store = tools.Oracle(), open_store()
    for count in (10, 20, 9, 7, 30, 3, 0, 16):
        surplus = sorted(oracle.items)[count:]
        assert store.remove(surplus) == len(surplus)
        for item_id in surplus:
            del oracle.items[item_id]
        if len(oracle.items) < count:
            oracle.put(*fill(store, rng, count - len(oracle.items)))
        oracle.check_search(store, [CODE], 64, 100)
        oracle.check(store, [CODE])
    assert store.stats().serving == method
