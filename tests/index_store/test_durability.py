"""What is on disk: the write-ahead log, snapshots and how they age, one owner, disks that refuse."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_store import (
    DiskFull,
    GalleryLocked,
    GalleryStore,
    Item,
    StorageUnavailable,
    UnknownSchema,
    open_gallery,
)
from index_store.hamming import Chunk
from index_store.snapshot import SnapshotWriter

CODE = bytes(range(8))
SNAPSHOT = "index.snapshot"
CATALOG = "catalog.sqlite3"


def fill(store: GalleryStore, rng: random.Random, count: int) -> list[Item]:
    return store.add([Item(None, f"label {rng.randrange(5)}", rng.randbytes(8)) for _ in range(count)])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="index_store")
    return caplog


# Durability


def test_every_connection_syncs_each_commit_to_a_write_ahead_log(store: GalleryStore) -> None:
    # A killed process cannot tell FULL from NORMAL, only a power cut can; so the setting itself is checked.
    fill(store, random.Random(1), 3)
    catalog = store._catalog
    assert catalog._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert catalog._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with catalog._readers.borrow() as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_ids_rise_even_when_the_clock_steps_back(
    open_store: Callable[..., GalleryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_ns = 1_800_000_000_000_000_000
    monkeypatch.setattr("index_store.local.time.time_ns", lambda: clock_ns)
    ids = []
    store = open_store()
    for step_s in (0, 10, -86_400, 0, -(10**8), 3, 10**9):
        clock_ns += step_s * 10**9
        ids += [item.id for item in store.add([Item(None, "x", CODE)] * 3)]
        store.remove(ids[-1:])  # the last one was made, even if it is no longer there
        if step_s <= 0:
            store.close()
            store = open_store()
    assert ids == sorted(set(ids))


def test_ids_that_were_taken_by_hand_are_passed_over(
    open_store: Callable[..., GalleryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_store.local.time.time_ns", lambda: 1_800_000_000_000_000_000)
    monkeypatch.setattr("index_store.ids.random.getrandbits", lambda bits: 5)
    with open_store() as store:
        (first,) = store.add([Item(None, "x", CODE)])
        alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
        ahead = [first.id[:-1] + alphabet[alphabet.index(first.id[-1]) + step] for step in (1, 2, 4)]
        store.add([Item(ahead[1], "by hand", CODE)])
        items = store.add([Item(ahead[0], "by hand", CODE)] + [Item(None, "x", CODE)] * 4)
        made = [item.id for item in items[1:]]
        assert min(made) > ahead[1]
        assert len({first.id, *ahead, *made}) >= 7
        assert len(store) == 7


def test_row_numbers_are_never_used_twice(open_store: Callable[..., GalleryStore]) -> None:
    rows: list[int] = []
    for _ in range(3):
        with open_store() as store:
            store.add([Item("a", "x", CODE), Item("b", "x", CODE)])
            rows += store._catalog.rows_of_ids(["a", "b"]).values()
            store.replace(Item("b", "y", CODE))
            rows += store._catalog.rows_of_ids(["b"]).values()
            store.remove(["a", "b"])
    assert len(set(rows)) == len(rows) == 9


def test_a_catalog_of_another_schema_is_refused(open_store, folder: Path) -> None:
    open_store().close()
    with sqlite3.connect(folder / CATALOG) as db:
        db.execute("UPDATE gallery SET schema = 99")
    db.close()
    with pytest.raises(UnknownSchema, match="schema 99"):
        open_store()


@pytest.mark.parametrize("size", [100, 5000])
def test_a_damaged_catalog_is_named(open_store, folder: Path, size: int) -> None:
    with open_store() as store:
        fill(store, random.Random(1), 300)
    path = folder / CATALOG
    path.write_bytes(b"\x5a" * size + path.read_bytes()[size:])
    with pytest.raises(StorageUnavailable, match="damaged"):
        open_store()


def test_a_catalog_whose_making_was_cut_short_is_made_again(open_store, folder: Path) -> None:
    folder.mkdir()
    (folder / CATALOG).touch()
    with open_store() as store:
        assert len(store) == 0


# Snapshots


@pytest.mark.every_method
def test_a_start_reads_the_snapshot_and_catches_up(open_store, folder, tools, rng, log, tmp_path) -> None:
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 2000))
    tools.settle(store)
    store.snapshot()
    oracle.put(*fill(store, rng, 5))
    oracle.put(store.replace(Item(min(oracle.items), "replaced", CODE)))
    for item_id in rng.sample(sorted(oracle.items), 7):
        del oracle.items[item_id]
        store.remove([item_id])
    # What a kill at this moment would leave behind:
    for name in (CATALOG, CATALOG + "-wal", SNAPSHOT):
        (tmp_path / "killed").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "killed" / name)
    log.clear()
    with open_store(path=tmp_path / "killed") as reopened:
        assert log.messages == []
        assert reopened.stats().serving == reopened.method
        oracle.check(reopened, [CODE, rng.randbytes(8)])
    oracle.check(store, [CODE])


@pytest.mark.every_method
def test_a_clean_stop_leaves_a_snapshot_that_the_next_start_uses(open_store, folder, tools, rng, log) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 300))
        tools.settle(store)
    written = (folder / SNAPSHOT).stat()
    log.clear()
    with open_store() as store:
        assert log.messages == []
        oracle.check(store, [CODE])
    assert (folder / SNAPSHOT).stat().st_mtime_ns == written.st_mtime_ns  # nothing changed, nothing written


@pytest.mark.parametrize("chosen", ["IVF", "HNSW32"])
def test_an_index_that_was_built_is_in_the_snapshot_even_if_no_item_changed(
    open_store, tools, rng, log, chosen: str
) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 300))
    with open_store(method=chosen) as store:
        tools.settle(store)
    log.clear()
    with open_store(method=chosen) as store:
        assert log.messages == []
        assert store.stats().serving == chosen
        oracle.check(store, [CODE])


def test_removals_are_logged_only_until_a_snapshot_has_seen_them(open_store, rng) -> None:
    store = open_store()
    ids = [item.id for item in fill(store, rng, 50)]
    store.remove(ids[:20])
    assert len(store._catalog.removals_after(0)) == 20
    store.snapshot()
    assert len(store._catalog.removals_after(0)) == 0
    store.remove(ids[20:23])
    assert len(store._catalog.removals_after(0)) == 3


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_the_header(path: Path) -> None:
    os.truncate(path, 50)


def cut_off_the_last_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def flip_a_bit_of_a_code(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def flip_a_bit_of_the_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


def fill_with_text(path: Path) -> None:
    path.write_text("no snapshot\n" * 1000)


@pytest.mark.every_method
@pytest.mark.parametrize(
    "spoil",
    [
        cut_in_half,
        cut_to_nothing,
        cut_in_the_header,
        cut_off_the_last_byte,
        append,
        flip_a_bit_of_a_code,
        flip_a_bit_of_the_header,
        fill_with_text,
    ],
)
def test_a_damaged_snapshot_is_told_and_rebuilt(open_store, folder: Path, tools, rng, log, spoil) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 200))
        tools.settle(store)
    spoil(folder / SNAPSHOT)
    check_ignored(open_store, oracle, log)


@pytest.mark.parametrize(("bits", "fingerprint"), [(64, "m1"), (128, "m1"), (64, "m2")])
def test_a_snapshot_of_another_gallery_is_told_and_rebuilt(
    open_store, folder: Path, tmp_path: Path, tools, rng, log, bits: int, fingerprint: str
) -> None:
    with open_store(bits=bits, fingerprint=fingerprint, path=tmp_path / "other") as other:
        other.add([Item(None, "x", rng.randbytes(bits // 8)) for _ in range(200)])
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 200))
    shutil.copy(tmp_path / "other" / SNAPSHOT, folder / SNAPSHOT)
    check_ignored(open_store, oracle, log)


def check_ignored(open_store, oracle, log) -> None:
    log.clear()
    with open_store() as store:
        assert "ignored" in log.text
        oracle.check(store, [CODE])
    log.clear()
    with open_store() as store:  # closing wrote a good one
        assert log.messages == []
        oracle.check(store, [CODE])


def test_a_snapshot_newer_than_a_restored_catalog_is_not_used(open_store, folder, tools, rng, log) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 100))
    backup = (folder / CATALOG).read_bytes()
    with open_store() as store:
        fill(store, rng, 100)
    (folder / CATALOG).write_bytes(backup)
    log.clear()
    store = open_store()
    assert "ignored" in log.text
    assert not (folder / SNAPSHOT).exists()  # it would seem to fit again once the catalog has grown
    oracle.check(store, [CODE])


def test_a_snapshot_of_a_lost_history_of_equal_length_is_not_used(open_store, folder, tools, rng, log) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 100))
    backup = (folder / CATALOG).read_bytes()
    with open_store() as store:
        fill(store, rng, 100)
    lost = (folder / SNAPSHOT).read_bytes()
    (folder / CATALOG).write_bytes(backup)
    (folder / SNAPSHOT).unlink()
    with open_store() as store:
        oracle.put(*fill(store, rng, 100))
    (folder / SNAPSHOT).write_bytes(lost)  # as many rows, the same numbers, other codes
    log.clear()
    with open_store() as store:
        assert "history" in log.text
        oracle.check(store, [CODE])


def test_an_older_snapshot_of_the_same_history_is_not_used_once_its_log_is_gone(
    open_store, folder, tools, rng, log
) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        items = fill(store, rng, 100)
        store.snapshot()
        old = (folder / SNAPSHOT).read_bytes()
        store.remove([item.id for item in items[:50]])
        oracle.put(*items[50:])
        store.snapshot()
    (folder / SNAPSHOT).write_bytes(old)
    log.clear()
    with open_store() as store:
        assert "ignored" in log.text
        oracle.check(store, [CODE])


def test_a_failure_between_naming_and_publishing_a_snapshot_keeps_the_old_one(
    open_store, folder, tools, rng, log, monkeypatch
) -> None:
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 100))
    store.snapshot()
    oracle.put(*fill(store, rng, 100))
    with monkeypatch.context() as broken:
        broken.setattr("index_store.snapshot.SnapshotWriter.publish", _raise_os_error)
        with pytest.raises(StorageUnavailable):
            store.snapshot()
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("index")) == [SNAPSHOT]
    killed = folder.with_name("killed")
    killed.mkdir()
    for name in (CATALOG, CATALOG + "-wal", SNAPSHOT):
        shutil.copy(folder / name, killed / name)
    log.clear()
    with open_store(path=killed) as reopened:
        assert log.messages == []
        oracle.check(reopened, [CODE])


def _raise_os_error(*_: object) -> None:
    raise OSError(5, "Input/output error")


def at_each_block(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]) -> None:
    """Have ``call`` made before each of the many small blocks of a snapshot is written."""
    for module in ("flat", "lists", "graph"):
        monkeypatch.setattr(f"index_store.hamming.{module}.BLOCK", 10)
    monkeypatch.setattr("index_store.hamming.graph._LINKS_AT_ONCE", 1000)
    write = SnapshotWriter.write

    def write_after_call(self, chunk: Chunk) -> None:
        call()
        write(self, chunk)

    monkeypatch.setattr(SnapshotWriter, "write", write_after_call)


@pytest.mark.every_method
def test_a_snapshot_taken_while_the_gallery_changes_is_used(open_store, folder, tools, rng, log, monkeypatch) -> None:
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 200))
    tools.settle(store)
    oracle.put(*fill(store, rng, 30))

    def change() -> None:
        oracle.put(*fill(store, rng, 3))
        oracle.put(store.replace(Item(rng.choice(sorted(oracle.items)), "replaced", CODE)))
        for item_id in rng.sample(sorted(oracle.items), 4):
            store.remove([item_id])
            del oracle.items[item_id]

    at_each_block(monkeypatch, change)
    store.snapshot()
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    log.clear()
    with open_store(path=killed) as reopened:
        assert "ignored" not in log.text
        assert "from the catalog" not in log.text
        oracle.check(reopened, [CODE])


def test_a_snapshot_of_an_index_that_was_mended_meanwhile_is_given_up(
    open_store, folder, tools, rng, monkeypatch
) -> None:
    store = open_store()
    items = fill(store, rng, 100)

    def fail() -> None:
        if len(store) == 100:
            store._live.index = Faulty(store._live.index)
            store.remove([items[0].id])

    at_each_block(monkeypatch, fail)
    store.snapshot()
    assert not (folder / SNAPSHOT).exists()
    store.snapshot()
    assert (folder / SNAPSHOT).exists()


def test_what_a_killed_process_left_half_written_is_cleared_away(open_store, folder, rng) -> None:
    with open_store() as store:
        fill(store, rng, 10)
    (folder / "index.snapshot.tmp").write_bytes(b"half")
    (folder / "recode.staging").write_bytes(b"half")
    with open_store() as store:
        names = {path.name for path in folder.iterdir()}
        assert names <= {CATALOG, CATALOG + "-wal", CATALOG + "-shm", SNAPSHOT, "lock"}
        assert len(store) == 10


def test_enough_changes_lead_to_a_snapshot_by_themselves(open_store, folder, rng) -> None:
    store = open_store()
    store.add([Item(None, "x", rng.randbytes(8)) for _ in range(1000)])
    assert not (folder / SNAPSHOT).exists()
    code = rng.randbytes(8)
    for _ in range(10):
        store.add([Item(None, "x", code)] * 5000)
    wait_until((folder / SNAPSHOT).exists)
    assert store.background_error is None


def test_the_store_tells_when_snapshots_fail_in_the_background(open_store, rng, monkeypatch) -> None:
    monkeypatch.setattr("index_store.snapshot.SnapshotWriter.publish", _raise_os_error)
    store = open_store()
    store.add([Item(None, "x", CODE)] * 50_000)
    wait_until(lambda: store.background_error is not None)
    assert isinstance(store.background_error, StorageUnavailable)
    assert len(store.add([Item(None, "x", CODE)])) == 1
    store.close()


@pytest.mark.parametrize("method", ["IVF"])
def test_lists_that_a_fold_outgrows_are_built_anew_without_another_change(open_store, tools, rng) -> None:
    store, oracle = open_store(), tools.Oracle()
    oracle.put(*fill(store, rng, 100))
    tools.settle(store)
    assert store.stats().parameters["nlist"] == 12
    oracle.put(*fill(store, rng, 500))
    wait_until(lambda: store.stats().parameters.get("nlist") == 75)
    oracle.check(store, [CODE])


@pytest.mark.parametrize("method", ["IVF", "HNSW32"])
def test_too_little_memory_for_a_fold_is_told_and_tried_again(open_store, tools, rng, monkeypatch) -> None:
    store, oracle = open_store(), tools.Oracle()
    oracle.put(*fill(store, rng, 100))
    tools.settle(store)
    with monkeypatch.context() as short:
        for structure in ("lists.InvertedLists", "graph.Graph"):
            short.setattr(f"index_store.hamming.{structure}.fold", _raise_memory_error)
        oracle.put(*fill(store, rng, 50))
        wait_until(lambda: store.background_error is not None)
        assert isinstance(store.background_error, StorageUnavailable)
        oracle.check_search(store, [CODE], 64, 200)
    wait_until(lambda: store.background_error is None)
    assert store.stats().recent == 0
    oracle.check(store, [CODE])


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    import time

    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# One owner


OPEN_ELSEWHERE = """
import sys
from index_store import GalleryLocked, open_gallery
try:
    with open_gallery(sys.argv[1]) as store:
        print("opened", len(store))
except GalleryLocked as error:
    print("locked:", error)
"""


def open_elsewhere(folder: Path) -> str:
    arguments = [sys.executable, "-c", OPEN_ELSEWHERE, str(folder)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_second_process_is_refused_with_a_hint(open_store, folder) -> None:
    store = open_store()
    store.add([Item(None, "x", CODE)])
    answer = open_elsewhere(folder)
    assert answer.startswith("locked:")
    assert str(os.getpid()) in answer
    assert "--server" in answer
    store.close()
    assert open_elsewhere(folder) == "opened 1\n"


def test_a_second_store_of_the_same_process_is_refused(open_store) -> None:
    store = open_store()
    with pytest.raises(GalleryLocked):
        open_store()
    store.add([Item(None, "x", CODE)])
    store.close()
    assert len(open_store()) == 1


# Disks that refuse


def test_a_read_only_folder_is_told_at_opening(open_store, folder: Path, mount) -> None:
    with open_store() as store:
        store.add([Item(None, "x", CODE)])
    mount(folder, "--bind", str(folder))
    mount(folder, "-o", "remount,ro,bind")
    with pytest.raises(StorageUnavailable, match="not writable"):
        open_store()
    with pytest.raises(StorageUnavailable, match="not writable"):
        open_store(path=folder / "new")


@pytest.mark.parametrize("bits", [None, 64])
def test_a_folder_that_the_system_refuses_is_told_at_opening(folder: Path, bits: int | None) -> None:
    with pytest.raises(StorageUnavailable, match="too long"):
        open_gallery(folder.parent / ("x" * 300), bits)


def test_a_full_disk_stores_nothing_and_leaves_the_store_usable(open_store, folder: Path, mount, tools, rng) -> None:
    mount(folder, "-t", "tmpfs", "-o", "size=6m", "tmpfs")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 100))
    with pytest.raises(DiskFull):
        for _ in range(1000):
            oracle.put(*fill(store, rng, 100))
    oracle.check(store, [CODE])
    with pytest.raises(DiskFull):
        store.add([Item(f"big-{n}", "x", CODE, {"a": "x" * 60_000}) for n in range(50)])
    with pytest.raises(DiskFull):
        store.check_writable()
    with pytest.raises(DiskFull):
        store.recode(((item.id, item.code * 16) for item in oracle.items.values()), 1024, "m2")
    names = {path.name for path in folder.iterdir()}
    assert names <= {CATALOG, CATALOG + "-wal", CATALOG + "-shm", SNAPSHOT, "lock", "ballast"}
    oracle.check(store, [CODE])
    ballast.unlink()
    store.check_writable()
    oracle.put(*fill(store, rng, 100))
    removed = sorted(oracle.items)[:50]
    assert store.remove(removed) == 50
    for item_id in removed:
        del oracle.items[item_id]
    oracle.check(store, [CODE])
    store.close()
    with open_store() as store:
        oracle.check(store, [CODE])


def test_a_disk_that_is_full_at_closing_loses_no_item(open_store, folder, mount, tools, rng, log) -> None:
    mount(folder, "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 5000))
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    with pytest.raises(DiskFull):
        store.snapshot()
    store.close()
    assert "no snapshot was written on closing" in log.text
    ballast.unlink()
    with open_store() as store:
        oracle.check(store, [CODE])


def test_a_new_gallery_on_a_full_disk_is_refused(open_store, folder, mount) -> None:
    mount(folder, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    (folder / "ballast").write_bytes(bytes(64 << 10))
    with pytest.raises(DiskFull):
        open_store()


# The index follows the catalog


class Faulty:
    """An index that fails at a change, once it has made half of it."""

    def __init__(self, index) -> None:
        self._index = index

    def __getattr__(self, name: str):
        return getattr(self._index, name)

    def __len__(self) -> int:
        return len(self._index)

    def add(self, rows: np.ndarray, codes: np.ndarray) -> None:
        self._index.add(rows[::2], codes[::2])
        raise MemoryError("no room")

    def remove(self, rows: np.ndarray) -> int:
        self._index.remove(rows[::2])
        raise MemoryError("no room")


@pytest.mark.every_method
def test_a_failure_between_commit_and_index_is_mended(open_store, tools, rng, log) -> None:
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 100))
    tools.settle(store)
    store._live.index = Faulty(store._live.index)
    oracle.put(*fill(store, rng, 10))
    oracle.check(store, [CODE])
    assert "could not follow" in log.text
    store._live.index = Faulty(store._live.index)
    store.remove(sorted(oracle.items)[:10])
    for item_id in sorted(oracle.items)[:10]:
        del oracle.items[item_id]
    oracle.check(store, [CODE])
    store._live.index = Faulty(store._live.index)
    oracle.put(store.replace(Item(min(oracle.items), "replaced", CODE)))
    oracle.check(store, [CODE])


@pytest.mark.every_method
def test_an_interrupt_between_commit_and_index_is_mended_by_the_next_call(open_store, tools, rng) -> None:
    class Interrupted(Faulty):
        def add(self, rows: np.ndarray, codes: np.ndarray) -> None:
            raise KeyboardInterrupt

    store = open_store()
    fill(store, rng, 100)
    tools.settle(store)
    store._live.index = Interrupted(store._live.index)
    with pytest.raises(KeyboardInterrupt):
        store.add([Item("a", "x", CODE)])
    (result,) = store.search(tools.as_codes([CODE]), 0, 1)
    assert [match.id for match in result.matches] == ["a"]
    assert len(store) == 101
    tools.settle(store)


class LateFailure:
    """A connection whose commits are taken and then reported as failed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __getattr__(self, name: str):
        return getattr(self._db, name)

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        cursor = self._db.execute(sql, *values)
        if sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


def test_a_commit_that_was_taken_but_reported_as_failed_is_noticed(open_store, tools, rng) -> None:
    store = open_store()
    fill(store, rng, 10)
    db = store._catalog._db
    store._catalog._db = LateFailure(db)
    with pytest.raises(StorageUnavailable, match="I/O error"):
        store.add([Item("a", "x", CODE)])
    store._catalog._db = db
    (result,) = store.search(tools.as_codes([CODE]), 0, 1)
    assert [match.id for match in result.matches] == ["a"]
    fill(store, rng, 10)
    assert len(store) == len(list(tools.walk(store))) == 21


def test_an_index_that_cannot_be_mended_is_told_and_mended_later(open_store, tools, rng, monkeypatch) -> None:
    store = open_store()
    fill(store, rng, 100)
    store._live.index = Faulty(store._live.index)
    with monkeypatch.context() as short:
        short.setattr("index_store.live_index.build_flat", _raise_memory_error)
        with pytest.raises(StorageUnavailable, match="memory"):
            store.add([Item("a", "x", CODE)])
        with pytest.raises(StorageUnavailable, match="memory"):
            store.search(tools.as_codes([CODE]), 0, 1)
    (result,) = store.search(tools.as_codes([CODE]), 0, 1)
    assert [match.id for match in result.matches] == ["a"]


def _raise_memory_error(*_: object) -> None:
    raise MemoryError("no room")


def test_closing_gives_the_folder_free_even_if_the_snapshot_fails(open_store, rng, monkeypatch) -> None:
    store = open_store()
    items = fill(store, rng, 100)
    with monkeypatch.context() as short:
        short.setattr("index_store.hamming.FlatIndex.export", _raise_memory_error)
        with pytest.raises(MemoryError):
            store.close()
    with open_store() as again:
        assert [item.id for item in again.list(limit=100).items] == sorted(item.id for item in items)


@pytest.mark.every_method
def test_an_index_that_disagrees_with_the_catalog_is_made_anew(open_store, tools, rng, log) -> None:
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 100))
    tools.settle(store)
    store._live.index.add(np.array([10**6], dtype=np.int64), tools.as_codes([CODE]))
    oracle.check(store, [CODE])
    assert "disagrees" in log.text
    rows = store._catalog.rows_of_label("label 1")
    store._live.index.remove(rows[:1])
    label_query = store.search(tools.as_codes([CODE]), 64, 100, "label 1")[0]
    assert tools.as_pairs(label_query) == oracle.search(CODE, 64, 100, "label 1")


def test_a_rebuild_gives_the_same_answers_and_tells_its_progress(open_store, tools, rng) -> None:
    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 3000))
    told: list[float] = []
    seen: list[float | None] = []

    def progress(part: float) -> None:
        told.append(part)
        seen.append(store.stats().rebuild_progress)
        if len(told) == 1:  # changes while it goes on
            oracle.put(*fill(store, rng, 10))
            gone = sorted(oracle.items)[:5]
            store.remove(gone)
            for item_id in gone:
                del oracle.items[item_id]

    before = store._live.index
    store.rebuild("flat", progress)
    assert store._live.index is not before
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert seen == told
    assert store.stats().rebuild_progress is None
    oracle.check(store, [CODE])


def test_a_rebuild_that_its_listener_stops_changes_nothing(open_store, tools, rng) -> None:
    def stop(part: float) -> None:
        raise RuntimeError("stop")

    oracle = tools.Oracle()
    store = open_store()
    oracle.put(*fill(store, rng, 50))
    with pytest.raises(RuntimeError, match="stop"):
        store.rebuild(progress=stop)
    assert store.stats().rebuild_progress is None
    oracle.check(store, [CODE])
    store.rebuild()
    oracle.check(store, [CODE])


def test_open_gallery_takes_paths_as_text(folder) -> None:
    with open_gallery(str(folder), 64) as store:
        assert store.path == folder
