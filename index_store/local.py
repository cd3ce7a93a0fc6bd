"""A gallery in a local folder: what callers ask, checked and passed to the catalog and to the index that follows it."""

from __future__ import annotations

import base64
import binascii
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np

from index_store.backup import stream_backup, write_backup
from index_store.base import (
    UNKNOWN_FINGERPRINT,
    Added,
    BackupInfo,
    Codes,
    Existing,
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
from index_store.catalog import FILE_NAME, Catalog, NewItem, format_time
from index_store.disk_space import DiskReserve
from index_store.enrolment import Candidate, answer, check_item, decide
from index_store.faults import storage_faults
from index_store.folders import make_folder
from index_store.hamming import (
    HammingIndex,
    Hits,
    IndexOptions,
    SearchParameters,
    why_no_gpu,
)
from index_store.live_index import Described, Find, LiveIndex
from index_store.locks import FolderLock
from index_store.recovery import load_index
from index_store.restore import remove_leftovers
from index_store.snapshot import sync_folder
from index_store.validation import (
    check_bits,
    check_method,
    check_positive,
    check_query_codes,
    check_query_label,
    check_radius,
    decode_metadata,
)

_SOURCES_AT_ONCE = 1000
_ITEMS_AT_ONCE = 1000
_PROBE_BYTES = 64 * 1024
_ROW_BYTES = 256  # of an item besides its code, label and metadata: id, source, and its places in SQLite's indexes
_CODE_INDEX_ROW_BYTES = 2 * 20  # of an item in the index on codes, in the log and in the catalog; 17.5 each were seen
_ID_BYTES = 128

logger = logging.getLogger(__name__)


def open_gallery(
    path: str | os.PathLike[str],
    bits: int | None = None,
    method: str | None = None,
    fingerprint: str | None = None,
    *,
    threads: int | None = None,
    options: IndexOptions | None = None,
    adopt: bool = False,
    min_free_bytes: int = 0,
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

    ``min_free_bytes`` is what is left free on the disk: what lets the gallery grow raises DiskFull while there is
    still that much, so that items can be removed.

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
        reserve = DiskReserve(folder, min_free_bytes)
        live = LiveIndex(folder, catalog, index, threads=threads, options=options, changes=changes, reserve=reserve)
        store = LocalGalleryStore(owner, catalog, live, reserve)
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

    def __init__(self, owner: FolderLock, catalog: Catalog, live: LiveIndex, reserve: DiskReserve) -> None:
        """Serve a folder that is owned, by an index that follows its catalog; ``reserve`` is left on its disk."""
        self._folder = owner.folder
        self._owner = owner
        self._catalog = catalog
        self._reserve = reserve
        self._live = live
        self._recoding = threading.Lock()
        self._probing = threading.Lock()

    # What it is

    @property
    def path(self) -> Path:
        """The data folder."""
        return self._folder

    @property
    def bits(self) -> int:
        """The length of the codes."""
        return self._live.index.bits

    @property
    def fingerprint(self) -> str | None:
        """The model that made the codes."""
        return self._live.fingerprint

    @property
    def method(self) -> Method:
        """The index method that was chosen."""
        return self._catalog.state.method

    @property
    def background_error(self) -> BaseException | None:
        """Why the index is not kept up at present (it still serves); None while all is well."""
        return self._live.error

    def __len__(self) -> int:
        """How many items there are."""
        self._live.check_open()
        return self._catalog.state.items

    def stats(self) -> IndexStats:
        """Describe the index."""
        self._live.check_open()
        return self._live.stats()

    def check_writable(self) -> None:
        """Write a little to the disk, and take it away again."""
        self._live.check_open()
        probe = self._folder / "probe.tmp"
        with self._probing, storage_faults(self._folder):
            try:
                probe.write_bytes(bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Return the room on the disk."""
        return self._reserve.free_bytes()

    def check_room(self, needed_bytes: int = 0) -> None:
        """Raise DiskFull if the reserve would be touched."""
        self._reserve.require(needed_bytes)

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
        with self._live.changing():
            if on_duplicate != "add" and not self._catalog.has_code_index():
                self._reserve.require(_CODE_INDEX_ROW_BYTES * self._catalog.state.items)
                self._catalog.index_codes()
            given = [item.id for item in items if isinstance(item, Item) and _may_be_id(item.id)]
            taken = self._catalog.rows_of_ids(given)
            fates = decide(items, self.bits, on_duplicate, taken, self._catalog.find_code)
            candidates = [fate for fate in fates if isinstance(fate, Candidate)]
            if candidates:
                self._reserve.require(_bytes_on_disk(candidates))
            now_ms = time.time_ns() // 1_000_000
            with self._catalog.transaction() as change:
                unnamed = sum(candidate.item.id is None for candidate in candidates)
                ids = iter(change.make_ids(unnamed, now_ms, set(given)) if unnamed else [])
                news = [_new_item(candidate, ids, now_ms) for candidate in candidates]
                added = answer(fates, _as_stored(candidates, news), on_duplicate)
                if all_or_none:
                    _raise_first(added)
                rows = change.insert(news)
            self._live.apply(rows, news)
        return added

    def replace(self, item: Item) -> Item:
        """Put an item in the place of the one with its id; when it was created stays."""
        with self._live.changing():
            candidate = check_item(item, self.bits)
            if item.id is None:
                raise InvalidItem("the item to replace must be named by its id")
            old = self._catalog.rows_of_ids([item.id])
            if not old:
                raise ItemNotFound(item.id)
            self._reserve.require(_bytes_on_disk([candidate]))
            with self._catalog.transaction() as change:
                created_ms = change.created_ms(old[item.id])
                news = [_new_item(candidate, iter(()), created_ms)]
                change.delete([old[item.id]])
                rows = change.insert(news)
            self._live.apply(rows, news, removed=list(old.values()))
        return _as_stored([candidate], news)[0]

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the items with these ids."""
        wanted = list(dict.fromkeys(ids))
        if not all(isinstance(item_id, str) for item_id in wanted):
            raise InvalidItem("ids are texts")
        with self._live.changing():
            rows = self._catalog.rows_of_ids([item_id for item_id in wanted if _may_be_id(item_id)])
            return self._remove(list(rows.values()))

    def remove_label(self, label: str) -> int:
        """Remove every item with this label."""
        checked = check_query_label(label)
        if checked is None:
            raise InvalidQuery("a label is needed")
        with self._live.changing():
            return self._remove(self._catalog.rows_of_label(checked).tolist())

    def _remove(self, rows: list[int]) -> int:
        if rows:
            with self._catalog.transaction() as change:
                change.delete(rows)
            self._live.apply(np.empty(0, dtype=np.int64), [], removed=rows)
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
        self._live.check_open()
        # The new codes are staged beside the catalog, whose rows are then all written to the log.
        self._reserve.require(self._catalog.nbytes + self._catalog.state.items * (bits // 8 + _ID_BYTES))
        with self._recoding, self._catalog.staged(codes, bits) as stage, self._live.maintenance, self._live.changing():
            with self._catalog.transaction(stage) as change:
                count = change.recode(bits, fingerprint, drop_missing)
            self._live.start_anew(count)
        return count

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

    def _find(self, codes: Codes, find: Find, label: str | None) -> Iterator[tuple[Hits, Described]]:
        self._live.check_open()
        return self._live.find(check_query_codes(codes, self.bits), find, check_query_label(label))

    # Listing

    def get(self, item_id: str) -> Item | None:
        """Return the item with this id."""
        self._live.check_open()
        return self._catalog.get(item_id) if _may_be_id(item_id) else None

    def in_order(self) -> Iterator[Item]:
        """Walk over every item in the order of storage."""
        self._live.check_open()
        row = 0
        while found := self._catalog.in_order(row, _ITEMS_AT_ONCE):
            yield from (item for _, item in found)
            row = found[-1][0]

    def has_source(self, source: str) -> bool:
        """Say whether any item has this source."""
        self._live.check_open()
        return self._catalog.has_source(source)

    def sources(self, label: str | None = None) -> Iterator[tuple[str, str]]:
        """Walk over (id, source)."""
        self._live.check_open()
        label = check_query_label(label)
        after = ""
        while found := self._catalog.sources(after, _SOURCES_AT_ONCE, label):
            yield from found
            after = found[-1][0]

    def list(self, cursor: str | None = None, limit: int = 100, label: str | None = None) -> Page:
        """List items by id."""
        self._live.check_open()
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
        self._live.check_open()
        return write_backup(self._catalog, target, progress)

    def backup_chunks(self, progress: Callable[[int, int], None] | None = None) -> Generator[bytes, None, BackupInfo]:
        """Yield the bytes of a backup piece by piece."""
        self._live.check_open()
        return stream_backup(self._catalog, progress)

    def rebuild(
        self,
        method: str | None = None,
        progress: Callable[[float], None] | None = None,
        threads: int | None = None,
    ) -> None:
        """Build the index anew while the old one serves."""
        chosen = None if method is None else check_method(method)
        self._live.rebuild(chosen, progress, None if threads is None else check_positive("threads", threads))

    def snapshot(self) -> None:
        """Write the index beside the catalog."""
        self._live.snapshot()

    def interrupt(self) -> None:
        """Let a rebuild or upkeep under way end soon."""
        self._live.interrupt()

    def close(self) -> None:
        """Wait for calls under way, snapshot, and give the folder free."""
        self._live.close(self._let_go)

    def _let_go(self) -> None:
        try:
            self._catalog.close()
        finally:
            self._owner.release()

    def __enter__(self) -> LocalGalleryStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()


def _bytes_on_disk(candidates: Sequence[Candidate]) -> int:
    """Return about what storing items takes at most: each is written to the log and from there to the catalog."""
    return 2 * sum(
        len(each.item.code) + len(each.item.label.encode()) + len(each.metadata or "") + _ROW_BYTES
        for each in candidates
    )


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


def _best(hits: Hits, described: Described, top_k: int) -> list[Match]:
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


def _encode_cursor(item_id: str) -> str:
    return base64.urlsafe_b64encode(item_id.encode()).decode().rstrip("=")


def _decode_cursor(cursor: object) -> str:
    try:
        if not isinstance(cursor, str):
            raise InvalidQuery("a cursor is a text that a listing gave")
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidQuery("this cursor was not given by a listing: start again without one") from error
