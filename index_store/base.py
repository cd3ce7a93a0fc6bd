"""What a gallery store is: its records, its protocol and its errors.

The errors form one tree::

    GalleryError                  anything this package raises on purpose
    ├── InvalidItem               an item cannot be stored as it is
    ├── InvalidQuery              a search, a listing or an opening was asked for with an impossible value
    ├── ItemExists                the id is taken (``.id``)
    ├── DuplicateCode             an item with an equal code is present (``.existing``)
    ├── ItemNotFound              no item has this id (``.id``)
    ├── FingerprintMismatch       the gallery holds codes of another model (``.stored``, ``.given``)
    ├── MissingCodes              a recoding does not cover every item (``.ids``, ``.count``)
    ├── GalleryNotFound           the folder holds no gallery
    ├── GalleryLocked             another process, or another store of this one, owns the folder
    ├── GalleryClosed             the store was closed
    ├── GalleryExists             a restore was to go where a gallery is
    ├── InvalidBackup             a file is no backup, is damaged, or is of a newer version
    ├── ForeignGallery            a gallery of other software cannot be read: damaged, hostile or not a binary one
    ├── ExportExists              where a gallery is to be written to, there is one (``.path``)
    ├── UnknownSchema             the catalog was written by another version of this package
    ├── CorruptSnapshot           a snapshot cannot be used (never leaves the package: it is rebuilt)
    └── StorageUnavailable        the folder cannot be read or written, or the catalog is damaged
        └── DiskFull              there is no room left; nothing was stored
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
OnDuplicate = Literal["add", "return", "reject"]
Method = Literal["Flat", "IVF", "HNSW32", "auto"]
UNKNOWN_FINGERPRINT = "unknown"
"""The fingerprint of codes that came from elsewhere, until somebody vouches for the model that made them."""


class GalleryError(Exception):
    """The root of every error that this package raises on purpose."""


class InvalidItem(GalleryError):
    """An item cannot be stored as it is: its id, label, code, metadata or source breaks a rule."""


class InvalidQuery(GalleryError):
    """A search, a listing or an opening was asked for with a value that it cannot have."""


class ItemExists(GalleryError):
    """The id is taken."""

    def __init__(self, item_id: str) -> None:
        """Name the id."""
        self.id = item_id
        super().__init__(f"an item with id {item_id!r} exists: choose another id or replace the item")


class DuplicateCode(GalleryError):
    """An item with an equal code is present and the caller asked to refuse such items."""

    def __init__(self, existing: Item) -> None:
        """Name the item that is present."""
        self.existing = existing
        super().__init__(f"item {existing.id!r} (label {existing.label!r}) has an equal code")


class ItemNotFound(GalleryError):
    """No item has this id."""

    def __init__(self, item_id: str) -> None:
        """Name the id."""
        self.id = item_id
        super().__init__(f"no item has id {item_id[:200]!r}")


class FingerprintMismatch(GalleryError):
    """The gallery holds codes of another model than the one given, or codes of another length."""

    def __init__(
        self,
        stored: str | None,
        given: str | None,
        *,
        stored_bits: int | None = None,
        given_bits: int | None = None,
    ) -> None:
        """Name both models, and both lengths if they are known."""
        self.stored = stored
        self.given = given
        self.stored_bits = stored_bits
        self.given_bits = given_bits
        super().__init__(
            f"the gallery holds {stored_bits}-bit codes of model {stored}, "
            f"but {given_bits}-bit codes of model {given} were announced: "
            "use the model that made the gallery, or rehash it"
        )

    @property
    def adoptable(self) -> bool:
        """Whether nothing is known against the given model: the gallery's is unknown, and the lengths are equal."""
        return self.stored in (None, UNKNOWN_FINGERPRINT) and self.stored_bits == self.given_bits


class MissingCodes(GalleryError):
    """A recoding does not cover every item.

    ``ids`` are the first of them in order (at most 100), ``count`` is how many there are.
    """

    def __init__(self, ids: Sequence[str], count: int) -> None:
        """Name the items."""
        self.ids = tuple(ids)
        self.count = count
        shown = ", ".join(self.ids[:3]) + (", ..." if count > 3 else "")
        super().__init__(f"{count} items have no new code ({shown}): give theirs too, or drop the items")


class GalleryNotFound(GalleryError):
    """The folder holds no gallery and the length of the codes of a new one was not given."""


class GalleryLocked(GalleryError):
    """Another process, or another store of this one, owns the folder."""


class GalleryClosed(GalleryError):
    """The store was closed."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("this gallery store is closed")


class GalleryExists(GalleryError):
    """A restore was to go into a folder that holds a gallery."""


class InvalidBackup(GalleryError):
    """A file is no backup of a gallery, is damaged, or was written by a newer version of this package."""


class ForeignGallery(GalleryError):
    """A gallery of other software cannot be read. Nothing of it was stored or run."""


class ExportExists(GalleryError):
    """Where a gallery is to be written to, there is one."""

    def __init__(self, path: Path) -> None:
        """Name the file that is there."""
        self.path = path
        super().__init__(f"{path} exists: name another folder, or say that it is to be overwritten")


class UnknownSchema(GalleryError):
    """The catalog was written by another version of this package."""


class CorruptSnapshot(GalleryError):
    """A snapshot of the index cannot be used. It stays inside the package: the index is rebuilt."""


class StorageUnavailable(GalleryError):
    """The folder cannot be read or written, or the catalog is damaged."""


class DiskFull(StorageUnavailable):
    """There is no room left on the disk, or only the reserve. Nothing of the call was stored."""


@dataclass(frozen=True, slots=True)
class Item:
    """One enrolled picture.

    ``id`` None asks the store for one. ``code`` has bits/8 bytes. ``metadata`` is a JSON object of at most
    64 KiB. ``source`` is an opaque reference to the item's picture, kept with the item. ``created_at``
    (RFC 3339, UTC) is set by the store; what is given there is ignored.
    """

    id: str | None
    label: str
    code: bytes
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    created_at: str | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """An item that was there, in answer to one with an equal code that was therefore not stored."""

    item: Item


@dataclass(frozen=True, slots=True)
class Match:
    """An item found by a search; ``distance`` counts differing bits."""

    id: str
    label: str
    distance: int
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Matches by (distance, id); ``truncated`` says that more lay inside the radius than were asked for."""

    matches: list[Match]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing; ``next_cursor`` is None at the end."""

    items: list[Item]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What the index is.

    ``method`` is what was chosen, ``serving`` the kind of index that answers searches now, ``reason`` why it
    is that one. ``bytes`` is its memory, ``recent`` how many items are still searched one by one until they
    are folded into lists or graph, ``parameters`` what tunes it (``nlist``, ``nprobe``, ``ef_construction``,
    ``ef_search``) with the values that hold unless a search says otherwise. ``rebuild_progress`` is 0 to 1
    while an index is built.
    """

    method: Method
    serving: str
    reason: str
    bits: int
    items: int
    bytes: int
    recent: int
    parameters: dict[str, int]
    model_fingerprint: str | None
    rebuild_progress: float | None


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """What a backup holds. ``bytes`` is the length of its file, ``created_at`` is RFC 3339 in UTC."""

    items: int
    bits: int
    model_fingerprint: str | None
    created_at: str
    bytes: int


# Named because a store's own ``list`` hides the type inside its class.
Items = list[Item]
Added = list[Item | Existing | InvalidItem | ItemExists | DuplicateCode]
SearchResults = list[SearchResult]
NearestMatches = list[Match | None]


class GalleryStore(Protocol):
    """A durable gallery of binary codes, searchable by Hamming distance.

    Many threads may call it at once. A call that changes something returns when the change is durable and
    searchable. Every method raises GalleryClosed after ``close`` and StorageUnavailable when the disk fails.
    """

    @property
    def path(self) -> Path:
        """The data folder."""

    @property
    def bits(self) -> int:
        """The length of the codes, a multiple of 8."""

    @property
    def fingerprint(self) -> str | None:
        """The model that made the codes; None if the gallery was made without one, "unknown" if it was imported."""

    @property
    def method(self) -> Method:
        """The index method that was chosen; ``stats`` says what serves."""

    @property
    def background_error(self) -> BaseException | None:
        """What ails the store's background thread; None while it is well."""

    def add(self, items: Sequence[Item], on_duplicate: OnDuplicate = "add") -> Items:
        """Store items as one durable transaction and return them as stored, in order.

        ``on_duplicate`` is about an item with an equal code, present or earlier in the call: store the new
        one beside it ("add"), return the old one (the smallest id) instead of storing ("return"), or raise
        DuplicateCode ("reject"). Raises InvalidItem, ItemExists, DiskFull; then nothing was stored.
        """

    def add_each(self, items: Sequence[Item], on_duplicate: OnDuplicate = "add") -> Added:
        """Like ``add``, but store the items that can be stored and give the error in place of each other.

        With "return", an item that is not stored because of an equal code is answered with Existing.
        """

    def replace(self, item: Item) -> Item:
        """Put ``item`` in the place of the one with its id. Raises ItemNotFound, InvalidItem, DiskFull."""

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the items with these ids, as one transaction; return how many there were."""

    def remove_label(self, label: str) -> int:
        """Remove every item with this label, as one transaction; return how many there were."""

    def search(
        self,
        codes: Codes,
        hamming_radius: int,
        top_k: int,
        label: str | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> SearchResults:
        """Find the ``top_k`` nearest items within ``hamming_radius`` (inclusive) of each code.

        ``codes`` is C-contiguous uint8 (n, bits / 8); ``label`` keeps only items with exactly this label,
        before ``top_k`` counts, and makes the search exact. ``nprobe``, how many inverted lists are looked
        at, tunes IVF, ``ef_search``, how many candidates are kept, HNSW32: more find more and take longer.
        Other indexes have no use for them. Raises InvalidQuery.
        """

    def nearest(
        self,
        codes: Codes,
        hamming_radius: int,
        label: str | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> NearestMatches:
        """Find the nearest item strictly outside ``hamming_radius`` of each code; None if there is none."""

    def get(self, item_id: str) -> Item | None:
        """Return the item with this id."""

    def list(self, cursor: str | None = None, limit: int = 100, label: str | None = None) -> Page:
        """List items by id, ``limit`` from ``cursor`` (None: the start) on. Raises InvalidQuery."""

    def in_order(self) -> Iterator[Item]:
        """Walk over every item in the order in which they were stored; one that was replaced counts as new."""

    def has_source(self, source: str) -> bool:
        """Say whether any item has this source."""

    def sources(self, label: str | None = None) -> Iterator[tuple[str, str]]:
        """Walk over (id, source) of every item that has a source, by id; ``label`` keeps only its items."""

    def recode(
        self,
        codes: Iterable[tuple[str, bytes]],
        bits: int,
        fingerprint: str | None,
        *,
        drop_missing: bool = False,
    ) -> int:
        """Give every item a new code, and the gallery new bits and fingerprint, as one durable change.

        ``codes`` are (id, code) pairs and may come slowly: the store serves meanwhile. Ids that the gallery
        does not hold (any more) are passed over. Items without a new code raise MissingCodes, or are removed
        with ``drop_missing``. Returns how many items have a new code. Raises InvalidItem for a code of a
        wrong length.
        """

    def rebuild(
        self,
        method: str | None = None,
        progress: Callable[[float], None] | None = None,
        threads: int | None = None,
    ) -> None:
        """Build the index anew from the catalog while the old one serves, then put it in its place.

        ``method`` is chosen from then on, and remembered with the gallery; None keeps what is chosen.
        ``progress`` is told the done part, 0 to 1. ``threads`` is how many build (None: half of those that
        may search). Raises InvalidQuery for a method there is not, DiskFull if there is no room for its
        snapshot, GalleryClosed if the store is closed meanwhile.
        """

    def backup(
        self, target: str | os.PathLike[str] | BinaryIO, progress: Callable[[int, int], None] | None = None
    ) -> BackupInfo:
        """Write the gallery as it is at one moment to a file, for ``restore_gallery``; changes go on meanwhile.

        ``target`` is a path, where the file appears whole and durable or not at all (one that is there is
        replaced), or a binary stream, which need not seek. ``progress`` is told how many items are done, and of
        how many. Raises StorageUnavailable and DiskFull for a path; what a stream raises comes through.
        """

    def backup_chunks(self, progress: Callable[[int, int], None] | None = None) -> Generator[bytes, None, BackupInfo]:
        """Yield the bytes of a backup piece by piece; see ``backup``.

        The gallery's moment is that of the first piece, and the catalog's log cannot shrink until the last.
        ``close`` of the generator gives up. The store's own ``close`` waits for either.
        """

    def interrupt(self) -> None:
        """End what takes long in the background and in ``rebuild`` soon, for good: the store is to be closed."""

    def snapshot(self) -> None:
        """Write the index beside the catalog, so that the next start need not rebuild it."""

    def stats(self) -> IndexStats:
        """Describe the index."""

    def check_writable(self) -> None:
        """Raise StorageUnavailable or DiskFull if nothing at all could be written now."""

    def free_bytes(self) -> int:
        """Return the room on the disk of the data folder, for this user."""

    def check_room(self, needed_bytes: int = 0) -> None:
        """Raise DiskFull if writing so much would touch the reserve that ``open_gallery`` was told to leave."""

    def close(self) -> None:
        """Wait for calls under way, snapshot, and give the folder free. Closing twice does nothing."""

    def __len__(self) -> int:
        """How many items there are."""

    def __enter__(self) -> GalleryStore:
        """Return the store itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
