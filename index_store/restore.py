"""Restoring a backup into a folder that holds no gallery: all of it, or nothing.

The catalog grows in a folder of its own inside the target (which may be a mount point, so nothing outside of it
would do) and is renamed to its place at the end, which is when the target becomes a gallery. What a killed restore
leaves is no gallery, and goes at the next restore or opening. The index is made at the next opening.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

from index_store.backup import CODES, ITEMS
from index_store.backup_file import BackupFile, Entry, open_backup
from index_store.base import BackupInfo, DiskFull, GalleryExists, InvalidBackup, InvalidItem, Item, StorageUnavailable
from index_store.catalog import FILE_NAME, Catalog, NewItem
from index_store.enrolment import check_item
from index_store.faults import storage_faults
from index_store.folders import make_folder, remove_folders
from index_store.locks import FolderLock
from index_store.snapshot import sync_folder

_STAGING = "restore.staging"
_BATCH = 10_000
_BATCH_BYTES = 16 * 2**20
_FIELDS = {"id", "label", "metadata", "source", "created_at"}
_MOST_CREATED_MS = 253_402_300_799_999  # the end of the year 9999, the last that can be written

Progress = Callable[[int, int], None]


def restore_gallery(
    file: str | os.PathLike[str], folder: str | os.PathLike[str], progress: Progress | None = None
) -> BackupInfo:
    """Make the gallery of a backup anew in ``folder``, which is made if it is not there; ids and times are kept.

    Everything in the file is checked on the way, each item as if it were enrolled; nothing is left of a restore
    that fails. ``progress`` is told how many items are done, and of how many.

    Raises GalleryExists if the folder holds a gallery, InvalidBackup if the file is no whole and undamaged backup,
    GalleryLocked, StorageUnavailable and DiskFull.
    """
    target = Path(folder).absolute()
    _refuse_gallery(target)
    with open_backup(file) as backup, ExitStack() as undo:
        with storage_faults(target):
            undo.callback(remove_folders, make_folder(target))
        lock_was_there = (target / "lock").exists()
        owner = FolderLock(target)
        undo.callback(lambda: owner.release(remove=not lock_was_there))
        _refuse_gallery(target)
        _grow_and_publish(backup, target, undo, progress or (lambda done, total: None))
        undo.pop_all()
        owner.release()
        return backup.info


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed restore left in a folder that is owned. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder / _STAGING)


def _refuse_gallery(target: Path) -> None:
    with storage_faults(target):
        # A write-ahead log that lost its catalog would be taken for the new one's.
        for name in (FILE_NAME, FILE_NAME + "-wal", FILE_NAME + "-journal"):
            if os.path.lexists(target / name):
                raise GalleryExists(f"{target} holds a gallery ({name}): restore into another folder, or move it away")
        if target.exists() and not target.is_dir():
            raise StorageUnavailable(f"{target} is not a folder: name a folder for the gallery")


def _grow_and_publish(backup: BackupFile, target: Path, undo: ExitStack, progress: Progress) -> None:
    staging = target / _STAGING
    with storage_faults(target):
        remove_leftovers(target)
        _check_room(backup, target)
        staging.mkdir()
        undo.callback(remove_leftovers, target)
    with closing(Catalog(staging, backup.manifest.bits, backup.manifest.model_fingerprint)) as catalog:
        _grow(catalog, backup, progress)
        catalog.settle()
    with storage_faults(target):
        undo.callback((target / FILE_NAME).unlink, missing_ok=True)
        (staging / FILE_NAME).rename(target / FILE_NAME)
        staging.rmdir()
        sync_folder(target)


def _check_room(backup: BackupFile, target: Path) -> None:
    needed = sum(backup.manifest.members[name].bytes for name in (CODES, ITEMS))
    free = shutil.disk_usage(target).free
    if free < needed:
        raise DiskFull(f"the gallery takes more than {needed:,} bytes, and {target} has {free:,} left: free some")


def _grow(catalog: Catalog, backup: BackupFile, progress: Progress) -> None:
    manifest = backup.manifest
    news: list[NewItem] = []
    size = 0
    for entry in backup.entries():
        new = _new_item(entry, manifest.bits)
        news.append(new)
        size += len(new.metadata or "") + len(new.code)
        if len(news) >= _BATCH or size >= _BATCH_BYTES:
            _insert(catalog, news, entry.line)
            progress(entry.line, manifest.items)
            news, size = [], 0
    _insert(catalog, news, manifest.items)
    progress(manifest.items, manifest.items)
    with catalog.transaction() as change:
        change.choose_method(manifest.index_method)
        change.state = replace(change.state, last_id=manifest.last_id)


def _new_item(entry: Entry, bits: int) -> NewItem:
    fields = entry.fields
    if fields.keys() != _FIELDS:
        raise InvalidBackup(f"line {entry.line} of {ITEMS} has other members than {', '.join(sorted(_FIELDS))}")
    created_ms = fields["created_at"]
    if isinstance(created_ms, bool) or not isinstance(created_ms, int) or not 0 <= created_ms <= _MOST_CREATED_MS:
        raise InvalidBackup(f"line {entry.line} of {ITEMS}: created_at {created_ms!r} is no time in milliseconds")
    item = Item(fields["id"], fields["label"], entry.code, fields["metadata"], fields["source"])
    try:
        if item.id is None:
            raise InvalidItem("it has no id")
        candidate = check_item(item, bits)
    except InvalidItem as error:
        raise InvalidBackup(f"line {entry.line} of {ITEMS}: {error}") from error
    return NewItem(item.id, item.label, item.code, candidate.metadata, item.source, created_ms)


def _insert(catalog: Catalog, news: Sequence[NewItem], last_line: int) -> None:
    """Store the items of the lines up to ``last_line``. Raises InvalidBackup for an id that was there before."""
    seen = set(catalog.rows_of_ids([new.id for new in news]))
    for line, new in enumerate(news, last_line - len(news) + 1):
        if new.id in seen:
            raise InvalidBackup(f"line {line} of {ITEMS}: the id {new.id!r} is there twice")
        seen.add(new.id)
    with catalog.transaction() as change:
        change.insert(news)
