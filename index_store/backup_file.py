"""Reading backups: nothing of one is given out unchecked; ``backup.py`` describes the format.

Whoever made the file, reading takes bounded memory: members have the lengths that they declare or are refused, codes
are not compressed, so there are not more of them than the file has bytes for, and lines are of limited length.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

import numpy as np

from index_store.backup import (
    CODES,
    COMMENT,
    COMPRESSION,
    DIGEST_BYTES,
    FORMAT,
    ITEMS,
    MANIFEST,
    VERSION,
    Manifest,
    Member,
)
from index_store.base import BackupInfo, InvalidBackup, InvalidItem, InvalidQuery, StorageUnavailable
from index_store.validation import check_bits, check_method, check_source

_END = struct.Struct("<4s4H2LH")  # the ZIP format's end record, without its comment
_END_BYTES = _END.size + len(COMMENT) + DIGEST_BYTES
_READ_BYTES = 1024 * 1024
_MOST_MANIFEST_BYTES = 64 * 1024
_MOST_DIRECTORY_BYTES = 64 * 1024
_MOST_LINE_BYTES = 1024 * 1024  # metadata of 64 KiB, and a source and a label whose every character is escaped
_LAST_ID_LIMIT = 2**63 - 2**40  # SQLite counts to 2**63; new ids need room above
_TIME = re.compile(r"[0-9T:.+-]{10,40}Z?")
_ENCRYPTED = 0x41


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a backup, as it stands there: ``fields`` is the JSON object, ``line`` counts from 1."""

    line: int
    code: bytes
    fields: dict[str, Any]


def check_backup(path: str | os.PathLike[str]) -> BackupInfo:
    """Check that a file is a whole, undamaged backup, and say what it holds.

    The items' own rules are checked by a restore. Raises InvalidBackup and StorageUnavailable.
    """
    with open_backup(path) as backup:
        backup.check_members()
        return backup.info


@contextmanager
def open_backup(path: str | os.PathLike[str]) -> Iterator[BackupFile]:
    """Open a backup, once all its bytes have been compared with the checksum at its end.

    Raises InvalidBackup, here and while it is read; StorageUnavailable if the file cannot be read.
    """
    with ExitStack() as opened:
        with _faults(path):
            file = opened.enter_context(Path(path).open("rb"))
            _check_bytes(file)
            archive = opened.enter_context(ZipFile(file))
            backup = BackupFile(Path(path), archive, file.seek(0, os.SEEK_END))
        yield backup


class BackupFile:
    """A backup that is being read."""

    def __init__(self, path: Path, archive: ZipFile, size: int) -> None:
        """Read from the archive of a file of ``size`` bytes. Raises InvalidBackup."""
        self._path = path
        self._archive = archive
        self.manifest = _read_manifest(archive)
        self.info = self.manifest.info(size)
        _check_directory(archive, self.manifest)

    def check_members(self) -> None:
        """Compare every member with its checksum."""
        for name in (CODES, ITEMS):
            with self._open(name) as member:
                while member.read(_READ_BYTES):
                    pass
                member.finish()

    def entries(self) -> Iterator[Entry]:
        """Yield the items in order; after the last one everything has been compared with its checksum."""
        count, width = self.manifest.items, self.manifest.bits // 8
        with self._open(CODES) as codes, self._open(ITEMS) as items:
            _check_array(codes, (count, width))
            for line, text in enumerate(_lines(items), 1):
                code = codes.read(width)
                if len(code) < width:
                    raise InvalidBackup(f"{CODES} has {count} codes, {ITEMS} has more lines")
                yield Entry(line, code, _parse(line, text))
            if codes.read(1):
                raise InvalidBackup(f"{CODES} has {count} codes, {ITEMS} has fewer lines")
            codes.finish()
            items.finish()

    @contextmanager
    def _open(self, name: str) -> Iterator[_CheckedMember]:
        with _faults(self._path), self._archive.open(name) as stream:
            yield _CheckedMember(name, stream, self.manifest.members[name])


class _CheckedMember:
    """A member whose length and checksum are compared once it has been read to its end."""

    def __init__(self, name: str, stream: IO[bytes], expected: Member) -> None:
        self._name = name
        self._stream = stream
        self._expected = expected
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        data = self._stream.read(size)
        self._digest.update(data)
        self._size += len(data)
        return data

    def finish(self) -> None:
        if Member(self._size, self._digest.hexdigest()) != self._expected:
            raise InvalidBackup(f"the backup is damaged: {self._name} is not what its manifest says")


def _check_bytes(file: BinaryIO) -> None:
    """Compare all bytes with the checksum at the end, before anything of them is interpreted."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES))
    end = file.read()
    mark, *_, directory_bytes, _, comment_bytes = _END.unpack(end[: _END.size].ljust(_END.size, b"\0"))
    ours = end[:-DIGEST_BYTES].endswith(COMMENT) and comment_bytes == len(COMMENT) + DIGEST_BYTES
    if mark != b"PK\5\6" or not ours:
        raise InvalidBackup(_what_it_is(file))
    file.seek(0)
    digest = hashlib.sha256()
    left = size - DIGEST_BYTES
    while left and (data := file.read(min(left, _READ_BYTES))):
        digest.update(data)
        left -= len(data)
    if digest.hexdigest().encode() != end[-DIGEST_BYTES:]:
        raise InvalidBackup("the backup is damaged: its checksum is another; take another copy of it")
    if directory_bytes > _MOST_DIRECTORY_BYTES:
        raise InvalidBackup("the file is no backup of a gallery: it has more members than any")
    file.seek(0)


def _what_it_is(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(30 + len(CODES))
    if not start:
        return "the backup is empty: nothing of it was written or copied"
    if is_zipfile(file):
        return "the file is no backup of a gallery, or was packed again: give a backup as it was written"
    if start.startswith(b"PK\3\4") and start.endswith(CODES.encode()):
        return "the backup is cut short or damaged: its end is missing; take another copy of it"
    return "the file is no backup of a gallery"


def _read_manifest(archive: ZipFile) -> Manifest:
    """Read the manifest, which says first of all whether this version knows the format."""
    if MANIFEST not in archive.namelist():
        raise InvalidBackup(f"the file is no backup of a gallery: it has no {MANIFEST}")
    entry = archive.getinfo(MANIFEST)
    _check_packing(entry)
    if entry.file_size > _MOST_MANIFEST_BYTES:
        raise InvalidBackup(f"{MANIFEST} is far too long")
    with archive.open(entry) as stream:
        text = stream.read()
    try:
        fields = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidBackup(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InvalidBackup(f"the file is no backup of a gallery: {MANIFEST} does not say {FORMAT!r}")
    version = fields.get("version")
    if version != VERSION or isinstance(version, bool):
        raise InvalidBackup(
            f"the backup has version {version!r} of the format, this program knows version {VERSION}: "
            "restore it with the program that made it, or with a newer one"
        )
    try:
        return _manifest(fields)
    except (KeyError, TypeError, ValueError, InvalidItem, InvalidQuery) as error:
        raise InvalidBackup(f"{MANIFEST} is not as this version writes it: {error}") from error


def _manifest(fields: dict[str, Any]) -> Manifest:
    members = {
        name: Member(_count(fields["members"][name]["bytes"]), str(fields["members"][name]["sha256"]))
        for name in (CODES, ITEMS)
    }
    created_at = fields["created_at"]
    if not isinstance(created_at, str) or _TIME.fullmatch(created_at) is None:
        raise ValueError(f"created_at {created_at!r} is no time")
    fingerprint = check_source(fields["model_fingerprint"])  # null, or a text that SQLite can keep
    last_id = _count(fields["last_id"])
    if last_id >= _LAST_ID_LIMIT:
        raise ValueError(f"last_id {last_id} leaves no room for further ids")
    bits = check_bits(fields["bits"])
    method = check_method(fields["index_method"])
    items = _count(fields["items"])
    return Manifest(FORMAT, VERSION, created_at, bits, fingerprint, items, last_id, method, members)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no count")
    return value


def _check_directory(archive: ZipFile, manifest: Manifest) -> None:
    """Check what the archive says about its members. Raises InvalidBackup."""
    names = archive.namelist()
    if names != [CODES, ITEMS, MANIFEST]:
        odd = next((name for name in names if name not in COMPRESSION), None)
        what = "a member is missing, twice there or out of order" if odd is None else f"{odd[:100]!r} is no part of one"
        raise InvalidBackup(f"the file is not as a backup is: {what}")
    for entry in archive.infolist():
        _check_packing(entry)
        expected = manifest.members.get(entry.filename)
        if expected is not None and expected.bytes != entry.file_size:
            raise InvalidBackup(f"{entry.filename} has {entry.file_size} bytes, but {expected.bytes} by its manifest")


def _check_packing(entry: ZipInfo) -> None:
    if entry.compress_type != COMPRESSION[entry.filename] or entry.flag_bits & _ENCRYPTED:
        raise InvalidBackup(f"{entry.filename} is not packed as a backup packs it")


def _check_array(codes: _CheckedMember, shape: tuple[int, int]) -> None:
    """Read the header of the codes' array. Raises InvalidBackup."""
    try:
        version = np.lib.format.read_magic(codes)
        if version != (1, 0):
            raise ValueError(f"version {version} of NumPy's format")
        header = np.lib.format.read_array_header_1_0(codes)
    except ValueError as error:
        raise InvalidBackup(f"{CODES} is not as a backup writes it: {error}") from error
    if header != (shape, False, np.dtype(np.uint8)):
        raise InvalidBackup(f"{CODES} holds {header[2]} {header[0]}, but uint8 {shape} by its manifest")


def _lines(items: _CheckedMember) -> Iterator[bytes]:
    rest = b""
    while data := items.read(_READ_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if len(rest) > _MOST_LINE_BYTES:
            raise InvalidBackup(f"a line of {ITEMS} is far too long for an item")
    if rest:
        raise InvalidBackup(f"the last line of {ITEMS} is not ended")


def _parse(line: int, text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidBackup(f"line {line} of {ITEMS} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidBackup(f"line {line} of {ITEMS} is not a JSON object")
    return fields


@contextmanager
def _faults(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise errors of the package in place of what zipfile and the system raise."""
    try:
        yield
    except (BadZipFile, EOFError, NotImplementedError, OverflowError, ValueError, struct.error, zlib.error) as error:
        raise InvalidBackup(f"the backup is damaged: {error}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise InvalidBackup("the backup is damaged: it points outside of itself") from error
        raise StorageUnavailable(f"the backup {path} cannot be read: {error.strerror or error}") from error
