"""The room that a gallery leaves on its disk: what grows it is refused while there is still some."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from index_store import DiskFull, GalleryStore, Item, ItemExists, open_gallery

EVERYTHING = 2**62  # no disk has so much
RESERVE = 2**30
CODE = bytes(range(8))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    rng = random.Random(1)
    with open_gallery(tmp_path, 64) as store:
        store.add([Item(f"i{number}", "old", rng.randbytes(8)) for number in range(50)])
    return tmp_path


@pytest.fixture
def store(filled: Path) -> Iterator[GalleryStore]:
    with open_gallery(filled, min_free_bytes=EVERYTHING) as store:
        yield store


def test_nothing_grows_where_the_reserve_is_touched(store: GalleryStore) -> None:
    for grow in (
        lambda: store.add([Item(None, "new", CODE)]),
        lambda: store.add_each([Item(None, "new", CODE)]),
        lambda: store.replace(Item("i1", "new", CODE)),
        lambda: store.rebuild("Flat"),
        store.snapshot,
        lambda: store.recode([], 64, "other"),
        store.check_room,
    ):
        with pytest.raises(DiskFull, match=r"kept free.*free some"):
            grow()
    assert len(store) == 50
    assert store.get("i1").label == "old"


def test_searches_and_removals_go_on(store: GalleryStore, filled: Path) -> None:
    assert len(store.search(as_codes(CODE), 64, 100)[0].matches) == 50
    assert store.remove(["i1", "i2"]) == 2
    assert store.add_each([], "add") == []
    assert store.add_each([Item("i3", "taken", CODE)])[0].id == "i3"  # refused for what it is, not for the disk
    store.check_writable()
    assert store.remove_label("old") == 48
    assert store.free_bytes() > 0
    store.close()  # without a snapshot
    with open_gallery(filled) as again:
        assert len(again) == 0
        again.add([Item(None, "new", CODE)])


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how many bytes the system calls free: those of a real disk change while others use it."""

    def say(count: int) -> None:
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=count, f_frsize=1))

    return say


def test_what_would_be_written_counts(filled: Path, free: Callable[[int], None]) -> None:
    free(RESERVE + 4 * 2**20)
    metadata = {"text": "x" * 60_000}
    with open_gallery(filled, min_free_bytes=RESERVE) as store:
        with pytest.raises(DiskFull):
            store.add([Item(None, "big", CODE, metadata) for _ in range(500)])
        assert len(store) == 50
        store.add([Item(None, "big", CODE, metadata) for _ in range(30)])


def test_a_recoding_counts_the_catalog_that_it_writes_anew(tmp_path: Path, free: Callable[[int], None]) -> None:
    with open_gallery(tmp_path, 64) as store:
        store.add([Item(None, "x", CODE, {"text": "x" * 1000}) for _ in range(5000)])

    def recode(room: int) -> int:
        free(RESERVE + room)
        with open_gallery(tmp_path, min_free_bytes=RESERVE) as store:
            return store.recode(((item.id, CODE) for item in store.in_order()), 64, "other")

    with pytest.raises(DiskFull):
        recode(5 * 2**20)
    assert recode(8 * 2**20) == 5000


def test_the_index_on_codes_counts(filled: Path, free: Callable[[int], None]) -> None:
    free(RESERVE + 1000)
    with open_gallery(filled, min_free_bytes=RESERVE) as store:
        with pytest.raises(DiskFull):
            store.add([Item("i1", "there is one of this id", CODE)], on_duplicate="reject")
        free(RESERVE + 10_000)
        with pytest.raises(ItemExists):
            store.add([Item("i1", "there is one of this id", CODE)], on_duplicate="reject")
        free(0)
        with pytest.raises(ItemExists):  # for what it is: the index has been made
            store.add([Item("i1", "there is one of this id", CODE)], on_duplicate="reject")


def test_a_disk_never_fills_up(folder: Path, mount) -> None:
    # SQLite's log takes up to 32 MB before it is worked into the catalog, which then grows by as much.
    reserve = 72 * 2**20
    mount(folder, "-t", "tmpfs", "-o", f"size={reserve + 24 * 2**20}", "tmpfs")
    metadata = {"text": "x" * 50_000}
    with open_gallery(folder, 64, min_free_bytes=reserve) as store:
        with pytest.raises(DiskFull):
            while True:
                store.add([Item(None, "x", CODE, metadata) for _ in range(20)])
        assert reserve - 2 * 2**20 < store.free_bytes() < reserve + 3 * 2**20
        stored = len(store)
        assert stored > 100
        ids = [item.id for item in store.list(limit=stored).items]
        for item_id in ids:
            assert store.remove([item_id]) == 1
        assert len(store) == 0


def as_codes(code: bytes):
    import numpy as np

    return np.frombuffer(code, np.uint8).reshape(1, -1)
