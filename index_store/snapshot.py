"""The snapshot file: an index on disk, so that a start need not make it out of the catalog.

Layout, little-endian: a header of 4,096 bytes (magic, length and CRC-32 of a JSON text, the text, zeros),
then chunks, each of a kind (8 ASCII bytes), a count n (uint32), the CRC-32 of what follows, and the columns
of that kind one after another, n rows each (see ``_COLUMNS``; ``hamming.Chunk`` says what they mean). The
header names a token that the catalog knows too: a catalog that was restored from a backup does not know the
token of a later snapshot, so the two are never mixed up.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from index_store.base import CorruptSnapshot
from index_store.hamming import Chunk

_MAGIC = b"SHITUIDX"
_VERSION = 2
_HEADER_BYTES = 4096
_PREFIX = struct.Struct("<8sII")
_CHUNK = struct.Struct("<12sII")
_MOST_BYTES = 1 << 30  # in a chunk; more is damage
_CODE = "code"  # a column of bits / 8 bytes
_COLUMNS = {
    "pairs": ("<i8", _CODE),
    "centroids": (_CODE,),
    "lists": ("<i8", _CODE, "<i8"),
    "nodes": ("<i8", "<i4", _CODE),
    "links": ("<i4",),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot holds: every item of rows up to ``last_row``, as after removal ``last_removal``."""

    version: int
    token: str
    method: str
    bits: int
    last_row: int
    last_removal: int
    chunks: int
    facts: dict[str, int]


class SnapshotWriter:
    """Writes a snapshot beside its place; ``publish`` puts it there. Left without it, nothing remains."""

    def __init__(self, path: Path) -> None:
        """Start a temporary file next to ``path``."""
        self._path = path
        self._temporary = temporary_path(path)
        self._file: BinaryIO = self._temporary.open("wb")
        self._file.seek(_HEADER_BYTES)
        self._chunks = 0

    def write(self, chunk: Chunk) -> None:
        """Append a chunk."""
        types = ["u1" if kind == _CODE else kind for kind in _COLUMNS[chunk.kind]]
        columns = zip(chunk.columns, types, strict=True)
        body = b"".join([column.astype(kind, copy=False).tobytes() for column, kind in columns])
        self._file.write(_CHUNK.pack(chunk.kind.encode(), len(chunk.columns[0]), zlib.crc32(body)))
        self._file.write(body)
        self._chunks += 1

    def finish(self, token: str, method: str, bits: int, at: tuple[int, int], facts: Mapping[str, int]) -> None:
        """Write the header and make the temporary file durable; ``at`` is (last row, last removal)."""
        header = Header(_VERSION, token, method, bits, *at, self._chunks, dict(facts))
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
        """Read chunks from ``file``, which stands behind the header."""
        self._file = file
        self.header = header

    def chunks(self) -> Iterator[Chunk]:
        """Yield the index part by part. Raises CorruptSnapshot."""
        for _ in range(self.header.chunks):
            name, count, checksum = _CHUNK.unpack(_read_exactly(self._file, _CHUNK.size))
            kind = name.rstrip(b"\0").decode("ascii", "replace")
            if kind not in _COLUMNS:
                raise CorruptSnapshot("a chunk is of no known kind")
            yield Chunk(kind, self._columns(kind, count, checksum))
        if self._file.read(1):
            raise CorruptSnapshot("there is more in the file than its header says")

    def _columns(self, kind: str, count: int, checksum: int) -> tuple[NDArray[Any], ...]:
        code_size = self.header.bits // 8
        widths = [code_size if column == _CODE else np.dtype(column).itemsize for column in _COLUMNS[kind]]
        if count * sum(widths) > _MOST_BYTES:
            raise CorruptSnapshot("a chunk has an impossible length")
        body = _read_exactly(self._file, count * sum(widths))
        if zlib.crc32(body) != checksum:
            raise CorruptSnapshot("a chunk's checksum is wrong")
        columns, offset = [], 0
        for column, width in zip(_COLUMNS[kind], widths, strict=True):
            if column == _CODE:
                codes = np.frombuffer(body, dtype=np.uint8, count=count * width, offset=offset)
                columns.append(codes.reshape(count, width))
            else:
                native = np.dtype(column).newbyteorder("=")
                columns.append(np.frombuffer(body, column, count, offset).astype(native, copy=False))
            offset += count * width
        return tuple(columns)


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
