"""What a folder remembers of its index: the method, a snapshot of each kind, catalogs of the first schema."""

from __future__ import annotations

import json
import logging
import random
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index_store import DiskFull, GalleryStore, Item, StorageUnavailable, open_gallery

CODE = bytes(range(8))
SNAPSHOT = "index.snapshot"
CATALOG = "catalog.sqlite3"
HEADER_BYTES = 4096
FIRST_SCHEMA = """
CREATE TABLE gallery (
    one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, bits INTEGER NOT NULL, fingerprint TEXT,
    last_row INTEGER NOT NULL, last_removal INTEGER NOT NULL, last_id INTEGER NOT NULL
);
CREATE TABLE item (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT NOT NULL, code BLOB NOT NULL, metadata TEXT,
    source TEXT, created_at INTEGER NOT NULL
);
CREATE INDEX item_label ON item (label, id);
CREATE INDEX item_source ON item (source) WHERE source IS NOT NULL;
CREATE TABLE removed (change INTEGER PRIMARY KEY, row INTEGER NOT NULL);
CREATE TABLE snapshot (
    token TEXT PRIMARY KEY, last_row INTEGER NOT NULL, last_removal INTEGER NOT NULL
) WITHOUT ROWID;
"""


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="index_store")
    return caplog


def fill(store: GalleryStore, rng: random.Random, count: int) -> list[Item]:
    return store.add([Item(None, f"label {rng.randrange(5)}", rng.randbytes(8)) for _ in range(count)])


# The method


def test_the_method_that_was_chosen_last_is_remembered(open_store: Callable[..., GalleryStore]) -> None:
    for given, method in ((None, "Flat"), ("IVF", "IVF"), (None, "IVF"), ("auto", "auto"), (None, "auto")):
        with open_store(method=given) as store:
            assert store.method == method
    with open_store(method=None) as store:
        store.rebuild("hnsw32")
        assert (store.method, store.stats().serving) == ("HNSW32", "Flat")  # it is empty
        store.rebuild()
        assert store.method == "HNSW32"
    with open_store(method=None) as store:
        assert store.method == "HNSW32"


@pytest.mark.every_method
@pytest.mark.parametrize("other", ["Flat", "IVF", "HNSW32"])
def test_a_snapshot_of_one_kind_serves_a_gallery_of_another_at_once(
    open_store, tools, rng, log, method: str, other: str
) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 200))
        tools.settle(store)
        oracle.put(*fill(store, rng, 20))
        gone = rng.sample(sorted(oracle.items), 30)
        store.remove(gone)
        for item_id in gone:
            del oracle.items[item_id]
    log.clear()
    with open_store(method=other) as store:
        assert not any(record.levelno > logging.INFO or "from the catalog" in record.message for record in log.records)
        oracle.check_search(store, [CODE], 64, 1000)
        oracle.check(store, [CODE])
        assert store.stats().serving == store.method == other
    log.clear()
    with open_store(method=None) as store:
        assert log.messages == []
        assert store.stats().serving == store.method == other
        oracle.check(store, [CODE])


# Damage


def places(path: Path) -> Iterator[tuple[str, int]]:
    """Name bytes all over a snapshot: of its header, and of the head and the columns of every chunk."""
    data = path.read_bytes()
    length = struct.unpack_from("<8sII", data)[1]
    yield from (("header", position) for position in (0, 7, 8, 9, 11, 12, 15, 16, 16 + length // 2, 15 + length))
    offset, code_size = HEADER_BYTES, 8
    widths = {
        "centroids": code_size,
        "lists": 16 + code_size,
        "nodes": 12 + code_size,
        "links": 4,
        "pairs": 8 + code_size,
    }
    while offset < len(data):
        name, count, _ = struct.unpack_from("<12sII", data, offset)
        kind = name.rstrip(b"\0").decode()
        yield from ((f"head of {kind}", offset + at) for at in (0, 2, 11, 12, 15, 16, 19))
        size = count * widths[kind]
        yield from ((kind, offset + 20 + int(part * (size - 1))) for part in (0, 0.2, 0.45, 0.6, 0.95, 1) if size)
        offset += 20 + size
    assert offset == len(data)


@pytest.mark.parametrize("method", ["IVF", "HNSW32"])
def test_a_wrong_byte_anywhere_in_a_snapshot_is_told_and_the_answers_are_the_same(
    open_store, folder: Path, tmp_path: Path, tools, rng, log, method: str
) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng, 120))
        tools.settle(store)
        oracle.put(*fill(store, rng, 20))
        store.snapshot()
    named = list(places(folder / SNAPSHOT))
    kinds = {"IVF": {"centroids", "lists"}, "HNSW32": {"nodes", "links"}}[method]
    assert {name.removeprefix("head of ") for name, _ in named} == {"header", "pairs"} | kinds
    whole = (folder / SNAPSHOT).read_bytes()
    for number, (name, position) in enumerate(named):
        spoiled = bytearray(whole)
        spoiled[position] ^= rng.choice([1, 0x10, 0x80, 0xFF])
        (folder / SNAPSHOT).write_bytes(spoiled)
        log.clear()
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(folder, copy)
        with open_gallery(copy, threads=1, options=tools.OPTIONS) as store:
            assert "ignored" in log.text, (name, position)
            oracle.check_search(store, [CODE, rng.randbytes(8)], 64, 200)
            if number % 20 == 0:
                oracle.check(store, [CODE])
        shutil.rmtree(copy)


@pytest.mark.parametrize("method", ["IVF", "HNSW32"])
def test_a_snapshot_cut_off_anywhere_is_told(open_store, folder: Path, tmp_path: Path, tools, rng, log, method) -> None:
    with open_store() as store:
        fill(store, rng, 60)
        tools.settle(store)
        store.snapshot()
    whole = (folder / SNAPSHOT).read_bytes()
    for number, (name, position) in enumerate(list(places(folder / SNAPSHOT))[::4]):
        (folder / SNAPSHOT).write_bytes(whole[:position])
        log.clear()
        shutil.copytree(folder, tmp_path / f"copy-{number}")
        with open_gallery(tmp_path / f"copy-{number}", threads=1, options=tools.OPTIONS) as store:
            assert "ignored" in log.text, (name, position)
            assert len(store) == 60


# The first schema


def make_first_schema(folder: Path, rng: random.Random) -> dict[str, Item]:
    """A catalog as the first schema had it, after some removals, and return what is in it."""
    folder.mkdir()
    db = sqlite3.connect(folder / CATALOG, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(FIRST_SCHEMA)
    db.execute("BEGIN")
    db.execute("INSERT INTO gallery VALUES (1, 1, 64, 'm1', 110, 10, 7)")
    items = {}
    for row in range(1, 111):
        code, metadata = rng.randbytes(8), json.dumps({"row": row}) if row % 2 else None
        values = (row, f"item-{row:03}", f"label {row % 5}", code, metadata, f"{row}.jpg", 1_800_000_000_000)
        if row > 10:
            db.execute("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            created = "2027-01-15T08:00:00.000Z"
            items[values[1]] = Item(*values[1:4], json.loads(metadata or "{}"), values[5], created)
        else:
            db.execute("INSERT INTO removed VALUES (?, ?)", (row, row))
    db.execute("COMMIT")
    db.close()
    return items


def snapshot_of_version_1(path: Path) -> None:
    text = json.dumps({"version": 1, "token": "0" * 32, "bits": 64}).encode()
    path.write_bytes((struct.pack("<8sII", b"SHITUIDX", len(text), zlib.crc32(text)) + text).ljust(5000, b"\0"))


@pytest.mark.every_method
def test_a_catalog_of_the_first_schema_is_brought_to_this_one(open_store, folder: Path, tools, rng, log) -> None:
    oracle = tools.Oracle()
    oracle.items = make_first_schema(folder, rng)
    snapshot_of_version_1(folder / SNAPSHOT)
    with open_store(method=None) as store:
        assert "version 1" in log.text
        assert (store.method, store.stats().serving) == ("Flat", "Flat")
        oracle.check(store, [CODE, rng.randbytes(8)])
        assert store.has_source("50.jpg")
        oracle.put(*fill(store, rng, 5))
    db = sqlite3.connect(folder / CATALOG)
    assert db.execute("SELECT schema, method FROM gallery").fetchall() == [(2, "Flat")]
    db.close()
    with open_store() as store:  # by each method
        oracle.check(store, [CODE])
        assert store.stats().serving == store.method
        removed = sorted(oracle.items)[:5]
        assert store.remove(removed) == 5
        for item_id in removed:
            del oracle.items[item_id]
        oracle.check(store, [CODE])


def test_a_catalog_whose_upgrade_failed_stays_as_it_was(open_store, folder: Path, tools, rng, mount) -> None:
    mount(folder.parent / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    small = folder.parent / "small" / "gallery"
    oracle = tools.Oracle()
    oracle.items = make_first_schema(small, rng)
    ballast = small.parent / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    with pytest.raises((DiskFull, StorageUnavailable)):
        open_store(path=small)
    ballast.unlink()
    db = sqlite3.connect(small / CATALOG)
    assert db.execute("SELECT schema FROM gallery").fetchall() == [(1,)]
    db.close()
    with open_store(path=small) as store:
        oracle.check(store, [CODE])
