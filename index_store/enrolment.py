"""What becomes of each item of an enrolment: stored, refused, or answered with one that is there."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import cast

from index_store.base import Added, DuplicateCode, Existing, InvalidItem, Item, ItemExists, OnDuplicate
from index_store.validation import check_code, check_id, check_label, check_source, encode_metadata


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that can be stored as far as it goes itself; ``metadata`` is its metadata as JSON text."""

    item: Item
    metadata: str | None


@dataclass(frozen=True, slots=True)
class SameAs:
    """The code equals that of the item at this place of the same call."""

    place: int


Fate = Candidate | Existing | InvalidItem | ItemExists | DuplicateCode | SameAs


def check_item(item: Item, bits: int) -> Candidate:
    """Check everything about an item that needs no look at the gallery. Raises InvalidItem."""
    if not isinstance(item, Item):
        raise InvalidItem(f"an Item is needed, not {type(item).__name__}")
    if item.id is not None:
        check_id(item.id)
    check_label(item.label)
    check_code(item.code, bits)
    check_source(item.source)
    return Candidate(item, encode_metadata(item.metadata))


def decide(
    items: Sequence[Item],
    bits: int,
    on_duplicate: OnDuplicate,
    taken: Container[str],
    find_code: Callable[[bytes], Item | None],
) -> list[Fate]:
    """Decide the fate of each item; those that stay Candidates are to be stored.

    ``taken`` are the ids in the gallery among those given, ``find_code`` gives the gallery's first item with
    a code.
    """
    fates: list[Fate] = []
    ids: set[str] = set()
    first_with: dict[bytes, int] = {}
    for item in items:
        fate: Fate = _decide_one(item, bits, taken, ids)
        if isinstance(fate, Candidate) and on_duplicate != "add":
            if item.code in first_with:
                fate = SameAs(first_with[item.code])
            elif (old := find_code(item.code)) is not None:
                fate = DuplicateCode(old) if on_duplicate == "reject" else Existing(old)
            else:
                first_with[item.code] = len(fates)
        if isinstance(fate, Candidate) and item.id is not None:
            ids.add(item.id)
        fates.append(fate)
    return fates


def _decide_one(item: Item, bits: int, taken: Container[str], ids: set[str]) -> Candidate | InvalidItem | ItemExists:
    try:
        candidate = check_item(item, bits)
    except InvalidItem as error:
        return error
    if item.id is not None and (item.id in taken or item.id in ids):
        return ItemExists(item.id)
    return candidate


def answer(fates: Sequence[Fate], stored: Sequence[Item], on_duplicate: OnDuplicate) -> Added:
    """Return what the caller is told, given the Candidates as stored, in order."""
    remaining = iter(stored)
    added: Added = []
    for fate in fates:
        if isinstance(fate, Candidate):
            added.append(next(remaining))
        elif isinstance(fate, SameAs):
            first = cast(Item, added[fate.place])  # only a Candidate is pointed at
            added.append(DuplicateCode(first) if on_duplicate == "reject" else Existing(first))
        else:
            added.append(fate)
    return added
