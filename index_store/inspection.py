"""Looking at the files of a gallery without owning or changing them, also while another process serves it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from index_store.base import CorruptSnapshot, GalleryNotFound, StorageUnavailable, UnknownSchema
from index_store.catalog import FILE_NAME, SCHEMA
from index_store.faults import storage_faults
from index_store.recovery import SNAPSHOT_NAME
from index_store.snapshot import open_snapshot

_STEPS = 10_000  # of SQLite's machine between two looks at the clock


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """What a catalog says of itself. ``sound`` is whether SQLite found it whole; None: that took too long."""

    items: int
    bits: int
    fingerprint: str | None
    method: str
    bytes: int
    sound: bool | None
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What a snapshot of the index is. ``flaw`` says why it cannot be used; ``sound`` is as of a catalog."""

    method: str
    bytes: int
    sound: bool | None
    flaw: str = ""


def lock_owner(folder: Path) -> str | None:
    """Say who owns a folder: a process number, "?" if that is not known, None for nobody. Raises OSError."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of with the descriptor
    except BlockingIOError:
        return os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(descriptor)
    return None


def inspect_catalog(folder: Path, limit_s: float) -> CatalogFacts:
    """Read a catalog and check it for at most ``limit_s``.

    Raises GalleryNotFound, UnknownSchema and StorageUnavailable.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise GalleryNotFound(f"{folder} holds no gallery")
    log, shared = path.with_name(FILE_NAME + "-wal"), path.with_name(FILE_NAME + "-shm")
    # SQLite cannot open a catalog without a log for reading alone unless it is told that nobody writes to it. Who has
    # it open may yet write, though nothing is in the log: its shared memory says so.
    how = "mode=ro" if shared.exists() or (log.exists() and log.stat().st_size) else "immutable=1"
    with (
        storage_faults(folder),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=5)) as db,
    ):
        try:
            (schema,) = db.execute("SELECT schema FROM gallery").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise StorageUnavailable(f"{path} is a database, but no catalog of a gallery") from error
            raise
        if schema != SCHEMA:
            raise UnknownSchema(f"the catalog in {folder} has schema {schema}; this version knows schema {SCHEMA}")
        bits, fingerprint, method = db.execute("SELECT bits, fingerprint, method FROM gallery").fetchone()
        (items,) = db.execute("SELECT count(*) FROM item").fetchone()
        sound, flaw = _quick_check(db, limit_s)
    return CatalogFacts(items, bits, fingerprint, method, path.stat().st_size, sound, flaw)


def inspect_snapshot(folder: Path, limit_s: float) -> SnapshotFacts | None:
    """Read a snapshot and check its sums for at most ``limit_s``; None if there is none. Raises OSError."""
    path = folder / SNAPSHOT_NAME
    method = "?"
    in_time = _until(limit_s)
    try:
        size = path.stat().st_size
        with open_snapshot(path) as reader:
            method = reader.header.method
            for _ in reader.chunks():
                if not in_time():
                    return SnapshotFacts(method, size, None)
    except FileNotFoundError:
        return None
    except (CorruptSnapshot, ValueError, KeyError, TypeError) as error:
        return SnapshotFacts(method, size, False, str(error))
    return SnapshotFacts(method, size, True)


def _quick_check(db: sqlite3.Connection, limit_s: float) -> tuple[bool | None, str]:
    in_time = _until(limit_s)
    db.set_progress_handler(lambda: not in_time(), _STEPS)
    try:
        (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None, ""
        raise
    return answer == "ok", "" if answer == "ok" else str(answer)


def _until(limit_s: float) -> Callable[[], bool]:
    deadline = time.monotonic() + limit_s
    return lambda: time.monotonic() < deadline
