"""The index that serves: it follows the catalog, is searched by many threads and kept up in the background.

A change goes to the catalog first, durably, then to the index, then the call returns. A search asks the
index first and the catalog second, so what it learns of the catalog is never older than what it learned of
the index. If a hit's row is gone from the catalog, the two differed by a change under way: the search is
repeated, in the end while writers wait. So no search sees half a change.

Locks, in the order in which they are taken: ``maintenance`` (one snapshot, rebuild or recoding at a time),
``_mutex`` (one writer), ``_lock`` (readers of the index or one writer, never while SQLite waits for the disk).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from index_store.background import BackgroundJob
from index_store.base import (
    Codes,
    GalleryClosed,
    GalleryError,
    IndexStats,
    InvalidQuery,
    Method,
    StorageUnavailable,
)
from index_store.catalog import Catalog, NewItem, Position
from index_store.disk_space import DiskReserve
from index_store.faults import storage_faults
from index_store.hamming import (
    Chunk,
    GpuFailed,
    HammingIndex,
    Hits,
    IndexOptions,
    Plan,
    Rows,
    Work,
    build,
    make_index,
    plan,
)
from index_store.locks import ReadWriteLock
from index_store.recovery import SNAPSHOT_NAME, build_flat, catch_up, read_pairs
from index_store.snapshot import SnapshotWriter

_QUERIES_AT_ONCE = 64  # so that a large batch of queries lets writers in between
_OPTIMISTIC_TRIES = 2

logger = logging.getLogger(__name__)

Find = Callable[[HammingIndex, Codes, Any], list[Hits]]
Described = dict[int, tuple[str, str, str | None]]
"""What the catalog says of rows: id, label and metadata as JSON text."""


class LiveIndex:
    """The index of an open gallery. Every method raises GalleryClosed after ``close``."""

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        index: HammingIndex,
        *,
        threads: int,
        options: IndexOptions,
        changes: int,
        reserve: DiskReserve,
    ) -> None:
        """Serve by an index that equals the catalog.

        ``changes`` is how many changes the last snapshot lacks, ``reserve`` the room that snapshots leave on the disk.
        """
        self.index = index
        self.fingerprint = catalog.state.fingerprint
        self.maintenance = threading.Lock()
        self._folder = folder
        self._catalog = catalog
        self._threads = threads
        self._options = options
        self._changes = changes
        self._reserve = reserve
        self._progress: float | None = None
        self._stale = False  # the index may lack something that the catalog has
        self._closed = False
        self._closing = threading.Event()  # whatever takes long ends early
        self._mutex = threading.Lock()
        self._lock = ReadWriteLock()
        self._upkeep = BackgroundJob(f"upkeep of {folder}", self._do_what_is_due)
        self._wake_if_due()

    @property
    def error(self) -> BaseException | None:
        """Why the index is not kept up at present (it still serves); None while all is well."""
        return self._upkeep.error

    def check_open(self) -> None:
        """Raise GalleryClosed if it is closed."""
        if self._closed:
            raise GalleryClosed

    def stats(self) -> IndexStats:
        """Describe the index."""
        index, state, wanted = self.index, self._catalog.state, self._plan()
        reason = wanted.reason
        if wanted.kind != index.method:
            reason += f"; it is being built, and until it is, {index.method} serves"
        return IndexStats(
            method=state.method,
            serving=index.method,
            reason=reason,
            bits=index.bits,
            items=state.items,
            bytes=index.nbytes,
            recent=index.recent,
            parameters=dict(index.parameters),
            model_fingerprint=self.fingerprint,
            rebuild_progress=self._progress,
        )

    # Following the catalog

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the one writer. If the block fails after its commit, the index is made anew."""
        with self._mutex:
            self.check_open()
            self._mend()
            before = self._catalog.state
            try:
                yield
            except BaseException:
                self._stale = self._catalog.state is not before
                raise

    def apply(self, rows: Rows, news: Sequence[NewItem], removed: Sequence[int] = ()) -> None:
        """Let the index follow a change that the catalog has taken."""
        codes = np.frombuffer(b"".join([new.code for new in news]), dtype=np.uint8)
        try:
            with self._lock.write():
                if removed:
                    self.index.remove(np.array(removed, dtype=np.int64))
                if news:
                    self.index.add(rows, codes.reshape(len(news), -1))
        except Exception:
            logger.exception("the index could not follow a change: building it anew from the catalog")
            self._stale = True
            self._mend()
        self._note_changes(len(news) + len(removed))

    def start_anew(self, changes: int) -> None:
        """Follow a catalog in which all codes changed; the caller is the one writer and holds ``maintenance``."""
        self._put(build_flat(self._catalog, self._threads))
        self._note_changes(changes)

    def _mend(self) -> None:
        """Make a stale index anew; the writer's mutex is held."""
        if not self._stale:
            return
        try:
            self._put(build_flat(self._catalog, self._threads))
        except (MemoryError, OverflowError) as error:
            raise StorageUnavailable(f"the index cannot be built ({error}): there is too little memory") from error
        self._stale = False
        self._wake_if_due()  # what was made is Flat

    def _put(self, index: HammingIndex) -> None:
        with self._lock.write():
            self.index = index
            self.fingerprint = self._catalog.state.fingerprint

    # Searching

    def find(self, codes: Codes, find: Find, label: str | None) -> Iterator[tuple[Hits, Described]]:
        """Yield, for each query, what ``find`` found in the index and what the catalog says of those rows.

        ``codes`` and ``label`` have been checked; with a label, ``find`` is given its rows to search among.
        """
        for start in range(0, len(codes), _QUERIES_AT_ONCE):
            part = codes[start : start + _QUERIES_AT_ONCE]
            hits, described = self._find_part(part, find, label)
            for one in hits:
                yield one, described

    def _find_part(self, codes: Codes, find: Find, label: str | None) -> tuple[list[Hits], Described]:
        if not self._stale:
            for _ in range(_OPTIMISTIC_TRIES):
                if (found := self._try_to_find(codes, find, label)) is not None:
                    return found
        with self._mutex:  # nobody writes now, so index and catalog are equal
            self.check_open()
            self._mend()
            if (found := self._try_to_find(codes, find, label)) is not None:
                return found
            logger.error("the index disagrees with the catalog: building it anew")
            self._stale = True
            self._mend()
            if (found := self._try_to_find(codes, find, label)) is not None:
                return found
        raise StorageUnavailable(f"the index cannot be made equal to the catalog in {self._folder}")

    def _try_to_find(self, codes: Codes, find: Find, label: str | None) -> tuple[list[Hits], Described] | None:
        """Return hits and what the catalog says of their rows; None if the two do not fit together."""
        labelled = None if label is None else self._catalog.rows_of_label(label)
        with self._lock.read():
            index = self.index
            if codes.shape[1] * 8 != index.bits:
                raise InvalidQuery(f"the gallery was just recoded: its codes have {index.bits} bits now")
            among = None if labelled is None else index.select(labelled)
            if among is not None and among.missing:
                return None
            hits = find(index, codes, among)
        rows = _distinct_rows(hits)
        described = self._catalog.describe(rows)
        return (hits, described) if len(described) == len(rows) else None

    # Upkeep

    def rebuild(self, method: Method | None, progress: Callable[[float], None] | None, threads: int | None) -> None:
        """Build the index anew while the old one serves; see GalleryStore."""
        with self.maintenance:
            self.check_open()
            self._reserve.require(self.index.nbytes)  # for the snapshot that follows
            self._build_beside(method or self._catalog.state.method, threads or self._build_threads, progress)

    def snapshot(self) -> None:
        """Write the index beside the catalog."""
        with self.maintenance:
            self.check_open()
            self._snapshot()

    def _build_beside(self, method: Method, threads: int, progress: Callable[[float], None] | None = None) -> None:
        """Build an index out of the catalog, catch up with what changes meanwhile, and swap."""

        def tell(part: float) -> None:
            self._progress = part
            if progress is not None:
                progress(part)

        work = Work(threads, self._go_on, tell)
        start = self._catalog.state
        kind = plan(method, start.items, self.index.method, self._options).kind
        try:
            tell(0.0)
            pairs, last_row = read_pairs(self._catalog, self._threads, work.part(0, 0.1))
            index = build(kind, pairs, self._threads, self._options, work.part(0.1, 1))
            del pairs
            last_row = catch_up(index, self._catalog, Position(last_row, start.last_removal))
            with self.changing():
                catch_up(index, self._catalog, Position(last_row, start.last_removal))
                if method != self._catalog.state.method:
                    with self._catalog.transaction() as change:
                        change.choose_method(method)
                self._put(index)
                self._changes = max(self._changes, len(index))  # the snapshot there is has another index
            tell(1.0)
        except GpuFailed as error:
            self._give_the_gpu_up(error)
            self._build_beside(method, threads, progress)
            return
        except (MemoryError, OverflowError) as error:
            raise StorageUnavailable(f"no {kind} index can be built ({error}): there is too little memory") from error
        finally:
            self._progress = None
        logger.info("%s serves the %d items of %s", kind, len(index), self._folder)
        self._wake_if_due()

    def _give_the_gpu_up(self, error: GpuFailed) -> None:
        logger.warning("the CPU searches from now on: %s", error)
        self._options = replace(self._options, gpu=False)

    def _plan(self) -> Plan:
        state = self._catalog.state
        return plan(state.method, state.items, self.index.method, self._options)

    @property
    def _build_threads(self) -> int:
        return max(1, self._threads // 2)  # searches want the others

    def _go_on(self) -> None:
        """End work that takes long when the store is being closed."""
        if self._closing.is_set():
            raise GalleryClosed

    def _note_changes(self, count: int) -> None:
        self._changes += count
        self._wake_if_due()

    def _wake_if_due(self) -> None:
        if self._switch_is_due() or self.index.fold_is_due() or self._snapshot_is_due():
            self._upkeep.wake()

    def _do_what_is_due(self) -> None:
        with self.maintenance:
            if self._closing.is_set():
                return
            try:
                self._keep_up()
            except GalleryClosed:
                logger.info("the upkeep of %s ends with the store", self._folder)
            except (MemoryError, OverflowError) as error:
                raise StorageUnavailable(
                    f"the index cannot be kept up ({error}): there is too little memory"
                ) from error

    def _keep_up(self) -> None:
        """Serve by the kind of index that suits, fold recent items in, snapshot; the maintenance lock is held."""
        if self._switch_is_due():
            logger.info("building the index of %s: %s", self._folder, self.index.worn() or self._plan().reason)
            self._build_beside(self._catalog.state.method, self._build_threads)
        if self.index.fold_is_due():
            try:
                self.index.fold(self._lock, Work(self._build_threads, self._go_on))
            except GpuFailed as error:
                self._give_the_gpu_up(error)
        if self._snapshot_is_due():
            self._snapshot()
        self._wake_if_due()  # a fold may be what makes an index outgrow its lists

    def _switch_is_due(self) -> bool:
        return self._plan().kind != self.index.method or self.index.worn() is not None

    def _snapshot_is_due(self) -> bool:
        """Say whether catching up would take noticeably longer than reading the snapshot."""
        return self._changes >= max(50_000, self._catalog.state.items // 8)

    def _snapshot(self) -> None:
        """Write a snapshot while others search and change; the maintenance lock is held."""
        self._reserve.require(self.index.nbytes)
        with self._mutex:
            self._mend()
            index, changes, state = self.index, self._changes, self._catalog.state
            export = index.export()
        token = secrets.token_hex(16)
        at = (state.last_row, state.last_removal)
        try:
            with storage_faults(self._folder), SnapshotWriter(self._folder / SNAPSHOT_NAME) as writer:
                while True:
                    with self._lock.read():
                        chunk = export.next_chunk()
                    if chunk is None:
                        break
                    writer.write(_up_to(state.last_row, chunk))
                writer.finish(token, index.method, index.bits, at, export.facts)
                with self._mutex:
                    if self.index is not index:  # it was made anew meanwhile; a later snapshot will do
                        return
                    with self._catalog.transaction() as change:
                        change.note_snapshot(token, state.position)
                writer.publish()
        finally:
            with self._lock.read():
                export.close()
        with self._mutex, self._catalog.transaction() as change:
            change.forget_before(token, state.position)
            self._changes -= changes

    def interrupt(self) -> None:
        """Let a rebuild or upkeep under way end soon."""
        self._closing.set()

    def close(self, let_go: Callable[[], None]) -> None:
        """End the upkeep, snapshot and, while nobody changes anything, let go of the rest; once."""
        self.interrupt()
        self._upkeep.stop()
        with self.maintenance:
            if self._closed:
                return
            try:
                self._snapshot_on_closing()
            finally:
                with self._mutex:
                    self._closed = True
                    try:
                        let_go()
                    finally:
                        with self._lock.write():
                            self.index = make_index(self.index.bits, self._threads)

    def _snapshot_on_closing(self) -> None:
        # Catching up a few changes at the next start is cheaper than writing everything now.
        if self._changes < max(1, self._catalog.state.items // 100):
            return
        try:
            self._snapshot()
        except GalleryError as error:
            logger.warning("no snapshot was written on closing (the catalog has everything): %s", error)


def _distinct_rows(hits: Sequence[Hits]) -> list[int]:
    if len(hits) == 1:
        return cast("list[int]", hits[0].rows.tolist())
    return cast("list[int]", np.unique(np.concatenate([one.rows for one in hits])).tolist())


def _up_to(last_row: int, chunk: Chunk) -> Chunk:
    """Leave out recent pairs that came after a row; nothing else of an index grows during its export."""
    if chunk.kind != "pairs":
        return chunk
    rows, codes = chunk.columns
    keep = rows <= last_row
    return Chunk("pairs", (rows[keep], codes[keep]))
