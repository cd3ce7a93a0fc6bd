"""Changes of the gallery together with the pictures that are kept for its items. No HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from index_store import DuplicateCode, Existing, GalleryStore, InvalidItem, Item, ItemExists, ItemNotFound

from .pictures import KeptPictures, PictureChange
from .timing import StageTimes

Refused = InvalidItem | ItemExists | DuplicateCode


@dataclass(frozen=True)
class Draft:
    """An item to be.

    Attributes:
        id: None: the store makes one.
        label: what it shows.
        metadata: a JSON object.
        code: packed.
        picture: a picture file to keep with it, which decodes to what was hashed; None: none is kept.
    """

    id: str | None
    label: str
    metadata: dict[str, Any]
    code: bytes
    picture: bytes | None = None


class Enroller:
    """Adds, replaces and removes items; threads may share it."""

    def __init__(self, store: GalleryStore, pictures: KeptPictures) -> None:
        """Change ``store`` and keep its pictures in ``pictures``."""
        self._store = store
        self._pictures = pictures

    def add(
        self, drafts: Sequence[Draft], on_duplicate: Literal["add", "return", "reject"], times: StageTimes
    ) -> list[Item | Existing | Refused]:
        """Store what can be stored as one durable transaction.

        Args:
            drafts: the items.
            on_duplicate: what to do about an item with an equal code.
            times: gets the stage persist.

        Returns:
            The stored item, the one that was there, or why it was refused, in the order given.

        Raises:
            StorageUnavailable, DiskFull: nothing was stored.
        """
        with times.measure("persist"), self._pictures.change() as change:
            items = [
                Item(
                    draft.id,
                    draft.label,
                    draft.code,
                    draft.metadata,
                    source=change.keep(draft.picture) if draft.picture is not None else None,
                )
                for draft in drafts
            ]
            return self._store.add_each(items, on_duplicate)

    def replace(self, draft: Draft, times: StageTimes) -> Item:
        """Put a draft, which has an id, in the place of the item with that id.

        If the draft has no picture but the code that is stored, the kept picture stays: it still belongs to it.

        Raises:
            ItemNotFound, InvalidItem, StorageUnavailable, DiskFull.
        """
        with times.measure("persist"), self._pictures.change() as change:
            item = Item(draft.id, draft.label, draft.code, draft.metadata)
            if draft.picture is not None:
                item = replace(item, source=change.keep(draft.picture))
            old = self._hold(draft.id or "", change)
            if draft.picture is None and old.code == draft.code:
                item = replace(item, source=old.source)
            return self._store.replace(item)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id; return how many there were.

        The picture of an item that is replaced at this very moment may stay until the next start.

        Raises:
            StorageUnavailable, DiskFull.
        """
        with self._pictures.change() as change:
            for item_id in ids:
                item = self._store.get(item_id)
                change.touch(item.source if item is not None else None)
            return self._store.remove(ids)

    def remove_label(self, label: str) -> int:
        """Remove every item with a label; return how many there were.

        The picture of an item that is added with this label meanwhile may stay until the next start.

        Raises:
            StorageUnavailable, DiskFull.
        """
        with self._pictures.change() as change:
            for _, source in self._store.sources(label):
                change.touch(source)
            return self._store.remove_label(label)

    def _hold(self, item_id: str, change: PictureChange) -> Item:
        """Give an item whose picture is sure to stay on disk for as long as the change lasts."""
        while True:
            item = self._store.get(item_id)
            if item is None:
                raise ItemNotFound(item_id)
            change.touch(item.source)
            again = self._store.get(item_id)
            # If it was replaced before its picture was held, that picture may be gone already.
            if again is not None and again.source == item.source:
                return again
