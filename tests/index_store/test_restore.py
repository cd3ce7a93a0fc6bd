"""Restoring: what is not a whole and sound backup is refused with the reason, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store import (
    DiskFull,
    GalleryError,
    GalleryExists,
    GalleryLocked,
    GalleryNotFound,
    GalleryStore,
    InvalidBackup,
    Item,
    StorageUnavailable,
    check_backup,
    open_gallery,
    restore_gallery,
)
from index_store.backup import COMMENT

CODE = bytes(range(8))
CREATED_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def backup() -> bytes:
    """A backup of a small gallery with everything that an item can have."""
    rng = random.Random(4)
    with tempfile.TemporaryDirectory() as folder, open_gallery(Path(folder) / "g", 64, fingerprint="m1") as store:
        metadata = [{}, {"größe": [1, {"a": None}]}]
        sources = [None, "kept:0a"]
        store.add(
            [Item(None, f"緑茶 {n}", rng.randbytes(8), rng.choice(metadata), rng.choice(sources)) for n in range(9)]
        )
        pipe = io.BytesIO()
        store.backup(pipe)
    return pipe.getvalue()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(data: bytes, tmp_path: Path, match: str, error: type[Exception] = InvalidBackup) -> None:
    """Restoring the file is refused for this reason, and nothing is left of it, wherever it was to go."""
    path = tmp_path / "backup.zip"
    path.write_bytes(data)
    empty = tmp_path / "empty"
    empty.mkdir(exist_ok=True)
    for target in (tmp_path / "new" / "er", empty):
        with pytest.raises(error, match=match):
            restore_gallery(path, target)
    assert names(tmp_path) == ["backup.zip", "empty"]
    assert names(empty) == []


def signed(data: bytes) -> bytes:
    """The file with the checksum at its end made right."""
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def npy(codes: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, codes, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"item-{number}",
        "label": "x",
        "metadata": {},
        "source": None,
        "created_at": CREATED_MS,
        **changes,
    }


def packed(
    lines: list[Any] | bytes,
    codes: np.ndarray | bytes | None = None,
    methods: dict[str, int] | None = None,
    others: list[tuple[str, bytes]] | None = None,
    **manifest: Any,
) -> bytes:
    """A backup with the checksums that it should have, but contents that it should not."""
    if codes is None:
        codes = np.zeros((len(lines), 8), np.uint8)
    array = codes if isinstance(codes, bytes) else npy(codes)
    text = lines if isinstance(lines, bytes) else b"".join(json.dumps(each).encode() + b"\n" for each in lines)
    files = {"codes.npy": array, "items.jsonl": text}
    described = {
        "format": "shitu-hash gallery backup",
        "version": 1,
        "created_at": "2026-11-27T12:00:00.000Z",
        "bits": 64,
        "model_fingerprint": "m1",
        "items": len(codes) if not isinstance(codes, bytes) else 1,
        "last_id": 7,
        "index_method": "Flat",
        "members": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
        **manifest,
    }
    usual = [*files.items(), ("manifest.json", json.dumps(described).encode())]
    return zipped([*usual[:2], *(others or []), *usual[2:]], methods or {})


def zipped(members: list[tuple[str, bytes]], methods: dict[str, int]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            usual = zipfile.ZIP_DEFLATED if name == "items.jsonl" else zipfile.ZIP_STORED
            archive.writestr(name, data, methods.get(name, usual))
        archive.comment = COMMENT + bytes(64)
    return signed(stream.getvalue())


def test_a_file_packed_here_is_a_backup(tmp_path: Path) -> None:
    """Else the tests below would be refused for another reason than theirs."""
    (tmp_path / "backup.zip").write_bytes(packed([line(0), line(1, metadata={"a": [1]}, source="s")]))
    assert restore_gallery(tmp_path / "backup.zip", tmp_path / "folder").items == 2
    with open_gallery(tmp_path / "folder") as store:
        assert [item.id for item in store.list().items] == ["item-0", "item-1"]


# Damage


def test_no_byte_can_change_unnoticed(backup: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    for position in range(len(backup)):
        damaged = bytearray(backup)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(InvalidBackup):
            restore_gallery(path, tmp_path / "folder")
    assert names(tmp_path) == ["backup.zip"]


def test_no_length_but_the_whole_will_do(backup: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    for length in range(len(backup)):
        path.write_bytes(backup[:length])
        with pytest.raises(InvalidBackup, match=r"cut short|no backup|is empty"):
            restore_gallery(path, tmp_path / "folder")
    for extra in (b"\0", b"\n", backup):
        path.write_bytes(backup + extra)
        with pytest.raises(InvalidBackup):
            restore_gallery(path, tmp_path / "folder")
    assert names(tmp_path) == ["backup.zip"]


def test_a_forged_byte_is_refused_or_means_nothing(backup: bytes, tmp_path: Path) -> None:
    """Whoever changes the file and its checksum too gets no other gallery out of it, and no other error."""
    path = tmp_path / "backup.zip"
    path.write_bytes(backup)
    restore_gallery(path, tmp_path / "right")
    with open_gallery(tmp_path / "right") as store:
        right = store.list().items
    refused = 0
    for position in range(0, len(backup) - 64, 7):
        forged = bytearray(backup)
        forged[position] ^= 1 << position % 8
        path.write_bytes(signed(bytes(forged)))
        folder = tmp_path / f"folder-{position}"
        try:
            restore_gallery(path, folder)
        except InvalidBackup:
            refused += 1
            assert not folder.exists()
            continue
        with open_gallery(folder) as store:
            assert store.list().items == right
    assert refused > 50


# What is no backup


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match=r"nowhere\.zip cannot be read: No such file"):
        restore_gallery(tmp_path / "nowhere.zip", tmp_path / "folder")
    with pytest.raises(StorageUnavailable, match="Is a directory"):
        check_backup(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"PK\5\6" + bytes(18), b"a text\n" * 1000, bytes(1 << 16)])
def test_foreign_files_are_refused(data: bytes, tmp_path: Path) -> None:
    refuse(data, tmp_path, "no backup of a gallery|is empty")


def test_a_foreign_zip_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    refuse(stream.getvalue(), tmp_path, "no backup of a gallery, or was packed again")
    refuse(zipped([("word/document.xml", b"<xml/>")], {}), tmp_path, r"it has no manifest\.json")


def test_a_newer_version_says_what_to_do(tmp_path: Path) -> None:
    refuse(packed([line(0)], version=2), tmp_path, "version 2 of the format, this program knows version 1: restore it")
    refuse(packed([line(0)], version=2, others=[("vectors.bin", b"x")]), tmp_path, "version 2")
    refuse(packed([line(0)], version=None), tmp_path, "version None")
    refuse(packed([line(0)], format="something else"), tmp_path, "no backup of a gallery")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "catalog.sqlite3", "codes.npy ", "a\\b", "é"])
def test_members_that_no_backup_has_are_refused(name: str, tmp_path: Path) -> None:
    refuse(packed([line(0)], others=[(name, b"x")]), tmp_path, "is no part of one")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_twice_missing_or_out_of_order_are_refused(tmp_path: Path) -> None:
    refuse(packed([line(0)], others=[("codes.npy", b"x")]), tmp_path, "missing, twice there or out of order")
    manifest = zipfile.ZipFile(io.BytesIO(packed([line(0)]))).read("manifest.json")
    refuse(zipped([("manifest.json", manifest)], {}), tmp_path, "missing, twice there or out of order")


@pytest.mark.parametrize(
    "manifest",
    [
        {"bits": 12},
        {"bits": "64"},
        {"bits": 0},
        {"items": -1},
        {"items": True},
        {"items": 2**70},
        {"last_id": 2**63 - 1},
        {"last_id": None},
        {"index_method": "fast"},
        {"index_method": None},
        {"model_fingerprint": 5},
        {"model_fingerprint": "a\0b"},
        {"created_at": "\x1b[31m"},
        {"members": {}},
        {"members": []},
        {"members": {"codes.npy": {"bytes": "1", "sha256": ""}, "items.jsonl": {}}},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(manifest: dict[str, Any], tmp_path: Path) -> None:
    refuse(packed([line(0)], **manifest), tmp_path, r"manifest\.json is not as this version writes it")


def test_a_manifest_that_is_too_long_or_no_json_is_refused(tmp_path: Path) -> None:
    refuse(packed([line(0)], extra="x" * 70_000), tmp_path, "far too long")
    refuse(zipped([("manifest.json", b"{")], {}), tmp_path, "not JSON")
    refuse(zipped([("manifest.json", b"[" * 60_000)], {}), tmp_path, "not JSON")


def test_members_are_what_the_manifest_says(tmp_path: Path) -> None:
    wrong = {"bytes": 5, "sha256": ""}
    right = {"bytes": len(json.dumps(line(0))) + 1, "sha256": "0" * 64}
    codes = npy(np.zeros((1, 8), np.uint8))
    ours = {"bytes": len(codes), "sha256": hashlib.sha256(codes).hexdigest()}
    for members, match in (
        ({"codes.npy": ours, "items.jsonl": wrong}, "5 by its manifest"),
        ({"codes.npy": ours, "items.jsonl": right}, r"items\.jsonl is not what its manifest says"),
    ):
        refuse(repacked(members), tmp_path, match)


def repacked(described: dict[str, Any]) -> bytes:
    """A backup of one item whose manifest describes its members so."""
    archive = zipfile.ZipFile(io.BytesIO(packed([line(0)])))
    manifest = json.loads(archive.read("manifest.json")) | {"members": described}
    kept = [(name, archive.read(name)) for name in ("codes.npy", "items.jsonl")]
    return zipped([*kept, ("manifest.json", json.dumps(manifest).encode())], {})


# Bombs


def test_a_bomb_is_refused_before_it_has_grown(tmp_path: Path) -> None:
    bomb = b"0" * (64 << 20)
    data = packed(bomb, np.zeros((1, 8), np.uint8))
    assert len(data) < len(bomb) / 500
    refuse(data, tmp_path, "far too long for an item")
    stored = zipfile.ZIP_STORED
    refuse(packed([line(0)], methods={"codes.npy": zipfile.ZIP_DEFLATED}), tmp_path, "not packed as a backup packs it")
    refuse(packed([line(0)], methods={"items.jsonl": stored}), tmp_path, "not packed as a backup packs it")
    refuse(packed([line(0)], methods={"manifest.json": zipfile.ZIP_LZMA}), tmp_path, "not packed as a backup packs it")


def test_a_crowd_of_members_is_refused(tmp_path: Path) -> None:
    refuse(packed([line(0)], others=[(f"{n}", b"") for n in range(2000)]), tmp_path, "more members than any")


def patched(name: str, offset: int, value: bytes, **manifest: Any) -> bytes:
    """A backup of one item in which the directory's entry of a member has other bytes (APPNOTE 4.3.12)."""
    data = bytearray(packed([line(0)], **manifest))
    start = data.rindex(name.encode()) - 46
    assert data[start : start + 4] == b"PK\1\2"
    data[start + offset : start + offset + len(value)] = value
    return signed(bytes(data))


@pytest.mark.parametrize("name", ["codes.npy", "items.jsonl", "manifest.json"])
def test_encrypted_members_are_refused(name: str, tmp_path: Path) -> None:
    refuse(patched(name, 8, b"\1\0"), tmp_path, "not packed as a backup packs it")


@pytest.mark.parametrize("name", ["codes.npy", "items.jsonl", "manifest.json"])
def test_sizes_that_no_file_has_are_refused_and_not_allocated(name: str, tmp_path: Path) -> None:
    huge = 0xFFFFFFF0
    refuse(patched(name, 24, huge.to_bytes(4, "little")), tmp_path, "by its manifest|far too long")
    members = {each: {"bytes": huge, "sha256": "0" * 64} for each in ("codes.npy", "items.jsonl")}
    refuse(patched(name, 24, huge.to_bytes(4, "little"), members=members), tmp_path, "by its manifest|far too long")
    everything = {"items": 2**60, "members": {**members, "codes.npy": {"bytes": 2**63, "sha256": "0" * 64}}}
    refuse(packed([line(0)], **everything), tmp_path, "by its manifest|not as this version writes it")


def test_a_member_that_is_marked_as_a_link_is_only_read(tmp_path: Path) -> None:
    link = (0o120777 << 16).to_bytes(4, "little")
    (tmp_path / "backup.zip").write_bytes(patched("codes.npy", 38, link))
    restore_gallery(tmp_path / "backup.zip", tmp_path / "folder")
    with open_gallery(tmp_path / "folder") as store:
        assert len(store) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_what_cannot_fit_on_the_disk_is_not_begun(tmp_path: Path, mount) -> None:
    (tmp_path / "backup.zip").write_bytes(packed([line(n, label="x" * 500) for n in range(5000)]))
    small = tmp_path / "small"
    mount(small, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    with pytest.raises(DiskFull, match=r"takes more than [\d,]+ bytes"):
        restore_gallery(tmp_path / "backup.zip", small)
    assert names(small) == []


# Items


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([line(0), line(1, id="../x")], r"line 2 of items\.jsonl: an id has"),
        ([line(0, id=None)], "line 1 of .* no id"),
        ([line(0), line(1), line(0)], "line 3 of .*'item-0' is there twice"),
        ([line(0, label="")], "a label is"),
        ([line(0, label=7)], "a label is"),
        ([line(0, label="a\0b")], "NUL"),
        ([line(0, label="\ud800")], "surrogates"),
        ([line(0, metadata=None)], "JSON object"),
        ([line(0, metadata=[1])], "JSON object"),
        ([line(0, metadata={"a": float("nan")})], "JSON object"),
        ([line(0, metadata={"a": "x" * 70_000})], "limit"),
        ([line(0, source=5)], "a source is"),
        ([line(0, created_at=-1)], "no time"),
        ([line(0, created_at=1.5)], "no time"),
        ([line(0, created_at=True)], "no time"),
        ([line(0, created_at=10**15)], "no time"),
        ([line(0, extra=1)], "other members"),
        ([{"id": "a"}], "other members"),
        ([[1]], "not a JSON object"),
    ],
)
def test_items_are_checked_as_if_they_were_enrolled(lines: list[Any], match: str, tmp_path: Path) -> None:
    refuse(packed(lines), tmp_path, match)


def test_lines_must_be_json_and_whole(tmp_path: Path) -> None:
    one = np.zeros((1, 8), np.uint8)
    refuse(packed(b"{\n", one), tmp_path, "line 1 .* not JSON")
    refuse(packed(b"\xff\n", one), tmp_path, "line 1 .* not JSON")
    refuse(packed(b"\n", one), tmp_path, "line 1 .* not JSON")
    refuse(packed(b"[" * 100_000 + b"\n", one), tmp_path, "line 1 .* not JSON")
    refuse(packed(json.dumps(line(0)).encode(), one), tmp_path, "not ended")


def test_there_is_a_code_for_each_item(tmp_path: Path) -> None:
    two = [line(0), line(1)]
    refuse(packed(two, np.zeros((1, 8), np.uint8)), tmp_path, "has more lines")
    refuse(packed(two, np.zeros((3, 8), np.uint8)), tmp_path, "has fewer lines")
    refuse(packed(two, np.zeros((2, 16), np.uint8)), tmp_path, "holds uint8")
    refuse(packed(two, np.zeros((2, 8), np.int8)), tmp_path, "holds int8")
    refuse(packed(two, np.zeros((2, 8, 1), np.uint8)), tmp_path, "holds uint8")
    refuse(packed(two, np.asfortranarray(np.zeros((2, 8), np.uint8))), tmp_path, "holds uint8")
    refuse(packed(two, np.zeros((2, 8), np.uint8), items=3), tmp_path, "by its manifest")
    refuse(packed([line(0)], b"no array at all"), tmp_path, r"codes\.npy is not as a backup writes it")
    refuse(packed([line(0)], pickled()), tmp_path, "holds object")


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": print}, None], object), allow_pickle=True)
    return stream.getvalue()


# Where it goes


def test_a_folder_with_a_gallery_is_refused_and_stays(
    open_store: Callable[..., GalleryStore], backup: bytes, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "backup.zip").write_bytes(backup)
    store = open_store()
    (kept,) = store.add([Item(None, "x", CODE)])
    with pytest.raises(GalleryExists, match="another folder"):
        restore_gallery(tmp_path / "backup.zip", folder)
    store.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(GalleryExists, match="another folder"):
        restore_gallery(tmp_path / "backup.zip", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert open_store().list().items == [kept]


def test_the_log_of_a_lost_catalog_is_not_taken_for_the_new_ones(backup: bytes, tmp_path: Path) -> None:
    (tmp_path / "backup.zip").write_bytes(backup)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "catalog.sqlite3-wal").write_bytes(b"x")
    with pytest.raises(GalleryExists, match=r"catalog\.sqlite3-wal"):
        restore_gallery(tmp_path / "backup.zip", folder)


def test_other_files_in_the_folder_stay(backup: bytes, tmp_path: Path) -> None:
    (tmp_path / "backup.zip").write_bytes(backup)
    folder = tmp_path / "folder"
    (folder / "images" / "0a").mkdir(parents=True)
    (folder / "index.snapshot").write_bytes(b"of the gallery that was here")
    restore_gallery(tmp_path / "backup.zip", folder)
    with open_gallery(folder) as store:
        assert len(store) == 9
    assert (folder / "images" / "0a").is_dir()


def test_a_mount_point_can_be_restored_into(backup: bytes, tmp_path: Path, mount) -> None:
    (tmp_path / "backup.zip").write_bytes(backup)
    mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    restore_gallery(tmp_path / "backup.zip", tmp_path / "disk")
    with open_gallery(tmp_path / "disk") as store:
        assert len(store) == 9


def test_folders_that_cannot_be_used_are_told(backup: bytes, tmp_path: Path, mount) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(backup)
    with pytest.raises(StorageUnavailable, match="not a folder"):
        restore_gallery(path, path)
    with pytest.raises(StorageUnavailable, match="too long"):
        restore_gallery(path, tmp_path / "new" / ("x" * 300))
    assert names(tmp_path) == ["backup.zip"]
    mount(tmp_path / "read-only", "-t", "tmpfs", "-o", "ro", "tmpfs")
    with pytest.raises(StorageUnavailable, match=r"read-only|not writable"):
        restore_gallery(path, tmp_path / "read-only")


def test_a_folder_has_one_restore_at_a_time(backup: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(backup)

    def again(done: int, total: int) -> None:
        with pytest.raises(GalleryLocked):
            restore_gallery(path, tmp_path / "folder")
        with pytest.raises(GalleryLocked):
            open_gallery(tmp_path / "folder", 64)

    assert restore_gallery(path, tmp_path / "folder", again).items == 9


def test_a_full_disk_leaves_nothing_of_a_restore(tmp_path: Path, mount) -> None:
    rng = random.Random(5)
    many = packed([line(rng.randrange(10**9), label=f"label {rng.randrange(10**9)}") for _ in range(20_000)])
    (tmp_path / "backup.zip").write_bytes(many)
    for size_kb in (3000, 4000, 5500):
        small = tmp_path / f"small-{size_kb}"
        mount(small, "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs")
        with pytest.raises(DiskFull, match="no room left"):
            restore_gallery(tmp_path / "backup.zip", small)
        assert names(small) == []
        with pytest.raises(GalleryError):
            open_gallery(small)


RESTORE = """
import sys
from index_store import restore_gallery
restore_gallery(sys.argv[1], sys.argv[2], lambda done, total: print(done, flush=True))
"""


def test_a_killed_restore_leaves_no_gallery_and_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "backup.zip").write_bytes(packed([line(n) for n in range(60_000)]))
    folder = tmp_path / "folder"
    for tellings in (1, 2, 3):
        arguments = [sys.executable, "-c", RESTORE, str(tmp_path / "backup.zip"), str(folder)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for number in range(tellings):
                assert process.stdout.readline() == b"%d\n" % (10_000 * (number + 1))
            process.kill()
        assert (folder / "restore.staging").exists()
        with pytest.raises(GalleryNotFound):
            open_gallery(folder)
    restore_gallery(tmp_path / "backup.zip", folder)
    with open_gallery(folder) as store:
        assert len(store) == 60_000
    assert not (folder / "restore.staging").exists()


def test_a_new_gallery_clears_up_after_a_killed_restore(tmp_path: Path) -> None:
    staging = tmp_path / "folder" / "restore.staging"
    staging.mkdir(parents=True)
    (staging / "catalog.sqlite3").write_bytes(b"half")
    with open_gallery(tmp_path / "folder", 64) as store:
        assert len(store) == 0
    assert not staging.exists()
