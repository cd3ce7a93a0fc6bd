"""Taking over a gallery of PaddleClas's PP-ShiTu, and giving one back.

The texts of its ``id_map.pkl`` are lines of the gallery list, so an item gets the id and the source that
``gallery build`` gives to the same line: an import can be repeated, ``build`` with append finds the items, and
``rehash`` finds their pictures. An item that came from no list is exported with ``item:`` and its id in the
place of the path, since PaddleClas looks for the label behind the first blank; an import knows it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from index_store import (
    UNKNOWN_FINGERPRINT,
    ExportExists,
    GalleryLocked,
    GalleryNotFound,
    GalleryStore,
    InvalidItem,
    Item,
    ItemExists,
    PaddleClasGallery,
    write_paddleclas,
)
from service.loading import open_or_make_store, open_store
from service.settings import Settings

from .access import CommandError, Json
from .build import Progress
from .listing import SOURCE_PREFIX as FILE_PREFIX
from .listing import parse_listing

_BATCH = 10_000
_ITEM_PREFIX = "item:"


@dataclass(frozen=True)
class Refused:
    """A vector that did not become an item: its place in the index from 0, its text, and why."""

    vector: int
    text: str
    reason: str


@dataclass
class ImportReport:
    """What an import did, counted in vectors; the rest describes the gallery afterwards."""

    vectors: int
    added: int = 0
    unchanged: int = 0
    items: int = 0
    bits: int = 0
    model_fingerprint: str = UNKNOWN_FINGERPRINT
    refused: list[Refused] = field(default_factory=list)

    @property
    def worked(self) -> bool:
        """Whether any vector could be used, or there was nothing wrong with one."""
        return not self.refused or self.added + self.unchanged > 0

    def to_json(self) -> Json:
        """Give the report for machines."""
        names = ("vectors", "added", "unchanged", "items", "bits", "model_fingerprint")
        refused = [{"vector": each.vector, "text": each.text, "reason": each.reason} for each in self.refused]
        return {name: getattr(self, name) for name in names} | {"refused": refused}


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    folder: Path
    method: str
    items: int
    bits: int

    def to_json(self) -> Json:
        """Give the report for machines."""
        return {"folder": str(self.folder), "method": self.method, "items": self.items, "bits": self.bits}


@contextmanager
def open_for_import(settings: Settings, bits: int, fingerprint: str | None) -> Iterator[GalleryStore]:
    """Open the data folder for codes of ``bits`` bits that a model made, or make a gallery for them there.

    Args:
        settings: say which folder.
        bits: of the codes to import.
        fingerprint: of the model that made them; None if nobody knows.

    Raises:
        CommandError: the codes do not fit the gallery, which is left alone; the text says what to do.
        GalleryError: it cannot be opened.
    """
    if settings.expected_bits not in (None, bits):
        raise CommandError(f"the configuration expects codes of {settings.expected_bits} bits, these have {bits}")
    with open_folder(settings, (bits, fingerprint or UNKNOWN_FINGERPRINT)) as store:
        where = f"the gallery in {settings.data_dir}"
        if store.bits != bits:
            raise CommandError(
                f"{where} holds codes of {store.bits} bits, these have {bits}: import into another --data-dir"
            )
        if store.fingerprint not in (None, UNKNOWN_FINGERPRINT, fingerprint):
            raise CommandError(
                f"{where} is of model {store.fingerprint}, these codes are of model "
                f"{fingerprint or UNKNOWN_FINGERPRINT}: if that model made them, say --fingerprint "
                f"{store.fingerprint}; else import into another --data-dir"
            )
        yield store


@contextmanager
def open_folder(settings: Settings, make: tuple[int, str] | None = None) -> Iterator[GalleryStore]:
    """Open the gallery in the data folder, whatever it holds; ``make`` one of these bits and model if there is none.

    No model is loaded for it.
    """
    folder = settings.data_dir
    try:
        store = open_store(settings) if make is None else open_or_make_store(settings, *make)
    except GalleryNotFound:
        raise CommandError(f"{folder} holds no gallery: name another --data-dir") from None
    except GalleryLocked as error:
        raise CommandError(f"{folder} is in use: stop the service that owns it; this works on the folder") from error
    with store:
        yield store


def import_paddleclas(
    store: GalleryStore,
    foreign: PaddleClasGallery,
    delimiter: str,
    progress: Progress = lambda done, total: None,
) -> ImportReport:
    """Store the codes and labels of a PaddleClas gallery, in its order.

    An item that is there already, with equal code and label, is left alone and counted. What was stored before
    an error stays; the import can be run again.

    Args:
        store: a gallery of the same bits.
        foreign: the gallery to import.
        delimiter: what parts path and label in its texts; a text without it is wholly a label.
        progress: is told how many vectors are done.
    """
    report = ImportReport(vectors=len(foreign.texts))
    for start in range(0, report.vectors, _BATCH):
        texts = foreign.texts[start : start + _BATCH]
        drafts = [_draft(text, foreign.codes[start + offset].tobytes(), delimiter) for offset, text in enumerate(texts)]
        outcomes = store.add_each([draft for draft in drafts if isinstance(draft, Item)])
        remaining = iter(outcomes)
        for offset, draft in enumerate(drafts):
            reason = draft if isinstance(draft, str) else _count(next(remaining), draft, store, report)
            if reason is not None:
                printable = texts[offset].encode(errors="backslashreplace").decode()
                report.refused.append(Refused(start + offset, printable, reason))
        progress(start + len(texts), report.vectors)
    report.items, report.bits = len(store), store.bits
    report.model_fingerprint = store.fingerprint or UNKNOWN_FINGERPRINT
    return report


def export_paddleclas(
    store: GalleryStore,
    folder: Path,
    *,
    method: str,
    delimiter: str,
    overwrite: bool,
    progress: Progress = lambda done, total: None,
) -> ExportReport:
    """Write every item of a gallery, in the order in which they were enrolled, as PaddleClas reads it.

    Raises:
        CommandError: there is an index already and ``overwrite`` is false, or a path holds the delimiter.
        GalleryError: see ``write_paddleclas``.
    """
    count, bits = len(store), store.bits
    pairs = ((item.code, _text(item, delimiter)) for item in store.in_order())
    try:
        write_paddleclas(folder, pairs, count, bits, method=method, overwrite=overwrite, progress=progress)
    except ExportExists as error:
        raise CommandError(f"{error.path} exists: name another folder, or overwrite it with --force") from error
    return ExportReport(folder, method, count, bits)


def _draft(text: str, code: bytes, delimiter: str) -> Item | str:
    """Make an item of a text of the id map, or say why there can be none."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "is no valid Unicode"
    entries = parse_listing((text,), delimiter).entries
    if not entries:  # a label alone
        return Item(None, text.strip(), code)
    (entry,) = entries
    if entry.path.startswith(_ITEM_PREFIX):
        return Item(entry.path.removeprefix(_ITEM_PREFIX), entry.label, code)
    return Item(entry.id, entry.label, code, source=entry.source)


def _count(outcome: object, draft: Item, store: GalleryStore, report: ImportReport) -> str | None:
    """Count what became of an item, or say why it was refused."""
    if isinstance(outcome, Item):
        report.added += 1
        return None
    if not isinstance(outcome, ItemExists):
        return str(outcome) if isinstance(outcome, InvalidItem) else f"was refused: {outcome}"
    old = store.get(outcome.id)
    if old is None or (old.code, old.label) != (draft.code, draft.label):
        return f"is there already as item {outcome.id}, with another code or label: remove that one first"
    report.unchanged += 1
    return None


def _text(item: Item, delimiter: str) -> str:
    source = item.source or ""
    path = source.removeprefix(FILE_PREFIX) if source.startswith(FILE_PREFIX) else f"{_ITEM_PREFIX}{item.id}"
    if delimiter in path:
        raise CommandError(f"the path of item {item.id} holds the delimiter {delimiter!r}: give another --delimiter")
    return f"{path}{delimiter}{item.label}"
