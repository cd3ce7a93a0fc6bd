"""Tell the errors of SQLite and of the operating system as errors of the store."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index_store.base import DiskFull, StorageUnavailable


@contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Raise DiskFull or StorageUnavailable in place of what SQLite and the system raise about ``folder``."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a fault of ours, not of the storage
    except sqlite3.DatabaseError as error:
        raise _from_sqlite(error, folder) from error
    except OSError as error:
        raise _from_system(error, folder) from error


def _from_sqlite(error: sqlite3.DatabaseError, folder: Path) -> StorageUnavailable:
    # Python 3.10 does not give SQLite's error codes; the texts are fixed in SQLite's sources.
    text = str(error)
    if "disk is full" in text:
        return DiskFull(f"no room left in {folder}: free some and try again; nothing of this call was stored")
    if "readonly" in text:
        return StorageUnavailable(f"the data folder {folder} is read-only: make it writable")
    if "malformed" in text or "not a database" in text:
        return StorageUnavailable(f"the catalog in {folder} is damaged ({text}): restore it from a backup")
    return StorageUnavailable(f"the catalog in {folder} cannot be used: {text}")


def _from_system(error: OSError, folder: Path) -> StorageUnavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no room left in {folder}: free some and try again; nothing of this call was stored")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageUnavailable(
            f"the data folder {folder} is not writable ({error.strerror}): "
            "make it writable for this user, or choose another one"
        )
    return StorageUnavailable(f"the data folder {folder} cannot be used: {error.strerror or error}")
