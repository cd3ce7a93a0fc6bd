"""Folders on disk: the user's cache, locks, and what must outlast a crash."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


def user_cache(part: str) -> Path:
    """Give the folder of this project in the user's cache: ``$XDG_CACHE_HOME`` or ``~/.cache`` (XDG Base Directory).

    Args:
        part: ``models`` or ``pretrained``.

    Raises:
        RuntimeError: the user has no home folder, as an unknown user id of a container.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shitu-hash" / part


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that ends with the process at the latest. Its file stays: removing it would let two hold it.

    Args:
        path: file of the lock; its folder is there.
        what: the work that one does at a time, for the line that says why this one waits.
    """
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is %s: waiting for it", what)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def beside(path: Path, suffix: str) -> Path:
    """Give the path with more at the end of its name."""
    return path.with_name(path.name + suffix)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
