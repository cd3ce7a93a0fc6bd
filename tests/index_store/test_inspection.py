"""Looking at a gallery's files: beside its owner, after a crash, and when they are damaged. Nothing changes."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from index_store import GalleryNotFound, Item, StorageUnavailable, UnknownSchema, open_gallery
from index_store.inspection import inspect_catalog, inspect_snapshot, lock_owner

LIMIT_S = 60.0


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    rng = random.Random(2)
    folder = tmp_path / "gallery"
    with open_gallery(folder, 64, fingerprint="some-model") as store:
        store.add([Item(None, f"label {number}", rng.randbytes(8)) for number in range(5000)])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_closed_gallery_is_described_and_left_as_it_is(gallery: Path) -> None:
    before = contents(gallery)
    facts = inspect_catalog(gallery, LIMIT_S)
    assert (facts.items, facts.bits, facts.fingerprint, facts.method) == (5000, 64, "some-model", "Flat")
    assert facts.sound is True
    assert facts.bytes == len(before["catalog.sqlite3"])
    snapshot = inspect_snapshot(gallery, LIMIT_S)
    assert snapshot is not None
    assert (snapshot.method, snapshot.sound, snapshot.bytes) == ("Flat", True, len(before["index.snapshot"]))
    assert lock_owner(gallery) is None
    assert contents(gallery) == before


def test_an_open_gallery_is_described_as_it_is_now(gallery: Path) -> None:
    with open_gallery(gallery) as store:
        store.add([Item(None, "new", bytes(8))])
        assert inspect_catalog(gallery, LIMIT_S).items == 5001
        assert lock_owner(gallery) == str(os.getpid())
        store.add([Item(None, "newer", bytes(8))])
        assert len(store) == 5002
    assert lock_owner(gallery) is None


def test_what_a_crash_leaves_is_described(gallery: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    with open_gallery(gallery) as store:
        store.add([Item(None, "in the log", bytes(8))])
        shutil.copytree(gallery, left)
    assert (left / "catalog.sqlite3-wal").stat().st_size > 0
    assert inspect_catalog(left, LIMIT_S).items == 5001
    with open_gallery(left) as store:
        assert len(store) == 5001


def test_damage_anywhere_is_told(gallery: Path) -> None:
    catalog = gallery / "catalog.sqlite3"
    whole = catalog.read_bytes()
    flaws = set()
    for start in range(0, len(whole), 5 * 4096):
        catalog.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
        try:
            facts = inspect_catalog(gallery, LIMIT_S)
        except StorageUnavailable as error:
            flaws.add(str(error).rpartition("(")[2])
        else:
            assert facts.sound is False
            flaws.add(facts.flaw)
    assert len(flaws) > 3


def test_a_damaged_snapshot_is_told(gallery: Path) -> None:
    snapshot = gallery / "index.snapshot"
    data = bytearray(snapshot.read_bytes())
    data[-1] ^= 1
    snapshot.write_bytes(data)
    facts = inspect_snapshot(gallery, LIMIT_S)
    assert facts is not None
    assert (facts.sound, facts.flaw) == (False, "a chunk's checksum is wrong")


def test_what_takes_too_long_is_given_up(gallery: Path) -> None:
    facts = inspect_catalog(gallery, 0)
    assert (facts.items, facts.sound) == (5000, None)
    snapshot = inspect_snapshot(gallery, 0)
    assert snapshot is not None
    assert snapshot.sound is None


def test_what_is_no_gallery_of_ours_is_told(tmp_path: Path) -> None:
    with pytest.raises(GalleryNotFound):
        inspect_catalog(tmp_path, LIMIT_S)
    assert inspect_snapshot(tmp_path, LIMIT_S) is None
    assert lock_owner(tmp_path) is None
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as db:
        db.execute("CREATE TABLE other (one)")
    with pytest.raises(StorageUnavailable, match="no catalog"):
        inspect_catalog(tmp_path, LIMIT_S)
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as db:
        db.execute("CREATE TABLE gallery (schema)")
        db.execute("INSERT INTO gallery VALUES (99)")
    db.close()
    with pytest.raises(UnknownSchema, match="99"):
        inspect_catalog(tmp_path, LIMIT_S)
