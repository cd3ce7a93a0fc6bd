"""Backups: the gallery at one moment, in a file that is whole and anybody can read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_store import (
    DiskFull,
    GalleryClosed,
    GalleryStore,
    Item,
    StorageUnavailable,
    check_backup,
    open_gallery,
    restore_gallery,
)

CODE = bytes(range(8))
LABELS = ["cola", "ценник", "緑茶 500ml", 'say "cheese" \\ back', "tab\tand\nnew line", "\u2028\u0085", "😀", " "]


def fill(store: GalleryStore, rng: random.Random, count: int = 60) -> list[Item]:
    return store.add(
        [
            Item(
                rng.choice([None, f"own:{number}"]),
                rng.choice(LABELS),
                rng.randbytes(8),
                rng.choice([{}, {"sku": number, "größe": {"ml": [0.33, None, True, "\n"]}}]),
                rng.choice([None, f"file:bottles/{number}\n.jpg"]),
            )
            for number in range(count)
        ]
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Pipe(io.RawIOBase):
    """A stream that cannot seek and takes a part of what it is given."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        taken = max(1, len(data) // 2)
        self.data += bytes(data[:taken])
        return taken


def restored(open_store: Callable[..., GalleryStore], backup: Path, folder: Path, **options) -> GalleryStore:
    restore_gallery(backup, folder)
    return open_store(None, None, folder, **options)


def test_a_restored_gallery_holds_finds_and_lists_the_same(
    open_store: Callable[..., GalleryStore], tmp_path: Path, tools, rng
) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*fill(store, rng))
        gone = rng.sample(sorted(oracle.items), 20)
        store.remove(gone)
        for item_id in gone:
            del oracle.items[item_id]
        oracle.put(store.replace(Item(next(iter(oracle.items)), "replaced", CODE, {"new": 1}, "file:new")))
        info = store.backup(tmp_path / "gallery.zip")
    assert info == check_backup(tmp_path / "gallery.zip")
    assert (info.items, info.bits, info.model_fingerprint) == (40, 64, "m1")
    assert info.bytes == (tmp_path / "gallery.zip").stat().st_size
    assert restore_gallery(tmp_path / "gallery.zip", tmp_path / "other") == info
    copy = open_store(64, "m1", tmp_path / "other")
    oracle.check(copy, [CODE, rng.randbytes(8)])
    assert {item.id: item.created_at for item in tools.walk(copy)} == {
        item.id: item.created_at for item in oracle.items.values()
    }
    # It goes on like any gallery: changes, snapshots, a further backup with the same contents.
    copy.backup(tmp_path / "again.zip")
    with zipfile.ZipFile(tmp_path / "gallery.zip") as one, zipfile.ZipFile(tmp_path / "again.zip") as other:
        assert one.read("codes.npy") == other.read("codes.npy")
        assert one.read("items.jsonl") == other.read("items.jsonl")


def test_new_ids_go_on_rising_after_a_restore(
    open_store: Callable[..., GalleryStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store() as store:
        (last,) = store.add([Item(None, "x", CODE)])
        store.remove([last.id])  # the counter alone remembers it
        store.backup(tmp_path / "gallery.zip")
    monkeypatch.setattr("index_store.local.time.time_ns", lambda: 1_500_000_000_000_000_000)
    copy = restored(open_store, tmp_path / "gallery.zip", tmp_path / "other")
    (new,) = copy.add([Item(None, "x", CODE)])
    assert new.id > last.id


def test_the_chosen_index_is_chosen_again(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "one", 64, "auto") as store:
        store.backup(tmp_path / "gallery.zip")
    restore_gallery(tmp_path / "gallery.zip", tmp_path / "other")
    with open_gallery(tmp_path / "other") as store:
        assert store.method == "auto"


@pytest.mark.parametrize(("bits", "fingerprint"), [(8, None), (512, 'a model, "ü"')])
def test_an_empty_gallery_can_be_backed_up(
    open_store: Callable[..., GalleryStore], tmp_path: Path, bits: int, fingerprint: str | None
) -> None:
    with open_store(bits, fingerprint) as store:
        info = store.backup(tmp_path / "gallery.zip")
    assert (info.items, info.bits, info.model_fingerprint) == (0, bits, fingerprint)
    copy = restored(open_store, tmp_path / "gallery.zip", tmp_path / "other")
    assert (len(copy), copy.bits, copy.fingerprint) == (0, bits, fingerprint)
    copy.add([Item(None, "x", bytes(bits // 8))])


def test_the_file_can_be_read_without_this_package(store: GalleryStore, tmp_path: Path, rng) -> None:
    items = fill(store, rng)
    store.backup(tmp_path / "gallery.zip")
    with zipfile.ZipFile(tmp_path / "gallery.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["codes.npy", "items.jsonl", "manifest.json"]
        codes = np.load(io.BytesIO(archive.read("codes.npy")), allow_pickle=False)
        lines = [json.loads(line) for line in archive.read("items.jsonl").decode().split("\n")[:-1]]
        manifest = json.loads(archive.read("manifest.json"))
        for name, member in manifest["members"].items():
            data = archive.read(name)
            assert member == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (codes.dtype, codes.shape) == (np.uint8, (60, 8))
    assert [(line["id"], line["label"], line["metadata"], line["source"]) for line in lines] == [
        (item.id, item.label, item.metadata, item.source) for item in items
    ]
    assert [code.tobytes() for code in codes] == [item.code for item in items]
    assert (manifest["version"], manifest["bits"], manifest["model_fingerprint"]) == (1, 64, "m1")
    data = (tmp_path / "gallery.zip").read_bytes()
    assert data[-64:].decode() == hashlib.sha256(data[:-64]).hexdigest()


def test_a_stream_need_not_seek_nor_take_everything_at_once(store: GalleryStore, tmp_path: Path, rng) -> None:
    fill(store, rng)
    pipe = Pipe()
    told = []
    info = store.backup(pipe, lambda done, total: told.append((done, total)))
    assert info.bytes == len(pipe.data)
    (tmp_path / "piped.zip").write_bytes(pipe.data)
    assert check_backup(tmp_path / "piped.zip") == info
    assert told[-1] == (60, 60)
    assert told == sorted(told)


def test_a_backup_that_fails_leaves_the_file_that_was_there(store: GalleryStore, tmp_path: Path, rng) -> None:
    fill(store, rng)
    target = tmp_path / "backups" / "gallery.zip"
    with pytest.raises(StorageUnavailable, match="No such file or directory"):
        store.backup(target)
    target.parent.mkdir()
    target.write_bytes(b"the last one")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.backup(target, interrupt)
    assert target.read_bytes() == b"the last one"
    assert names(target.parent) == ["gallery.zip"]
    store.backup(str(target))
    assert check_backup(target).items == 60
    assert names(target.parent) == ["gallery.zip"]


def test_only_regular_files_are_replaced(store: GalleryStore, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="no regular file"):
        store.backup(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageUnavailable, match="no regular file"):
        store.backup(tmp_path / "pipe")


def test_a_full_disk_leaves_nothing_of_a_backup(store: GalleryStore, tmp_path: Path, mount, rng) -> None:
    fill(store, rng, 3000)
    full = tmp_path / "full"
    mount(full, "-t", "tmpfs", "-o", "size=16k", "tmpfs")
    with pytest.raises(DiskFull, match=r"gallery\.zip"):
        store.backup(full / "gallery.zip")
    assert names(full) == []
    store.backup(tmp_path / "gallery.zip")


def test_a_closed_store_gives_no_backup(store: GalleryStore, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(GalleryClosed):
        store.backup(tmp_path / "gallery.zip")
    with pytest.raises(GalleryClosed):
        store.backup_chunks()
    assert not (tmp_path / "gallery.zip").exists()


def test_giving_up_frees_the_write_ahead_log(store: GalleryStore, folder: Path, rng) -> None:
    fill(store, rng)
    chunks = store.backup_chunks()
    next(chunks)
    log = folder / "catalog.sqlite3-wal"

    def settle() -> int:
        store.add([Item(None, "x", CODE)])
        store._catalog._db.execute("PRAGMA busy_timeout = 0")
        store._catalog._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return log.stat().st_size

    assert settle() > 0
    chunks.close()
    assert settle() == 0


# While others write


class Writer(threading.Thread):
    """Adds, replaces and removes without end; ``states`` are the contents after each change, the first is empty."""

    def __init__(self, store: GalleryStore) -> None:
        super().__init__(daemon=True)
        self.states: list[dict[str, tuple[str, bytes]]] = [{}]
        self.answered = 0
        self.stop = threading.Event()
        self._store = store

    def wait_for(self, answered: int) -> None:
        while self.answered < answered:
            assert self.is_alive()
            time.sleep(0.001)

    def run(self) -> None:
        rng = random.Random(8)
        number = 0
        while not self.stop.is_set():
            number += 1
            contents = dict(self.states[-1])
            kind = rng.choice(["add", "add", "replace", "remove"]) if contents else "add"
            if kind == "add":
                new = [Item(f"{number}-{n}", f"label {number}", rng.randbytes(8)) for n in range(rng.choice([1, 30]))]
                change = lambda new=new: self._store.add(new)  # noqa: E731
                contents |= {item.id: (item.label, item.code) for item in new}
            elif kind == "replace":
                item = Item(rng.choice(sorted(contents)), f"label {number}", rng.randbytes(8))
                change = lambda item=item: self._store.replace(item)  # noqa: E731
                contents[item.id] = (item.label, item.code)
            else:
                gone = rng.sample(sorted(contents), min(len(contents), 12))
                change = lambda gone=gone: self._store.remove(gone)  # noqa: E731
                contents = {item_id: item for item_id, item in contents.items() if item_id not in gone}
            self.states.append(contents)  # before the change: from now on it may be seen
            change()
            self.answered = len(self.states) - 1


def contents_of(backup: Path) -> dict[str, tuple[str, bytes]]:
    with zipfile.ZipFile(backup) as archive:
        codes = np.load(io.BytesIO(archive.read("codes.npy")))
        lines = [json.loads(line) for line in archive.read("items.jsonl").splitlines()]
    return {line["id"]: (line["label"], code.tobytes()) for line, code in zip(lines, codes, strict=True)}


def test_a_backup_beside_changes_is_the_gallery_at_one_moment(store: GalleryStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.start()
    try:
        for number in range(12):
            writer.wait_for(15 * number)
            before = writer.answered
            chunks = store.backup_chunks()
            data = next(chunks)
            after = len(writer.states) - 1
            writer.wait_for(after + 2)
            data += b"".join(chunks)
            path = tmp_path / f"{number}.zip"
            path.write_bytes(data)
            # Everything answered before it began is in, nothing that began after its first piece.
            assert contents_of(path) in writer.states[before : after + 1]
            assert check_backup(path).items == len(contents_of(path))
    finally:
        writer.stop.set()
        writer.join(30)
