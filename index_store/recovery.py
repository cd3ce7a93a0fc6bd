"""Make an index that equals the catalog: out of a snapshot and what happened since, or from nothing."""

from __future__ import annotations

import logging
from pathlib import Path

from index_store.base import CorruptSnapshot
from index_store.catalog import Catalog, Position
from index_store.faults import storage_faults
from index_store.hamming import HammingIndex, IndexOptions, Segments, Work, load, load_flat, make_index, plan
from index_store.snapshot import open_snapshot, temporary_path

SNAPSHOT_NAME = "index.snapshot"
_BATCH = 16_384

logger = logging.getLogger(__name__)


def load_index(catalog: Catalog, folder: Path, threads: int, options: IndexOptions) -> tuple[HammingIndex, int]:
    """Return an index that equals the catalog, and how many changes the snapshot on disk lacks.

    It is of the kind that the snapshot holds, if the gallery's method still asks for that one, else Flat,
    which is made at once. A snapshot that cannot be used is logged and removed: if it stayed, a history that
    the catalog has yet to take might fit it by accident.
    """
    path = folder / SNAPSHOT_NAME
    with storage_faults(folder):
        temporary_path(path).unlink(missing_ok=True)
        try:
            index, position = _read_snapshot(path, catalog, threads, options)
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
    return build_flat(catalog, threads), catalog.state.items


def build_flat(catalog: Catalog, threads: int) -> HammingIndex:
    """Return a Flat index that equals the catalog, while nobody writes."""
    index = make_index(catalog.state.bits, threads)
    catch_up(index, catalog, Position(0, catalog.state.last_removal))
    return index


def read_pairs(catalog: Catalog, threads: int, work: Work) -> tuple[Segments, int]:
    """Return the catalog's pairs and the last row seen; others may write meanwhile."""
    state = catalog.state
    pairs = Segments(state.bits, threads)
    row = 0
    while row < state.last_row:  # not until there are no more, or a busy writer would be followed for ever
        work.go_on()
        rows, codes = catalog.codes_after(row, _BATCH)
        if not rows.size:
            break
        pairs.append(rows, codes)
        row = int(rows[-1])
        work.tell(min(1.0, len(pairs) / max(1, state.items)))
    return pairs, row


def catch_up(index: HammingIndex, catalog: Catalog, since: Position) -> int:
    """Apply to the index what the catalog took since a position; return the last row seen.

    If others write meanwhile, that row and the removals since the start say where to go on.
    """
    last_row = catalog.state.last_row
    index.remove(catalog.removals_after(since.last_removal))
    row = since.last_row
    while row < last_row:
        rows, codes = catalog.codes_after(row, _BATCH)
        if not rows.size:
            break
        index.add(rows, codes)
        row = int(rows[-1])
    return row


def _read_snapshot(path: Path, catalog: Catalog, threads: int, options: IndexOptions) -> tuple[HammingIndex, Position]:
    state = catalog.state
    with open_snapshot(path) as reader:
        header = reader.header
        if header.bits != state.bits:
            raise CorruptSnapshot("it holds codes of another length")
        position = catalog.snapshot_position(header.token)
        if position is None or position != Position(header.last_row, header.last_removal):
            raise CorruptSnapshot("it is not of this catalog's history")
        if plan(state.method, state.items, header.method, options).kind == header.method:
            return load(header.method, header.facts, reader.chunks(), header.bits, threads, options), position
        return load_flat(reader.chunks(), header.bits, threads), position
