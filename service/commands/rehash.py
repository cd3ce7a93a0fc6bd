"""Making the codes of a gallery again with another model, from the pictures of its items.

Where an item's picture lies is in its source: ``kept:<sha256>`` for one that the service kept beside the gallery,
``file:<path>`` for one that was enrolled from a list, relative to the image root. The gallery changes in one
transaction at the end; until then, and if anything fails, it stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from index_store import GalleryStore, Item, MissingCodes
from service.errors import PictureError
from service.pictures import SOURCE_PREFIX as KEPT_PREFIX
from service.pictures import KeptPictures
from service.timing import StageTimes
from service.vision import DetectOptions

from .access import Json
from .build import Progress
from .listing import SOURCE_PREFIX as FILE_PREFIX

if TYPE_CHECKING:
    from .models import LoadedModels

_PAGE = 1000
_WHOLE = DetectOptions(detect=False, threshold=0.0, max_objects=1)

Locate = Callable[[Item], bytes | Path | str]
"""Gives an item's picture: its bytes, the path of its file, or why it cannot be found."""


@dataclass(frozen=True)
class Lost:
    """An item whose picture cannot be hashed again, and why."""

    id: str
    label: str
    reason: str


@dataclass
class RehashReport:
    """What a rehash did. ``changed`` is whether the gallery is of the new model now."""

    items: int
    rehashed: int = 0
    dropped: int = 0
    changed: bool = False
    lost: list[Lost] = field(default_factory=list)

    def to_json(self) -> Json:
        """Give the report for machines."""
        lost = [{"id": each.id, "label": each.label, "reason": each.reason} for each in self.lost]
        counts = {"items": self.items, "rehashed": self.rehashed, "dropped": self.dropped, "changed": self.changed}
        return counts | {"lost": lost}


def by_source(pictures: KeptPictures, image_root: Path | None) -> Locate:
    """Find pictures by the sources of their items.

    Args:
        pictures: those that the service kept.
        image_root: what the paths of enrolled files are relative to; None: only absolute ones are found.
    """

    def locate(item: Item) -> bytes | Path | str:
        source = item.source
        if source is None:
            return "its picture was not kept"
        if source.startswith(KEPT_PREFIX):
            return pictures.read(source) or "its kept picture is gone"
        if not source.startswith(FILE_PREFIX):
            return f"its source {source!r} is of an unknown kind"
        path = Path(source.removeprefix(FILE_PREFIX))
        if not path.is_absolute() and image_root is None:
            return f"{path} is relative to an image root: give it with --image-root"
        full = (image_root or Path()) / path
        return full if full.is_file() else f"{full} is not there"

    return locate


def rehash(
    store: GalleryStore,
    models: LoadedModels,
    locate: Locate,
    *,
    drop_missing: bool = False,
    batch_size: int = 32,
    progress: Progress = lambda done, total: None,
) -> RehashReport:
    """Give every item of ``store`` the code that ``models`` make of its picture.

    Args:
        store: the gallery, of whatever model.
        models: make the new codes.
        locate: finds the pictures.
        drop_missing: remove the items whose picture cannot be hashed; else one such item stops everything.
        batch_size: pictures hashed at a time.
        progress: is told how many items are done.

    Returns:
        The report; with ``changed`` false where pictures are lost, and nothing was changed.
    """
    report = RehashReport(items=len(store))
    if not drop_missing:
        # Telling files that are not there costs little; hashing all others first would cost hours.
        report.lost += _not_found(store, locate)
        if report.lost:
            return report
    codes = _codes(store, models, locate, report, batch_size, progress)
    hasher = models.hasher
    try:
        report.rehashed = store.recode(codes, hasher.bits, hasher.fingerprint, drop_missing=drop_missing)
    except MissingCodes:
        return report
    report.changed = True
    report.dropped = report.items - report.rehashed
    return report


def _not_found(store: GalleryStore, locate: Locate) -> Iterator[Lost]:
    for item in _items(store):
        if item.source is None or not item.source.startswith(KEPT_PREFIX):
            found = locate(item)
            if isinstance(found, str):
                yield Lost(item.id or "", item.label, found)


def _codes(
    store: GalleryStore,
    models: LoadedModels,
    locate: Locate,
    report: RehashReport,
    batch_size: int,
    progress: Progress,
) -> Iterator[tuple[str, bytes]]:
    done = 0
    for batch in _batches(_items(store), batch_size):
        pictures: list[bytes] = []
        owners: list[Item] = []
        for item in batch:
            picture = _read(locate(item))
            if isinstance(picture, str):
                report.lost.append(Lost(item.id or "", item.label, picture))
            else:
                pictures.append(picture)
                owners.append(item)
        for item, coded in zip(owners, models.vision.code(pictures, _WHOLE, StageTimes()), strict=True):
            if isinstance(coded, PictureError):
                report.lost.append(Lost(item.id or "", item.label, str(coded)))
            else:
                yield item.id or "", coded.code
        done += len(batch)
        progress(done, report.items)


def _read(found: bytes | Path | str) -> bytes | str:
    if not isinstance(found, Path):
        return found
    try:
        return found.read_bytes()
    except OSError as error:
        return f"{found} cannot be read: {error.strerror or error}"


def _items(store: GalleryStore) -> Iterator[Item]:
    cursor: str | None = None
    while True:
        page = store.list(cursor, _PAGE)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    walk = iter(items)
    while batch := list(islice(walk, size)):
        yield batch
