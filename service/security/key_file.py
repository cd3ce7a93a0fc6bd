"""The file that keys are kept in: reading it, noticing that it changed, and changing it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from index_store.folders import whole_file

from ..errors import KeyFileError
from .key_lines import Source, name_in, parse, write_line
from .keys import ApiKey, KeyRing

_ENCODING, _ERRORS = "utf-8", "surrogateescape"  # whatever a comment holds, it is written back as it was
_OWNER_ONLY = 0o600
_MOST_MODE = 0o640  # what a file that is there may keep of its mode: a service of its group may read it


@dataclass(frozen=True)
class Stamp:
    """What tells one state of a file from another; all zero if there is none."""

    mtime_ns: int = 0
    size: int = 0
    inode: int = 0


@dataclass(frozen=True)
class KeyFile:
    """A file as it was read.

    Attributes:
        source: its lines; none if there is no file.
        stamp: of the state that was read.
        exposed: what is wrong with who may read or write it; None: nothing.
    """

    source: Source
    stamp: Stamp
    exposed: str | None

    @property
    def remedy(self) -> str:
        """The command that mends what is ``exposed``."""
        return f"chmod 600 {self.source.name}"


def stamp_of(path: Path) -> Stamp:
    """Look at a file without opening it; what cannot be looked at has the stamp of a file that is not there."""
    try:
        return _stamp(path.stat())
    except OSError:
        return Stamp()


def read_key_file(path: Path) -> KeyFile:
    """Read a file of keys. One that is not there reads like an empty one.

    What is not UTF-8 reads as lone surrogates, which only a comment can have.

    Raises:
        KeyFileError: it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise KeyFileError([f"{path}: is not a regular file"])
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read().decode(_ENCODING, _ERRORS)
    except FileNotFoundError:
        return KeyFile(Source(str(path), ""), Stamp(), None)
    except PermissionError as error:
        raise KeyFileError([f"{path}: cannot be read: let user {os.geteuid()} read it"]) from error
    except OSError as error:
        raise KeyFileError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    return KeyFile(Source(str(path), text), _stamp(status), _exposed(path, status.st_mode))


def add_key(path: Path, key: ApiKey) -> None:
    """Add a key at the end of a file, which is made if it is not there. Nothing else in it changes.

    Raises:
        KeyFileError: the name or the limits cannot be used, the name is there already, or the file has mistakes.
        StorageUnavailable, DiskFull: it cannot be written; it is what it was.
    """
    with _owned(path) as target:
        text = read_key_file(target).source.text
        separator = "" if not text or text.endswith("\n") else "\n"
        _write(target, f"{text}{separator}{write_line(key)}\n")


def remove_key(path: Path, name: str) -> bool:
    """Take a key's line out of a file; tell whether there was one. Nothing else in it changes.

    Raises:
        KeyFileError: the file has mistakes.
        StorageUnavailable, DiskFull: it cannot be written; it is what it was.
    """
    with _owned(path) as target:
        lines = read_key_file(target).source.text.split("\n")
        kept = [line for line in lines if name_in(line) != name]
        if len(kept) < len(lines):
            emptied = "\n".join("" if name_in(line) == name else line for line in lines)
            parse([Source(str(target), emptied)])  # mistakes are told with the numbers that the lines have in the file
            _write(target, "\n".join(kept))
        return len(kept) < len(lines)


def read_keys(path: Path) -> KeyRing:
    """Read the keys of one file. Raises KeyFileError."""
    return parse([read_key_file(path).source])


@contextmanager
def _owned(path: Path) -> Iterator[Path]:
    """Keep other commands from changing the file meanwhile; give the file itself where ``path`` is a link to it.

    The folder is locked, not the file: that is another one after each change.
    """
    target = path.resolve()
    try:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeyFileError([f"{target.parent}: cannot be opened: {error.strerror or error}"]) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield target
    finally:
        os.close(folder)


def _write(path: Path, text: str) -> None:
    parse([Source(str(path), text)])
    with whole_file(path) as file:
        _protect(file.fileno(), path)
        file.write(text.encode(_ENCODING, _ERRORS))


def _protect(descriptor: int, former: Path) -> None:
    """Let nobody else read a new file; in place of a former one, keep its owner and what of its mode is harmless."""
    os.fchmod(descriptor, _OWNER_ONLY)
    if not former.exists():
        return
    status = former.stat()
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, _OWNER_ONLY | (status.st_mode & _MOST_MODE))


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_mtime_ns, status.st_size, status.st_ino)


def _exposed(path: Path, mode: int) -> str | None:
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be changed by others than its owner, who could let themselves in"
    if mode & stat.S_IROTH:
        return f"{path} can be read by everybody on this machine"
    return None
