"""The snapshot file: an index's pairs on disk, so that a start need not read them out of the catalog.

Layout, little-endian: a header of 4,096 bytes (magic, length and CRC-32 of a JSON text, the text, zeros),
then blocks, each of a count n (uint32), the CRC-32 of what follows, rows int64 (n,) and codes uint8
(n, bits / 8). The header names a token that the catalog knows too: a catalog that was restored from a backup
does not know the token of a later snapshot, so the two are never mixed up.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from index_store.base import Codes, CorruptSnapshot
from index_store.hamming import Rows

_MAGIC = b"SHITUIDX"
_VERSION = 1
_HEADER_BYTES = 4096
_PREFIX = struct.Struct("<8sII")
_BLOCK = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot holds: every item of rows up to ``last_row``, as after removal ``last_removal``."""

    version: int
    token: str
    method: str
    bits: int
    fingerprint: str | None
    last_row: int
    last_removal: int
    count: int


class SnapshotWriter:
    """Writes a snapshot beside its place; ``publish`` puts it there. Left without it, nothing remains."""

    def __init__(self, path: Path) -> None:
        """Start a temporary file next to ``path``."""
        self._path = path
        self._temporary = temporary_path(path)
        self._file: BinaryIO = self._temporary.open("wb")
        self._file.seek(_HEADER_BYTES)
        self.count = 0

    def write(self, rows: Rows, codes: Codes) -> None:
        """Append pairs: int64 (n,) and uint8 (n, bits / 8)."""
        if not len(rows):
            return  # the reader takes an empty block for damage
        body = rows.astype("<i8", copy=False).tobytes() + codes.tobytes()
        self._file.write(_BLOCK.pack(len(rows), zlib.crc32(body)))
        self._file.write(body)
        self.count += len(rows)

    def finish(self, token: str, method: str, bits: int, fingerprint: str | None, at: tuple[int, int]) -> None:
        """Write the header and make the temporary file durable; ``at`` is (last row, last removal)."""
        header = Header(_VERSION, token, method, bits, fingerprint, *at, self.count)
        text = json.dumps(asdict(header)).encode()
        self._file.seek(0)
        self._file.write(_PREFIX.pack(_MAGIC, len(text), zlib.crc32(text)) + text)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> None:
        """Put the finished file in its place, durably."""
        self._temporary.replace(self._path)
        sync_folder(self._path.parent)

    def __enter__(self) -> SnapshotWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what was written, if it was not published."""
        try:
            self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)


class SnapshotReader:
    """Reads a snapshot; everything in it is checked before it is given out."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        """Read blocks from ``file``, which stands behind the header."""
        self._file = file
        self.header = header

    def blocks(self) -> Iterator[tuple[Rows, Codes]]:
        """Yield rows and codes block by block. Raises CorruptSnapshot."""
        code_size = self.header.bits // 8
        read = 0
        while read < self.header.count:
            count, checksum = _BLOCK.unpack(_read_exactly(self._file, _BLOCK.size))
            if not 0 < count <= self.header.count - read:
                raise CorruptSnapshot("a block has an impossible length")
            body = _read_exactly(self._file, count * (8 + code_size))
            if zlib.crc32(body) != checksum:
                raise CorruptSnapshot("a block's checksum is wrong")
            rows = np.frombuffer(body, dtype="<i8", count=count).astype(np.int64, copy=False)
            yield rows, np.frombuffer(body, dtype=np.uint8, offset=count * 8).reshape(count, code_size)
            read += count
        if self._file.read(1):
            raise CorruptSnapshot("there is more in the file than its header says")


@contextmanager
def open_snapshot(path: Path) -> Iterator[SnapshotReader]:
    """Open a snapshot. Raises CorruptSnapshot, FileNotFoundError or another OSError."""
    with path.open("rb") as file:
        prefix, length, checksum = _PREFIX.unpack(_read_exactly(file, _PREFIX.size))
        if prefix != _MAGIC or length > _HEADER_BYTES - _PREFIX.size:
            raise CorruptSnapshot("the file is no snapshot")
        text = _read_exactly(file, length)
        if zlib.crc32(text) != checksum:
            raise CorruptSnapshot("the header's checksum is wrong")
        fields = json.loads(text)
        if fields["version"] != _VERSION:
            raise CorruptSnapshot(f"the snapshot has version {fields['version']}, not {_VERSION}")
        file.seek(_HEADER_BYTES, io.SEEK_SET)
        yield SnapshotReader(file, Header(**fields))


def temporary_path(path: Path) -> Path:
    """Return where a snapshot for ``path`` grows; what a killed process left there is worth nothing."""
    return path.with_name(path.name + ".tmp")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise CorruptSnapshot("the file ends too early")
    return data
