"""Unpacking an archive that a stranger may have made: only a model's files, under names of ours, within limits.

Nothing is extracted by ``tarfile`` or ``zipfile``, whose protections differ between versions of Python: entries are
read one after the other, and the bytes of those that a model folder needs are written to files that this module names
and opens itself. What no honest archive of a model holds (links, devices, paths that lead out, two files of one name)
condemns the archive as a whole. Modes, owners and times in it count for nothing.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO

from .errors import ArchiveInvalid
from .folders import sync

_WANTED = ("*.pdmodel", "*.json", "*.pdiparams", "*.yml", "*.yaml", "LICENSE*", "README*")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OURS = "manifest.json"  # what a pull writes into the folder
# Of Paddle's own export and of no use here: it is a pickle, which nothing of ours opens and nobody should.
_PASSED_OVER = "*.pdiparams.info"
_PIECE_BYTES = 1 << 20
_RATIO_FLOOR_BYTES = 16 << 20  # what a small file may unpack to, however well it is compressed


@dataclass(frozen=True)
class Limits:
    """What an archive may ask for.

    Attributes:
        total_bytes: of everything in it, unpacked.
        entries: files and folders.
        depth: folders above a file.
        ratio: of the unpacked bytes to those of the archive; weights hardly compress.
    """

    total_bytes: int = 2 << 30
    entries: int = 1000
    depth: int = 8
    ratio: int = 20


@dataclass(frozen=True)
class Unpacked:
    """What became of the files of an archive: names that were kept, and paths that were left out."""

    kept: tuple[str, ...]
    left_out: tuple[str, ...]


LIMITS = Limits()


def check_archive(path: Path, name: str) -> None:
    """See by its first bytes that a file is an archive at all.

    Args:
        path: the file.
        name: what people call it, such as its address.

    Raises:
        ArchiveInvalid: it is not; the text says what it looks like.
    """
    with _condemning(name):
        _sniff(path)


def unpack(archive: Path, target: Path, name: str, limits: Limits = LIMITS) -> Unpacked:
    """Unpack the files of one exported model into a new folder, or leave none.

    Args:
        archive: a tar, a tar.gz or a zip, with the model's files at its top or in one folder.
        target: folder to make; the one above it is there. The files in it are on the disk when this returns.
        name: what people call the archive, such as its address.
        limits: what it may ask for.

    Raises:
        ArchiveInvalid: it is no archive, torn, not to be trusted, or without the graph and parameters of one model.
        OSError: it cannot be read, or the disk cannot take it.
    """
    target.mkdir()
    try:
        taken = _Taking(target, limits)
        with _condemning(name):
            for entry in _entries(archive, limits):
                taken.take(entry)
            result = taken.finish()
        sync(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return result


@dataclass(frozen=True)
class _Entry:
    """One entry: its path as written, its kind, the bytes it claims, and what opens it."""

    name: str
    kind: str  # "file", "folder", or what is refused
    size: int
    open: Callable[[], IO[bytes] | None]


@dataclass
class _Taking:
    """The state of one unpacking."""

    target: Path
    limits: Limits
    total: int = 0
    seen: set[PurePosixPath] = field(default_factory=set)
    kept: dict[str, PurePosixPath] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def take(self, entry: _Entry) -> None:
        """Check an entry, and write it where a model folder needs it."""
        path = self._check(entry)
        self.total += entry.size
        if self.total > self.limits.total_bytes:
            raise ArchiveInvalid(f"unpacks to more than the {self.limits.total_bytes:,} bytes that are allowed")
        if entry.kind == "folder":
            return
        if not _is_wanted(path.name):
            if not fnmatchcase(path.name, _PASSED_OVER):
                self.left_out.append(_printable(entry.name))
            return
        if path.name in self.kept:
            raise ArchiveInvalid(f"holds {path.name} twice, in {self.kept[path.name].parent} and in {path.parent}")
        self.kept[path.name] = path
        self._write(entry, path.name)

    def finish(self) -> Unpacked:
        """See that one model has come."""
        suffixes = {PurePosixPath(name).suffix for name in self.kept}
        if not suffixes & {".pdmodel", ".json"} or ".pdiparams" not in suffixes:
            there = ", ".join([*self.kept, *self.left_out][:10]) or "nothing"
            raise ArchiveInvalid(
                "holds no exported model: it needs a graph (.pdmodel or .json) and its .pdiparams, "
                f"and there is {there}"
            )
        if len({path.parent for path in self.kept.values()}) > 1:
            raise ArchiveInvalid("holds models in several folders: repack the one you want")
        return Unpacked(tuple(sorted(self.kept)), tuple(self.left_out))

    def _check(self, entry: _Entry) -> PurePosixPath:
        shown = _printable(entry.name)
        if len(self.seen) >= self.limits.entries:
            raise ArchiveInvalid(f"holds more than the {self.limits.entries:,} entries that are allowed")
        if entry.kind not in ("file", "folder"):
            raise ArchiveInvalid(f"holds {entry.kind}: {shown}")
        path = PurePosixPath(entry.name)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.name or "\0" in entry.name:
            raise ArchiveInvalid(f"holds a path that leads out of its folder: {shown}")
        if len(path.parts) - 1 > self.limits.depth:
            raise ArchiveInvalid(f"holds folders nested deeper than the {self.limits.depth} allowed: {shown}")
        if entry.kind == "file" and path in self.seen:
            raise ArchiveInvalid(f"holds two files of one name: {shown}")
        self.seen.add(path)
        return path

    def _write(self, entry: _Entry, name: str) -> None:
        reader = entry.open()
        if reader is None:
            raise ArchiveInvalid(f"gives nothing to read for {name}")
        written = 0
        with reader, (self.target / name).open("xb") as stream:
            while piece := reader.read(_PIECE_BYTES):
                written += len(piece)
                if written > entry.size:
                    break
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        if written != entry.size:
            raise ArchiveInvalid(f"is torn: {name} should have {entry.size:,} bytes")


def _printable(name: str) -> str:
    """Show a name from an archive so that it cannot steer a terminal or pass for another one."""
    return ascii(name)[1:-1][:200]


def _is_wanted(name: str) -> bool:
    return (
        _SAFE_NAME.fullmatch(name) is not None
        and name != _OURS
        and any(fnmatchcase(name, pattern) for pattern in _WANTED)
    )


@contextmanager
def _condemning(name: str) -> Iterator[None]:
    """Name the archive in what is wrong with it; what the libraries raise for torn and hostile files is that, too."""
    try:
        yield
    except ArchiveInvalid as error:
        raise ArchiveInvalid(f"{name} {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ArchiveInvalid(f"{name} is torn or no archive: {error}") from error
    except (ValueError, OverflowError, NotImplementedError, struct.error) as error:  # impossible numbers and versions
        raise ArchiveInvalid(f"{name} cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the file's beginning
            raise ArchiveInvalid(f"{name} is torn: {error}") from error
        raise


def _entries(archive: Path, limits: Limits) -> Iterator[_Entry]:
    kind = _sniff(archive)
    if kind == "zip":
        yield from _zip_entries(archive, limits)
        return
    most = min(limits.total_bytes, max(_RATIO_FLOOR_BYTES, archive.stat().st_size * limits.ratio))
    with archive.open("rb") as raw:
        plain = gzip.GzipFile(fileobj=raw) if kind == "gzip" else raw
        # As a stream, which cannot be sent backwards: a negative size in a header would have tarfile read for ever.
        with tarfile.open(fileobj=_Metered(plain, most), mode="r|") as tar:
            for member in tar:
                yield _Entry(member.name, _tar_kind(member), member.size, partial(tar.extractfile, member))


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if member.isdir():
        return "folder"
    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse() and member.size >= 0:
        return "file"
    return "what is neither a file nor a folder"


def _zip_entries(archive: Path, limits: Limits) -> Iterator[_Entry]:
    allowed = max(_RATIO_FLOOR_BYTES, archive.stat().st_size * limits.ratio)
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        if sum(member.file_size for member in members) > allowed:
            raise ArchiveInvalid(f"unpacks to more than {limits.ratio} times its size")
        for member in members:
            yield _Entry(member.orig_filename, _zip_kind(member), member.file_size, partial(opened.open, member))


def _zip_kind(member: zipfile.ZipInfo) -> str:
    mode = member.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a link"
    if member.flag_bits & 0x1:
        return "an encrypted file"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "a file that is compressed in an unusual way"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "what is neither a file nor a folder"
    return "folder" if member.is_dir() else "file"


class _Metered(BufferedIOBase):
    """Reads on from a stream, up to a limit."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int | None = -1, /) -> bytes:
        most = self._left + 1
        piece = self._stream.read(most if size is None or size < 0 else min(size, most))
        self._left -= len(piece)
        if self._left < 0:
            raise ArchiveInvalid("unpacks to more than its size or the limit allows")
        return piece


def _sniff(path: Path) -> str:
    """Tell what a file is by its first bytes: ``tar``, ``gzip`` or ``zip``."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if _is_tar(head):
        return "tar"
    looks = "empty" if not head else "no tar, tar.gz or zip"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        looks = "a web page, perhaps one to sign in to the network"
    raise ArchiveInvalid(f"is {looks}")


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
