"""Folders and files that appear durably: all of it, or nothing."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from index_store.base import DiskFull, StorageUnavailable
from index_store.snapshot import sync_folder


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it, durably; return the new ones, the innermost first. Raises OSError."""
    exist = [path.exists() for path in (folder, *folder.parents)]
    new = [folder, *folder.parents][: exist.index(True)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)
    except BaseException:
        remove_folders(new)
        raise
    return new


def remove_folders(folders: Sequence[Path]) -> None:
    """Remove folders that ``make_folder`` made; one stays if somebody put something there."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path``, durably, when the block ends.

    If the block fails, ``path`` is what it was and nothing is beside it. Raises DiskFull and StorageUnavailable
    in place of the system's errors.
    """
    torn = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with _writing(path):
        if path.exists() and not path.is_file():
            raise StorageUnavailable(f"{path} is there and is no regular file: name another one")
        try:
            with torn.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            torn.replace(path)
            sync_folder(path.parent)
        except BaseException:
            torn.unlink(missing_ok=True)
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room left for {path}: free some and try again; nothing was written") from error
        raise StorageUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
