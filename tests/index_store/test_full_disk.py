"""A disk without room during everything that a store does with each kind of index."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index_store import DiskFull, GalleryStore, Item

CODE = bytes(range(8))
SNAPSHOT = "index.snapshot"
FILES = {"catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm", SNAPSHOT, "lock", "ballast"}


def fill(store: GalleryStore, rng: random.Random, count: int) -> list[Item]:
    return store.add([Item(None, f"label {rng.randrange(5)}", rng.randbytes(8)) for _ in range(count)])


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Disk:
    """A small disk that can be filled to the last byte."""

    def __init__(self, folder: Path) -> None:
        self.ballast = folder / "ballast"

    def fill_up(self) -> None:
        with self.ballast.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self.ballast.unlink()


@pytest.fixture
def disk(folder: Path, mount) -> Disk:
    mount(folder, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    return Disk(folder)


@pytest.fixture
def oracle(tools):
    return tools.Oracle()


@pytest.fixture
def store(open_store, disk: Disk, oracle, tools, rng: random.Random, folder: Path) -> Iterator[GalleryStore]:
    """A gallery that is snapshotted, with recent items, on a full disk; at the end everything is still there."""
    store = open_store()
    oracle.put(*fill(store, rng, 300))
    tools.settle(store)
    store.snapshot()
    oracle.put(*fill(store, rng, 30))
    disk.fill_up()
    yield store
    store = open_store(method=None) if store._live._closed else store
    assert {path.name for path in folder.iterdir()} <= FILES
    oracle.check(store, [CODE, rng.randbytes(8)])
    disk.make_room()
    store.check_writable()
    oracle.put(*fill(store, rng, 60))
    oracle.check(store, [CODE])
    wait_until(lambda: store.background_error is None)
    store.close()
    with open_store(method=None) as again:
        oracle.check(again, [CODE])


@pytest.mark.every_method
def test_nothing_of_a_change_is_stored(store: GalleryStore, oracle, rng: random.Random) -> None:
    with pytest.raises(DiskFull):
        for _ in range(1000):  # the log may have some room left
            oracle.put(*fill(store, rng, 10))
    oracle.check_search(store, [CODE], 64, 5000)
    some = sorted(oracle.items)[:200]
    with pytest.raises(DiskFull):
        store.remove(some)
    with pytest.raises(DiskFull):
        for item_id in some:
            oracle.put(store.replace(Item(item_id, "replaced", rng.randbytes(8), {"a": "x" * 5000})))
    oracle.check(store, [CODE])
    assert store.background_error is None


@pytest.mark.every_method
def test_a_snapshot_is_refused_and_the_old_one_stays(store: GalleryStore, folder: Path, disk: Disk) -> None:
    before = (folder / SNAPSHOT).read_bytes()
    for _ in range(2):
        with pytest.raises(DiskFull):
            store.snapshot()
        assert (folder / SNAPSHOT).read_bytes() == before
    disk.make_room()
    store.snapshot()
    assert (folder / SNAPSHOT).read_bytes() != before
    disk.fill_up()


@pytest.mark.every_method
@pytest.mark.parametrize("other", ["Flat", "IVF", "HNSW32"])
def test_a_rebuild_that_needs_no_room_succeeds_and_one_that_does_changes_nothing(
    store: GalleryStore, tools, disk: Disk, method: str, other: str
) -> None:
    if other == method:  # nothing is to be remembered
        before = store._live.index
        store.rebuild(other)
        assert store._live.index is not before
    else:
        with pytest.raises(DiskFull):
            store.rebuild(other)
        assert (store.method, store.stats().serving) == (method, method)
        disk.make_room()
        store.rebuild(other)
        disk.fill_up()
    assert (store.method, store.stats().serving) == (other, other)
    assert store.stats().rebuild_progress is None


@pytest.mark.parametrize("method", ["IVF", "HNSW32"])
def test_folds_and_switches_in_the_background_need_no_room(
    store: GalleryStore, oracle, tools, monkeypatch, method: str
) -> None:
    assert store.stats().recent == 30
    monkeypatch.setattr("index_store.hamming.layered._LEAST_FOLD", 10)
    store._live._wake_if_due()
    wait_until(lambda: store.stats().recent == 0)
    oracle.check(store, [CODE])
    store._live._stale = True  # as if the index had not followed a change: it is made anew, as a Flat one at first
    oracle.check_search(store, [CODE], 64, 5000)
    tools.settle(store)
    assert store.stats().serving == method
    assert store.background_error is None


@pytest.mark.every_method
def test_a_snapshot_in_the_background_is_told_and_tried_until_there_is_room(
    store: GalleryStore, oracle, folder: Path, disk: Disk, rng: random.Random
) -> None:
    before = (folder / SNAPSHOT).read_bytes()
    store._live._changes = 50_000
    store._live._wake_if_due()
    wait_until(lambda: store.background_error is not None)
    assert isinstance(store.background_error, DiskFull)
    oracle.check_search(store, [CODE], 64, 5000)
    oracle.check_search(store, [CODE], 64, 5000, "label 1")
    disk.make_room()
    oracle.put(*fill(store, rng, 5))
    wait_until(lambda: store.background_error is None)
    assert (folder / SNAPSHOT).read_bytes() != before
    disk.fill_up()


@pytest.mark.parametrize("method", ["IVF", "HNSW32"])
def test_another_method_at_opening_is_refused_and_the_old_one_still_opens(
    open_store, store: GalleryStore, oracle, method: str
) -> None:
    store.close()
    with pytest.raises(DiskFull):
        open_store(method="auto")
    with open_store() as again:
        oracle.check(again, [CODE])
        assert again.method == method
