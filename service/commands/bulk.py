"""Loading codes in bulk into a gallery, batch by batch, each as one transaction.

A load can be stopped between two batches, and gone on with: items with ids that are there already, just so, count as
unchanged; a load without ids says how many items to skip.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from index_store import (
    UNKNOWN_FINGERPRINT,
    Existing,
    GalleryError,
    GalleryStore,
    Item,
    ItemExists,
)
from service.loading import open_or_make_store
from service.settings import Settings

from .access import CommandError, Json, OnDuplicate, ServerRefusal
from .answers import index_json
from .build import Progress
from .bulk_input import BulkInput, in_batches
from .client import RemoteGallery
from .options import open_server

_KEPT_REFUSALS = 100


@dataclass(frozen=True)
class Refused:
    """Why an item was not stored."""

    reason: str


Stored = Literal["added", "unchanged", "returned"]
Fate = Stored | Refused
"""What became of an item; ``unchanged``: it was there just so, ``returned``: another with an equal code was."""


@dataclass
class LoadReport:
    """What a load did.

    Attributes:
        codes: how many there are in the files.
        done: how far in the files it came.
        counts: of ``added``, ``unchanged``, ``returned`` and ``refused`` items.
        refusals: the first of the refused, each with the number of its line.
    """

    codes: int
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    refusals: list[tuple[int, Refused]] = field(default_factory=list)

    def to_json(self) -> Json:
        """Give the report for machines."""
        refusals = [{"line": line, "reason": refused.reason} for line, refused in self.refusals]
        counts = {fate: self.counts[fate] for fate in ("added", "unchanged", "returned", "refused")}
        return {"codes": self.codes, "done": self.done, **counts, "refusals": refusals}

    def count(self, fates: Sequence[Fate]) -> None:
        """Note what became of the next items."""
        for line, fate in enumerate(fates, self.done + 1):
            self.counts["refused" if isinstance(fate, Refused) else fate] += 1
            if isinstance(fate, Refused) and len(self.refusals) < _KEPT_REFUSALS:
                self.refusals.append((line, fate))
        self.done += len(fates)


class Sink(Protocol):
    """Where codes go."""

    batch_size: int

    def add(self, items: Sequence[Item], on_duplicate: OnDuplicate) -> list[Fate]:
        """Store what can be stored, and tell what became of each item."""

    def info(self) -> Json:
        """Describe the gallery as ``GET /index`` does."""


class FolderSink:
    """The gallery in a data folder."""

    batch_size = 10_000

    def __init__(self, store: GalleryStore) -> None:
        """Add to an open store."""
        self._store = store

    def add(self, items: Sequence[Item], on_duplicate: OnDuplicate) -> list[Fate]:
        """Store a batch as one durable transaction."""
        return [
            self._fate(item, outcome)
            for item, outcome in zip(items, self._store.add_each(items, on_duplicate), strict=True)
        ]

    def info(self) -> Json:
        """Describe the gallery as ``GET /index`` does."""
        return index_json(self._store)

    def _fate(self, item: Item, outcome: Item | Existing | GalleryError) -> Fate:
        if isinstance(outcome, Item):
            return "added"
        if isinstance(outcome, Existing):
            return "returned"
        if isinstance(outcome, ItemExists):
            old = self._store.get(outcome.id)
            if old is not None and (old.label, old.code, old.metadata) == (item.label, item.code, item.metadata):
                return "unchanged"
        return Refused(str(outcome))


class ServerSink:
    """The gallery of a running service."""

    batch_size = 1000

    def __init__(self, gallery: RemoteGallery) -> None:
        """Add through ``POST /gallery/batch``."""
        self._gallery = gallery

    def add(self, items: Sequence[Item], on_duplicate: OnDuplicate) -> list[Fate]:
        """Store a batch, which is halved if the server finds it too large."""
        try:
            results = self._gallery.add_codes([_members(item) for item in items], on_duplicate)
        except ServerRefusal as error:
            if error.status in (413, 422) and len(items) > 1:
                half = len(items) // 2
                return self.add(items[:half], on_duplicate) + self.add(items[half:], on_duplicate)
            raise
        return [self._fate(item, result) for item, result in zip(items, results, strict=True)]

    def info(self) -> Json:
        """Describe the gallery through ``GET /index``."""
        return self._gallery.info()

    def _fate(self, item: Item, result: Json) -> Fate:
        if "item" in result:
            return "added" if result["status"] == 201 else "returned"
        problem = result["problem"]
        if problem["code"] == "item_exists" and item.id is not None:
            old = self._gallery.item(item.id)
            if (old["label"], old["code"], old["metadata"]) == (item.label, item.code.hex(), item.metadata):
                return "unchanged"
        return Refused(str(problem["detail"]))


def load(
    bulk: BulkInput, sink: Sink, on_duplicate: OnDuplicate, skip: int, progress: Progress = lambda done, total: None
) -> LoadReport:
    """Load everything from item number ``skip`` on, in order, until the end or an interrupt.

    Raises:
        CommandError: the gallery failed; the text says how far the load came and how to go on.
    """
    report = LoadReport(len(bulk), done=skip)
    with _interrupts() as interrupted:
        for batch in in_batches(bulk.items(skip), sink.batch_size):
            try:
                fates = sink.add(batch, on_duplicate)
            except (CommandError, GalleryError) as error:
                torn = isinstance(sink, ServerSink) and not isinstance(error, ServerRefusal)
                raise CommandError(f"{error}\n{how_to_go_on(bulk, report, torn=len(batch) if torn else 0)}") from error
            report.count(fates)
            progress(report.done, report.codes)
            if interrupted():
                break
    return report


def how_to_go_on(bulk: BulkInput, report: LoadReport, *, torn: int = 0) -> str:
    """Say how far a load came and how to go on; of ``torn`` further items nobody knows whether they were stored."""
    stopped = f"stopped after {report.done:,} of {report.codes:,} items"
    if bulk.ids is not None:
        return f"{stopped}: give the same command again, items that are in count as unchanged (or --skip {report.done})"
    if torn:
        return (
            f"{stopped}; the next {torn:,} may be in or not: see `shitu gallery info`, then go on with "
            f"--skip {report.done} or --skip {report.done + torn} (items with --ids could be told apart)"
        )
    return f"{stopped}: go on with --skip {report.done}"


@contextmanager
def open_sink(
    server: str | None, api_key: str | None, settings: Settings | None, bits: int, fingerprint: str | None
) -> Iterator[Sink]:
    """Open the gallery of a server, or of the settings' data folder (which is made; no model is loaded).

    Raises:
        CommandError: the gallery has codes of another length than ``bits``, or of another model than is given.
        GalleryLocked, StorageUnavailable.
    """
    if server is not None:
        with closing(open_server(server, api_key)) as gallery:
            index = gallery.info()
            _check_fit("the server", index["bits"], index["model_fingerprint"], bits, fingerprint)
            yield ServerSink(gallery)
        return
    settings = settings or Settings.load()
    with open_or_make_store(settings, bits, fingerprint or UNKNOWN_FINGERPRINT) as store:
        _check_fit(str(settings.data_dir), store.bits, store.fingerprint, bits, fingerprint)
        yield FolderSink(store)


def _check_fit(where: str, has_bits: int, has_model: str | None, bits: int, fingerprint: str | None) -> None:
    """Raise CommandError unless codes of ``bits`` bits and, if it is given, of this model belong there."""
    if has_bits != bits:
        raise CommandError(f"the codes have {bits} bits, those of {where} have {has_bits}: load them into a new folder")
    if fingerprint not in (None, has_model):
        raise CommandError(
            f"the codes are of model {fingerprint}, those of {where} are of model {has_model}: "
            "codes of two models cannot be compared"
        )


def _members(item: Item) -> Json:
    members: Json = {"code": item.code.hex(), "label": item.label}
    if item.id is not None:
        members["id"] = item.id
    if item.metadata:
        members["metadata"] = item.metadata
    return members


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of obeying at once, so that it is known what was stored; obey the second."""
    noted = threading.Event()

    def note(number: int, frame: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
