"""A gallery in a local folder: the catalog is the truth, the index follows it.

A change goes to the catalog first, durably, then to the index, then the call returns. A search asks the
index first and the catalog second, so what it learns of the catalog is never older than what it learned of
the index. If a hit's row is gone from the catalog, the two differed by a change under way: the search is
repeated, in the end while writers wait. So no search sees half a change.

Locks, in the order in which they are taken: ``_maintenance`` (one snapshot, rebuild or recoding at a time),
``_mutex`` (one writer), ``_lock`` (readers of the index or one writer, never while SQLite waits for the disk).
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np

from index_store.background import BackgroundJob
from index_store.backup import stream_backup, write_backup
from index_store.base import (
    UNKNOWN_FINGERPRINT,
    Added,
    BackupInfo,
    Codes,
    Existing,
    GalleryClosed,
    GalleryError,
    GalleryNotFound,
    IndexStats,
    InvalidItem,
    InvalidQuery,
    Item,
    ItemNotFound,
    Items,
    Match,
    Method,
    NearestMatches,
    OnDuplicate,
    Page,
    SearchResult,
    SearchResults,
    StorageUnavailable,
)
from index_store.catalog import FILE_NAME, Catalog, NewItem, Position, format_time
from index_store.enrolment import Candidate, answer, check_item, decide
from index_store.faults import storage_faults
from index_store.folders import make_folder
from index_store.hamming import (
    Chunk,
    GpuFailed,
    HammingIndex,
    Hits,
    IndexOptions,
    Plan,
    Rows,
    SearchParameters,
    Work,
    build,
    make_index,
    plan,
    why_no_gpu,
)
from index_store.locks import FolderLock, ReadWriteLock
from index_store.recovery import SNAPSHOT_NAME, build_flat, catch_up, load_index, read_pairs
from index_store.restore import remove_leftovers
from index_store.snapshot import SnapshotWriter, sync_folder
from index_store.validation import (
    check_bits,
    check_method,
    check_positive,
    check_query_codes,
    check_query_label,
    check_radius,
    decode_metadata,
)

_QUERIES_AT_ONCE = 64  # so that a large batch of queries lets writers in between
_OPTIMISTIC_TRIES = 2
_SOURCES_AT_ONCE = 1000
_ITEMS_AT_ONCE = 1000
_PROBE_BYTES = 64 * 1024

logger = logging.getLogger(__name__)

Find = Callable[[HammingIndex, Codes, Any], list[Hits]]


def open_gallery(
    path: str | os.PathLike[str],
    bits: int | None = None,
    method: str | None = None,
    fingerprint: str | None = None,
    *,
    threads: int | None = None,
    options: IndexOptions | None = None,
    adopt: bool = False,
) -> LocalGalleryStore:
    """Open the gallery in the folder ``path`` and own it until it is closed.

    A new gallery is made if there is none and ``bits`` is given. ``bits`` and ``fingerprint`` None accept
    what the folder holds. ``method`` is "Flat", "IVF", "HNSW32" or "auto", and is remembered; None keeps what
    was chosen last, which is Flat for a new gallery. Where another kind of index is wanted than the folder
    holds, Flat serves until it is built, in the background. ``threads`` is the most that one search may use
    (None: as many as there are processors); ``options`` say how indexes are made.

    ``adopt`` is the caller's word that the model ``fingerprint`` made the codes of a gallery that does not know
    its model (None or "unknown", as after an import): the fingerprint becomes the gallery's, durably, and later
    openings need no word. Nothing can check it; if it is wrong, searches find nonsense until a recoding. A
    gallery that knows its model, or whose codes have other ``bits``, is refused as ever. Needs both.

    Raises GalleryNotFound, GalleryLocked, FingerprintMismatch, UnknownSchema, InvalidQuery,
    StorageUnavailable (a read-only folder, a damaged catalog) and DiskFull.
    """
    chosen = None if method is None else check_method(method)
    options = _usable(options or IndexOptions())
    if adopt and (bits is None or fingerprint in (None, UNKNOWN_FINGERPRINT)):
        raise InvalidQuery("to adopt a gallery, give the bits and the fingerprint of the model that made its codes")
    threads = len(os.sched_getaffinity(0)) if threads is None else check_positive("threads", threads)
    folder = Path(path).absolute()
    with ExitStack() as undo:
        _prepare_folder(folder, None if bits is None else check_bits(bits))
        owner = FolderLock(folder)
        undo.callback(owner.release)
        catalog = Catalog(folder, bits, fingerprint, adopt=adopt)
        undo.callback(catalog.close)
        with storage_faults(folder):
            remove_leftovers(folder)
            sync_folder(folder)
        if chosen not in (None, catalog.state.method):
            with catalog.transaction() as change:
                change.choose_method(chosen)
        index, changes = load_index(catalog, folder, threads, options)
        store = LocalGalleryStore(owner, catalog, index, threads=threads, options=options, changes=changes)
        undo.pop_all()
    return store


def _usable(options: IndexOptions) -> IndexOptions:
    """Return the options without a GPU if there is none."""
    reason = why_no_gpu() if options.gpu else None
    if reason is None:
        return options
    logger.warning("the index was to be searched on a GPU, but the CPU searches: %s", reason)
    return replace(options, gpu=False)


def _prepare_folder(folder: Path, bits: int | None) -> None:
    with storage_faults(folder):
        if bits is None and not (folder / FILE_NAME).is_file():
            raise GalleryNotFound(f"{folder} holds no gallery: give the bits of its codes to make one")
        if folder.exists() and not folder.is_dir():
            raise StorageUnavailable(f"{folder} is not a folder: name a folder for the gallery")
        make_folder(folder)


class LocalGalleryStore:
    """The GalleryStore of ``open_gallery``; see there and the protocol for what its methods promise."""

    def __init__(
        self,
        owner: FolderLock,
        catalog: Catalog,
        index: HammingIndex,
        *,
        threads: int,
        options: IndexOptions,
        changes: int,
    ) -> None:
        """Serve a folder that is owned, with an index that equals its catalog.

        ``changes`` is how many changes the last snapshot lacks.
        """
        self._folder = folder = owner.folder
        self._owner = owner
        self._catalog = catalog
        self._index = index
        self._fingerprint = catalog.state.fingerprint
        self._threads = threads
        self._options = options
        self._changes = changes
        self._progress: float | None = None
        self._stale = False  # the index may lack something that the catalog has
        self._closed = False
        self._closing = threading.Event()  # whatever takes long ends early
        self._maintenance = threading.Lock()
        self._recoding = threading.Lock()
        self._probing = threading.Lock()
        self._mutex = threading.Lock()
        self._lock = ReadWriteLock()
        self._upkeep = BackgroundJob(f"upkeep of {folder}", self._do_what_is_due)
        self._wake_if_due()

    # What it is

    @property
    def path(self) -> Path:
        """The data folder."""
        return self._folder

    @property
    def bits(self) -> int:
        """The length of the codes."""
        return self._index.bits

    @property
    def fingerprint(self) -> str | None:
        """The model that made the codes."""
        return self._fingerprint

    @property
    def method(self) -> Method:
        """The index method that was chosen."""
        return self._catalog.state.method

    @property
    def background_error(self) -> BaseException | None:
        """Why the index is not kept up at present (it still serves); None while all is well."""
        return self._upkeep.error

    def __len__(self) -> int:
        """How many items there are."""
        self._check_open()
        return self._catalog.state.items

    def stats(self) -> IndexStats:
        """Describe the index."""
        self._check_open()
        index, state, wanted = self._index, self._catalog.state, self._plan()
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
            model_fingerprint=self._fingerprint,
            rebuild_progress=self._progress,
        )

    def check_writable(self) -> None:
        """Write a little to the disk, and take it away again."""
        self._check_open()
        probe = self._folder / "probe.tmp"
        with self._probing, storage_faults(self._folder):
            try:
                probe.write_bytes(bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)

    # Changing

    def add(self, items: Sequence[Item], on_duplicate: OnDuplicate = "add") -> Items:
        """Store items, all or none."""
        added = self._add(items, on_duplicate, all_or_none=True)
        return [each.item if isinstance(each, Existing) else cast(Item, each) for each in added]

    def add_each(self, items: Sequence[Item], on_duplicate: OnDuplicate = "add") -> Added:
        """Store the items that can be stored, and say of each other one why not."""
        return self._add(items, on_duplicate, all_or_none=False)

    def _add(self, items: Sequence[Item], on_duplicate: OnDuplicate, all_or_none: bool) -> Added:
        if on_duplicate not in ("add", "return", "reject"):
            raise InvalidQuery(f"on_duplicate must be add, return or reject, not {on_duplicate!r}")
        with self._changing():
            if on_duplicate != "add":
                self._catalog.index_codes()
            given = [item.id for item in items if isinstance(item, Item) and _may_be_id(item.id)]
            taken = self._catalog.rows_of_ids(given)
            fates = decide(items, self.bits, on_duplicate, taken, self._catalog.find_code)
            candidates = [fate for fate in fates if isinstance(fate, Candidate)]
            now_ms = time.time_ns() // 1_000_000
            with self._catalog.transaction() as change:
                unnamed = sum(candidate.item.id is None for candidate in candidates)
                ids = iter(change.make_ids(unnamed, now_ms, set(given)) if unnamed else [])
                news = [_new_item(candidate, ids, now_ms) for candidate in candidates]
                added = answer(fates, _as_stored(candidates, news), on_duplicate)
                if all_or_none:
                    _raise_first(added)
                rows = change.insert(news)
            self._apply(rows, news)
        return added

    def replace(self, item: Item) -> Item:
        """Put an item in the place of the one with its id; when it was created stays."""
        with self._changing():
            candidate = check_item(item, self.bits)
            if item.id is None:
                raise InvalidItem("the item to replace must be named by its id")
            old = self._catalog.rows_of_ids([item.id])
            if not old:
                raise ItemNotFound(item.id)
            with self._catalog.transaction() as change:
                created_ms = change.created_ms(old[item.id])
                news = [_new_item(candidate, iter(()), created_ms)]
                change.delete([old[item.id]])
                rows = change.insert(news)
            self._apply(rows, news, removed=list(old.values()))
        return _as_stored([candidate], news)[0]

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the items with these ids."""
        wanted = list(dict.fromkeys(ids))
        if not all(isinstance(item_id, str) for item_id in wanted):
            raise InvalidItem("ids are texts")
        with self._changing():
            rows = self._catalog.rows_of_ids([item_id for item_id in wanted if _may_be_id(item_id)])
            return self._remove(list(rows.values()))

    def remove_label(self, label: str) -> int:
        """Remove every item with this label."""
        checked = check_query_label(label)
        if checked is None:
            raise InvalidQuery("a label is needed")
        with self._changing():
            return self._remove(self._catalog.rows_of_label(checked).tolist())

    def _remove(self, rows: list[int]) -> int:
        if rows:
            with self._catalog.transaction() as change:
                change.delete(rows)
            self._apply(np.empty(0, dtype=np.int64), [], removed=rows)
        return len(rows)

    def recode(
        self,
        codes: Iterable[tuple[str, bytes]],
        bits: int,
        fingerprint: str | None,
        *,
        drop_missing: bool = False,
    ) -> int:
        """Give every item a new code, and the gallery new bits and a new fingerprint."""
        bits = check_bits(bits)
        self._check_open()
        with self._recoding, self._catalog.staged(codes, bits) as stage, self._maintenance, self._changing():
            with self._catalog.transaction(stage) as change:
                count = change.recode(bits, fingerprint, drop_missing)
            self._put_index(build_flat(self._catalog, self._threads))
            self._note_changes(count)
        return count

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the one writer. If the block fails after its commit, the index is made anew."""
        with self._mutex:
            self._check_open()
            self._mend()
            before = self._catalog.state
            try:
                yield
            except BaseException:
                self._stale = self._catalog.state is not before
                raise

    def _apply(self, rows: Rows, news: Sequence[NewItem], removed: Sequence[int] = ()) -> None:
        """Let the index follow a change that the catalog has taken."""
        codes = np.frombuffer(b"".join([new.code for new in news]), dtype=np.uint8)
        try:
            with self._lock.write():
                if removed:
                    self._index.remove(np.array(removed, dtype=np.int64))
                if news:
                    self._index.add(rows, codes.reshape(len(news), -1))
        except Exception:
            logger.exception("the index could not follow a change: building it anew from the catalog")
            self._stale = True
            self._mend()
        self._note_changes(len(news) + len(removed))

    def _mend(self) -> None:
        """Make a stale index anew; the writer's mutex is held."""
        if not self._stale:
            return
        try:
            self._put_index(build_flat(self._catalog, self._threads))
        except (MemoryError, OverflowError) as error:
            raise StorageUnavailable(f"the index cannot be built ({error}): there is too little memory") from error
        self._stale = False
        self._wake_if_due()  # what was made is Flat

    def _put_index(self, index: HammingIndex) -> None:
        with self._lock.write():
            self._index = index
            self._fingerprint = self._catalog.state.fingerprint

    # Searching

    def search(
        self,
        codes: Codes,
        hamming_radius: int,
        top_k: int,
        label: str | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> SearchResults:
        """Find the nearest items within a radius."""
        top_k = check_positive("top_k", top_k)
        parameters = _search_parameters(nprobe, ef_search)
        radius = check_radius(hamming_radius, self.bits)

        def find(index: HammingIndex, queries: Codes, among: Any) -> list[Hits]:
            return index.search(queries, radius, top_k, among, parameters)

        results = []
        for hits, described in self._find(codes, find, label):
            results.append(SearchResult(_best(hits, described, top_k), hits.truncated))
        return results

    def nearest(
        self,
        codes: Codes,
        hamming_radius: int,
        label: str | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> NearestMatches:
        """Find the nearest item strictly outside a radius."""
        parameters = _search_parameters(nprobe, ef_search)
        radius = check_radius(hamming_radius, self.bits)

        def find(index: HammingIndex, queries: Codes, among: Any) -> list[Hits]:
            return index.nearest_outside(queries, radius, among, parameters)

        results: NearestMatches = []
        for hits, described in self._find(codes, find, label):
            best = _best(hits, described, 1)
            results.append(best[0] if best else None)
        return results

    def _find(
        self, codes: Codes, find: Find, label: str | None
    ) -> Iterator[tuple[Hits, dict[int, tuple[str, str, str | None]]]]:
        self._check_open()
        codes = check_query_codes(codes, self.bits)
        label = check_query_label(label)
        for start in range(0, len(codes), _QUERIES_AT_ONCE):
            part = codes[start : start + _QUERIES_AT_ONCE]
            hits, described = self._find_part(part, find, label)
            for one in hits:
                yield one, described

    def _find_part(
        self, codes: Codes, find: Find, label: str | None
    ) -> tuple[list[Hits], dict[int, tuple[str, str, str | None]]]:
        if not self._stale:
            for _ in range(_OPTIMISTIC_TRIES):
                if (found := self._try_to_find(codes, find, label)) is not None:
                    return found
        with self._mutex:  # nobody writes now, so index and catalog are equal
            self._check_open()
            self._mend()
            if (found := self._try_to_find(codes, find, label)) is not None:
                return found
            logger.error("the index disagrees with the catalog: building it anew")
            self._stale = True
            self._mend()
            if (found := self._try_to_find(codes, find, label)) is not None:
                return found
        raise StorageUnavailable(f"the index cannot be made equal to the catalog in {self._folder}")

    def _try_to_find(
        self, codes: Codes, find: Find, label: str | None
    ) -> tuple[list[Hits], dict[int, tuple[str, str, str | None]]] | None:
        """Return hits and what the catalog says of their rows; None if the two do not fit together."""
        labelled = None if label is None else self._catalog.rows_of_label(label)
        with self._lock.read():
            index = self._index
            if codes.shape[1] * 8 != index.bits:
                raise InvalidQuery(f"the gallery was just recoded: its codes have {index.bits} bits now")
            among = None if labelled is None else index.select(labelled)
            if among is not None and among.missing:
                return None
            hits = find(index, codes, among)
        rows = _distinct_rows(hits)
        described = self._catalog.describe(rows)
        return (hits, described) if len(described) == len(rows) else None

    # Listing

    def get(self, item_id: str) -> Item | None:
        """Return the item with this id."""
        self._check_open()
        return self._catalog.get(item_id) if _may_be_id(item_id) else None

    def in_order(self) -> Iterator[Item]:
        """Walk over every item in the order of storage."""
        self._check_open()
        row = 0
        while found := self._catalog.in_order(row, _ITEMS_AT_ONCE):
            yield from (item for _, item in found)
            row = found[-1][0]

    def has_source(self, source: str) -> bool:
        """Say whether any item has this source."""
        self._check_open()
        return self._catalog.has_source(source)

    def sources(self, label: str | None = None) -> Iterator[tuple[str, str]]:
        """Walk over (id, source)."""
        self._check_open()
        label = check_query_label(label)
        after = ""
        while found := self._catalog.sources(after, _SOURCES_AT_ONCE, label):
            yield from found
            after = found[-1][0]

    def list(self, cursor: str | None = None, limit: int = 100, label: str | None = None) -> Page:
        """List items by id."""
        self._check_open()
        limit = check_positive("limit", limit)
        after = "" if cursor is None else _decode_cursor(cursor)
        items = self._catalog.page(after, limit + 1, check_query_label(label))
        if len(items) <= limit:
            return Page(items, None)
        return Page(items[:limit], _encode_cursor(cast(str, items[limit - 1].id)))

    # Maintenance

    def backup(
        self, target: str | os.PathLike[str] | BinaryIO, progress: Callable[[int, int], None] | None = None
    ) -> BackupInfo:
        """Write the gallery as it is at one moment to a file."""
        self._check_open()
        return write_backup(self._catalog, target, progress)

    def backup_chunks(self, progress: Callable[[int, int], None] | None = None) -> Generator[bytes, None, BackupInfo]:
        """Yield the bytes of a backup piece by piece."""
        self._check_open()
        return stream_backup(self._catalog, progress)

    def rebuild(
        self,
        method: str | None = None,
        progress: Callable[[float], None] | None = None,
        threads: int | None = None,
    ) -> None:
        """Build the index anew while the old one serves."""
        chosen = None if method is None else check_method(method)
        threads = self._build_threads if threads is None else check_positive("threads", threads)
        with self._maintenance:
            self._check_open()
            self._build_beside(chosen or self.method, threads, progress)

    def _build_beside(self, method: Method, threads: int, progress: Callable[[float], None] | None = None) -> None:
        """Build an index out of the catalog, catch up with what changes meanwhile, and swap."""

        def tell(part: float) -> None:
            self._progress = part
            if progress is not None:
                progress(part)

        work = Work(threads, self._go_on, tell)
        start = self._catalog.state
        kind = plan(method, start.items, self._index.method, self._options).kind
        try:
            tell(0.0)
            pairs, last_row = read_pairs(self._catalog, self._threads, work.part(0, 0.1))
            index = build(kind, pairs, self._threads, self._options, work.part(0.1, 1))
            del pairs
            last_row = catch_up(index, self._catalog, Position(last_row, start.last_removal))
            with self._changing():
                catch_up(index, self._catalog, Position(last_row, start.last_removal))
                if method != self.method:
                    with self._catalog.transaction() as change:
                        change.choose_method(method)
                self._put_index(index)
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
        return plan(state.method, state.items, self._index.method, self._options)

    @property
    def _build_threads(self) -> int:
        return max(1, self._threads // 2)  # searches want the others

    def _go_on(self) -> None:
        """End work that takes long when the store is being closed."""
        if self._closing.is_set():
            raise GalleryClosed

    def snapshot(self) -> None:
        """Write the index beside the catalog."""
        with self._maintenance:
            self._check_open()
            self._snapshot()

    def _note_changes(self, count: int) -> None:
        self._changes += count
        self._wake_if_due()

    def _wake_if_due(self) -> None:
        if self._switch_is_due() or self._index.fold_is_due() or self._snapshot_is_due():
            self._upkeep.wake()

    def _do_what_is_due(self) -> None:
        with self._maintenance:
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
            logger.info("building the index of %s: %s", self._folder, self._index.worn() or self._plan().reason)
            self._build_beside(self.method, self._build_threads)
        if self._index.fold_is_due():
            try:
                self._index.fold(self._lock, Work(self._build_threads, self._go_on))
            except GpuFailed as error:
                self._give_the_gpu_up(error)
        if self._snapshot_is_due():
            self._snapshot()
        self._wake_if_due()  # a fold may be what makes an index outgrow its lists

    def _switch_is_due(self) -> bool:
        return self._plan().kind != self._index.method or self._index.worn() is not None

    def _snapshot_is_due(self) -> bool:
        """Say whether catching up would take noticeably longer than reading the snapshot."""
        return self._changes >= max(50_000, self._catalog.state.items // 8)

    def _snapshot(self) -> None:
        """Write a snapshot while others search and change; the maintenance lock is held."""
        with self._mutex:
            self._mend()
            index, changes, state = self._index, self._changes, self._catalog.state
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
                writer.finish(token, index.method, index.bits, state.fingerprint, at, export.facts)
                with self._mutex:
                    if self._index is not index:  # it was made anew meanwhile; a later snapshot will do
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

    def close(self) -> None:
        """Wait for calls under way, snapshot, and give the folder free."""
        self.interrupt()
        self._upkeep.stop()
        with self._maintenance:
            if self._closed:
                return
            try:
                self._snapshot_on_closing()
            finally:
                with self._mutex:
                    self._closed = True
                    try:
                        self._catalog.close()
                    finally:
                        with self._lock.write():
                            self._index = make_index(self.bits, self._threads)
                        self._owner.release()

    def _snapshot_on_closing(self) -> None:
        # Catching up a few changes at the next start is cheaper than writing everything now.
        if self._changes < max(1, self._catalog.state.items // 100):
            return
        try:
            self._snapshot()
        except GalleryError as error:
            logger.warning("no snapshot was written on closing (the catalog has everything): %s", error)

    def __enter__(self) -> LocalGalleryStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise GalleryClosed


def _may_be_id(given: object) -> TypeGuard[str]:
    """Say whether SQLite can be asked for this id; it cannot take lone surrogates."""
    return isinstance(given, str) and given.isascii()


def _new_item(candidate: Candidate, ids: Iterator[str], created_ms: int) -> NewItem:
    item = candidate.item
    item_id = item.id if item.id is not None else next(ids)
    return NewItem(item_id, item.label, item.code, candidate.metadata, item.source, created_ms)


def _as_stored(candidates: Sequence[Candidate], news: Sequence[NewItem]) -> Items:
    times = {created_ms: format_time(created_ms) for created_ms in {new.created_ms for new in news}}
    return [
        Item(new.id, new.label, new.code, candidate.item.metadata, new.source, times[new.created_ms])
        for candidate, new in zip(candidates, news, strict=True)
    ]


def _raise_first(added: Added) -> None:
    for outcome in added:
        if isinstance(outcome, GalleryError):
            raise outcome


def _distinct_rows(hits: Sequence[Hits]) -> list[int]:
    if len(hits) == 1:
        return cast("list[int]", hits[0].rows.tolist())
    return cast("list[int]", np.unique(np.concatenate([one.rows for one in hits])).tolist())


def _best(hits: Hits, described: dict[int, tuple[str, str, str | None]], top_k: int) -> list[Match]:
    """Return the first ``top_k`` by (distance, id). Ids are compared as text, which is as UTF-8 bytes."""
    found = [
        (distance, *described[row]) for distance, row in zip(hits.distances.tolist(), hits.rows.tolist(), strict=True)
    ]
    found.sort()  # an id comes once, so nothing behind it is compared
    return [
        Match(item_id, label, distance, decode_metadata(metadata))
        for distance, item_id, label, metadata in found[:top_k]
    ]


def _search_parameters(nprobe: int | None, ef_search: int | None) -> SearchParameters:
    for name, value in (("nprobe", nprobe), ("ef_search", ef_search)):
        if value is not None:
            check_positive(name, value)
    return SearchParameters(nprobe, ef_search)


def _up_to(last_row: int, chunk: Chunk) -> Chunk:
    """Leave out recent pairs that came after a row; nothing else of an index grows during its export."""
    if chunk.kind != "pairs":
        return chunk
    rows, codes = chunk.columns
    keep = rows <= last_row
    return Chunk("pairs", (rows[keep], codes[keep]))


def _encode_cursor(item_id: str) -> str:
    return base64.urlsafe_b64encode(item_id.encode()).decode().rstrip("=")


def _decode_cursor(cursor: object) -> str:
    try:
        if not isinstance(cursor, str):
            raise InvalidQuery("a cursor is a text that a listing gave")
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidQuery("this cursor was not given by a listing: start again without one") from error
