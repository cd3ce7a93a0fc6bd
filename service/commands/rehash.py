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

from index_store import GalleryStore, Item, MissingCodes
from service.errors import PictureError
from service.pictures import SOURCE_PREFIX as KEPT_PREFIX
from service.pictures import KeptPictures
from service.timing import StageTimes
from service.vision import DetectOptions, Vision

from .access import Json
from .build import Progress
from .listing import SOURCE_PREFIX as FILE_PREFIX
from .listing import Listing

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


def by_listing(listing: Listing, image_root: Path) -> Locate:
    """Find the pictures of those items that a gallery list names."""
    paths = {entry.id: image_root / entry.path for entry in listing.entries}
    return lambda item: paths.get(item.id or "", "is not in the list")


def any_usable(listing: Listing, image_root: Path, vision: Vision) -> bool:
    """Tell whether at least one picture of a list can be hashed."""
    pictures = (_read(image_root / entry.path) for entry in listing.entries)
    return any(
        isinstance(picture, bytes) and not isinstance(vision.code([picture], _WHOLE, StageTimes())[0], PictureError)
        for picture in pictures
    )


def rehash(
    store: GalleryStore,
    vision: Vision,
    fingerprint: str,
    locate: Locate,
    *,
    drop_missing: bool = False,
    batch_size: int = 32,
    progress: Progress = lambda done, total: None,
) -> RehashReport:
    """Give every item of ``store`` the code that another model makes of its picture.

    Args:
        store: the gallery, of whatever model.
        vision: makes the new codes.
        fingerprint: of its hasher.
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
    items = _counted(_items(store), report.items, progress)
    codes = _codes(items, vision, locate, batch_size, report.lost)
    try:
        report.rehashed = store.recode(codes, vision.bits, fingerprint, drop_missing=drop_missing)
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
                yield _lost(item, found)


def _codes(
    items: Iterator[Item], vision: Vision, locate: Locate, batch_size: int, lost: list[Lost]
) -> Iterator[tuple[str, bytes]]:
    """Hash the pictures of the items as they are asked for, and note those that cannot be."""
    while batch := list(islice(items, batch_size)):
        found = [(item, _read(locate(item))) for item in batch]
        readable = [(item, picture) for item, picture in found if isinstance(picture, bytes)]
        lost += [_lost(item, reason) for item, reason in found if isinstance(reason, str)]
        coded = vision.code([picture for _, picture in readable], _WHOLE, StageTimes())
        for (item, _), outcome in zip(readable, coded, strict=True):
            if isinstance(outcome, PictureError):
                lost.append(_lost(item, str(outcome)))
            else:
                yield item.id or "", outcome.code


def _lost(item: Item, reason: str) -> Lost:
    return Lost(item.id or "", item.label, reason)


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


def _counted(items: Iterable[Item], total: int, progress: Progress) -> Iterator[Item]:
    for done, item in enumerate(items):
        progress(done, total)
        yield item
    progress(total, total)
