"""Make an index that equals the catalog: out of a snapshot and what happened since, or from nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from index_store.base import CorruptSnapshot
from index_store.catalog import Catalog, Position
from index_store.faults import storage_faults
from index_store.hamming import HammingIndex, make_index
from index_store.snapshot import open_snapshot, temporary_path

SNAPSHOT_NAME = "index.snapshot"
_BATCH = 16_384

logger = logging.getLogger(__name__)


def load_index(catalog: Catalog, folder: Path, method: str, threads: int) -> tuple[HammingIndex, int]:
    """Return an index that equals the catalog, and how many changes the snapshot on disk lacks.

    A snapshot that cannot be used is logged and removed: if it stayed, a history that the catalog has yet to
    take might fit it by accident.
    """
    path = folder / SNAPSHOT_NAME
    with storage_faults(folder):
        temporary_path(path).unlink(missing_ok=True)
        try:
            index, position = _read_snapshot(path, catalog, method, threads)
            catch_up(index, catalog, position)
            if len(index) != catalog.state.items:
                raise CorruptSnapshot(f"it leads to {len(index)} items, the catalog has {catalog.state.items}")
        except FileNotFoundError:
            if catalog.state.items:
                logger.info("no index snapshot in %s: building the index from the catalog", folder)
        except (CorruptSnapshot, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("index snapshot %s ignored (%s): building the index from the catalog", path, error)
            path.unlink(missing_ok=True)
        else:
            state = catalog.state
            missed = state.last_row - position.last_row + state.last_removal - position.last_removal
            return index, missed
    return build_index(catalog, method, threads), catalog.state.items


def build_index(
    catalog: Catalog, method: str, threads: int, progress: Callable[[float], None] | None = None
) -> HammingIndex:
    """Return an index that equals the catalog, while nobody writes; ``progress`` is told 0 to 1."""
    index = make_index(method, catalog.state.bits, threads)
    catch_up(index, catalog, Position(0, catalog.state.last_removal), progress)
    return index


def catch_up(
    index: HammingIndex,
    catalog: Catalog,
    since: Position,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Apply to the index what the catalog took since a position; return the last row seen.

    If others write meanwhile, that row and the removals since the start say where to go on.
    """
    index.remove(catalog.removals_after(since.last_removal))
    row = since.last_row
    while True:
        rows, codes = catalog.codes_after(row, _BATCH)
        if not rows.size:
            return row
        index.add(rows, codes)
        row = int(rows[-1])
        if progress is not None:
            progress(min(1.0, len(index) / max(1, catalog.state.items)))


def _read_snapshot(path: Path, catalog: Catalog, method: str, threads: int) -> tuple[HammingIndex, Position]:
    state = catalog.state
    with open_snapshot(path) as reader:
        header = reader.header
        if (header.method, header.bits, header.fingerprint) != (method, state.bits, state.fingerprint):
            raise CorruptSnapshot("it belongs to another method or model")
        position = catalog.snapshot_position(header.token)
        if position is None or position != Position(header.last_row, header.last_removal):
            raise CorruptSnapshot("it is not of this catalog's history")
        index = make_index(method, header.bits, threads)
        for rows, codes in reader.blocks():
            index.add(rows, codes)
    return index, position
