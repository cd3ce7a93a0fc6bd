"""Backups: a gallery at one moment in one file that needs neither SQLite nor this package to be read.

It is a ZIP file (ZIP64 where it must be) of three members, in this order:

``codes.npy``
    the codes, uint8 (n, bits / 8), in NumPy's format 1.0, not compressed: codes hardly can be.
``items.jsonl``
    one JSON object a line, in UTF-8 and in the order of the codes: ``id``, ``label``, ``metadata``, ``source``
    (or null) and ``created_at`` (milliseconds since 1970). Deflated.
``manifest.json``
    the format's name and version, when the backup was taken, ``bits``, ``model_fingerprint`` (or null),
    ``items``, ``last_id`` (the number of the last id that the store made, so that new ones go on rising),
    ``index_method`` (what was chosen) and of either member its length and SHA-256.

The archive's comment ends with the SHA-256 of every byte before it, so no byte can change unnoticed. Everything is
written front to back in bounded memory, so a backup can go into a pipe. It does not hold the index, which follows from
the codes, nor kept pictures, which are files already.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from index_store.base import BackupInfo, Method
from index_store.catalog import Catalog, format_time
from index_store.folders import whole_file

FORMAT = "shitu-hash gallery backup"
VERSION = 1
CODES, ITEMS, MANIFEST = "codes.npy", "items.jsonl", "manifest.json"
COMPRESSION = {CODES: ZIP_STORED, ITEMS: ZIP_DEFLATED, MANIFEST: ZIP_STORED}
COMMENT = b"shitu-hash gallery backup, SHA-256 of all before: "
DIGEST_BYTES = 64

_LEVEL = 1
_BLOCK_BYTES = 64 * 1024  # larger ones would hold up other threads for longer
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode

Progress = Callable[[int, int], None]
Blocks = Generator[bytes, None, None]


@dataclass(frozen=True, slots=True)
class Member:
    """What a manifest says of another member: its length and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` holds."""

    format: str
    version: int
    created_at: str
    bits: int
    model_fingerprint: str | None
    items: int
    last_id: int
    index_method: Method
    members: dict[str, Member]

    def info(self, size: int) -> BackupInfo:
        """Describe the backup whose file has ``size`` bytes."""
        return BackupInfo(self.items, self.bits, self.model_fingerprint, self.created_at, size)


def write_backup(
    catalog: Catalog, target: str | os.PathLike[str] | BinaryIO, progress: Progress | None = None
) -> BackupInfo:
    """Write a backup to a path, whole or not at all, or to a binary stream; see ``GalleryStore.backup``."""
    chunks = stream_backup(catalog, progress)
    if not isinstance(target, (str, os.PathLike)):
        return _pour(chunks, target)
    with whole_file(Path(target)) as file:
        return _pour(chunks, file)


def stream_backup(catalog: Catalog, progress: Progress | None = None) -> Generator[bytes, None, BackupInfo]:
    """Yield a backup piece by piece, each of little more than 64 KB, and return what it holds."""
    now_ms = time.time_ns() // 1_000_000
    digest, size = hashlib.sha256(), 0
    outlet, members = _Outlet(), dict[str, Member]()
    with ZipFile(outlet, "w", compresslevel=_LEVEL) as archive:
        with catalog.moment() as moment:
            state, steps = moment.state, _Steps(moment.state.items, progress)
            codes = _codes_npy(moment.codes(), state.items, state.bits, steps)
            items = _items_jsonl(moment.items(), steps)
            for name, blocks in ((CODES, codes), (ITEMS, items)):
                with closing(_add_member(archive, outlet, name, blocks, members)) as pieces:
                    for piece in pieces:
                        digest.update(piece)
                        size += len(piece)
                        yield piece
        manifest = Manifest(
            FORMAT,
            VERSION,
            format_time(now_ms),
            state.bits,
            state.fingerprint,
            state.items,
            state.last_id,
            state.method,
            members,
        )
        archive.compression = COMPRESSION[MANIFEST]
        with archive.open(MANIFEST, "w") as member:
            member.write(json.dumps(asdict(manifest), indent=1).encode() + b"\n")
        archive.comment = COMMENT + bytes(DIGEST_BYTES)
    end = outlet.take()[:-DIGEST_BYTES]
    digest.update(end)
    yield end + digest.hexdigest().encode()
    return manifest.info(size + len(end) + DIGEST_BYTES)


def _add_member(
    archive: ZipFile, outlet: _Outlet, name: str, blocks: Blocks, members: dict[str, Member]
) -> Generator[bytes, None, None]:
    """Write one member, yield what that puts out, and note the member."""
    digest, size = hashlib.sha256(), 0
    archive.compression = COMPRESSION[name]
    with closing(blocks), archive.open(name, "w", force_zip64=True) as member:
        for block in blocks:
            digest.update(block)
            size += len(block)
            member.write(block)
            if piece := outlet.take():
                yield piece
    members[name] = Member(size, digest.hexdigest())


def _codes_npy(codes: Iterator[bytes], count: int, bits: int, steps: _Steps) -> Blocks:
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (count, bits // 8)}
    np.lib.format.write_array_header_1_0(header, shape)
    yield header.getvalue()
    yield from _blocks(codes, steps)


def _items_jsonl(items: Iterator[tuple[str, str, str | None, str | None, int]], steps: _Steps) -> Blocks:
    # Ids need no escapes, and metadata is stored as the JSON text, on one line, that it was checked as.
    lines = (
        f'{{"id":"{item_id}","label":{_ENCODE(label)},"metadata":{metadata or "{}"},'
        f'"source":{_ENCODE(source)},"created_at":{created_ms}}}\n'.encode()
        for item_id, label, metadata, source, created_ms in items
    )
    yield from _blocks(lines, steps)


def _blocks(parts: Iterator[bytes], steps: _Steps) -> Iterator[bytes]:
    """Join parts into blocks that are worth a step."""
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= _BLOCK_BYTES:
            yield b"".join(gathered)
            steps.take(len(gathered))
            gathered, size = [], 0
    yield b"".join(gathered)
    steps.take(len(gathered))


class _Steps:
    """Tells how far a backup is; each item takes two steps, its code and the rest of it."""

    def __init__(self, items: int, progress: Progress | None) -> None:
        self._items = items
        self._progress = progress
        self._taken = 0

    def take(self, steps: int) -> None:
        self._taken += steps
        if self._progress is not None:
            self._progress(self._taken // 2, self._items)


class _Outlet(io.RawIOBase):
    """Where the archive is written to and taken from; it cannot seek, so the archive writes front to back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _pour(chunks: Generator[bytes, None, BackupInfo], stream: BinaryIO) -> BackupInfo:
    with closing(chunks):
        while True:
            try:
                chunk = memoryview(next(chunks))
            except StopIteration as end:
                info: BackupInfo = end.value
                return info
            while chunk:  # a raw stream may take a part only
                chunk = chunk[stream.write(chunk) :]
