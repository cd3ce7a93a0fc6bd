"""A long random life of a gallery beside a dictionary, with reopening in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from index_store import DuplicateCode, GalleryStore, Item, ItemExists, ItemNotFound
from index_store.hamming import FlatIndex

OPERATIONS = 250


class Life:
    """The operations; each does the same to the store and to the oracle and compares the answers."""

    def __init__(self, open_store: Callable[..., GalleryStore], oracle, rng: random.Random, tools) -> None:
        self.open_store, self.oracle, self.rng, self.tools = open_store, oracle, rng, tools
        self.store = open_store()

    def code(self) -> bytes:
        """Few different codes, so that equal ones and ties are common."""
        return bytes(self.rng.choice([0, 1, 0xFF]) for _ in range(3)) + bytes(5)

    def some_id(self) -> str:
        if self.oracle.items and self.rng.random() < 0.9:
            return self.rng.choice(sorted(self.oracle.items))
        return f"unknown-{self.rng.randrange(1000)}"

    def label(self) -> str:
        return f"label {self.rng.randrange(6)}"

    def item(self) -> Item:
        item_id = self.rng.choice([None, None, f"chosen-{self.rng.randrange(400)}"])
        source = self.rng.choice([None, f"{self.rng.randrange(50)}.jpg"])
        return Item(item_id, self.label(), self.code(), {"n": self.rng.randrange(9)}, source)

    def add(self) -> None:
        items = [self.item() for _ in range(self.rng.choice([1, 1, 2, 10]))]
        ids = [item.id for item in items if item.id]
        if len(set(ids)) < len(ids) or self.oracle.items.keys() & set(ids):
            with pytest.raises(ItemExists):
                self.store.add(items)
            return
        added = self.store.add(items)
        assert [replace(item, id=None, created_at=None) for item in added] == [replace(item, id=None) for item in items]
        self.oracle.put(*added)

    def add_if_new(self) -> None:
        item = replace(self.item(), id=None)
        equal = sorted(known.id for known in self.oracle.items.values() if known.code == item.code)
        way = self.rng.choice(["return", "reject"])
        if equal and way == "reject":
            with pytest.raises(DuplicateCode) as caught:
                self.store.add([item], way)
            assert caught.value.existing == self.oracle.items[equal[0]]
            return
        (added,) = self.store.add([item], way)
        if equal:
            assert added == self.oracle.items[equal[0]]
        self.oracle.put(added)

    def replace(self) -> None:
        item = replace(self.item(), id=self.some_id())
        if item.id in self.oracle.items:
            self.oracle.put(self.store.replace(item))
        else:
            with pytest.raises(ItemNotFound):
                self.store.replace(item)

    def remove(self) -> None:
        ids = {self.some_id() for _ in range(self.rng.choice([1, 3, 20]))}
        present = ids & self.oracle.items.keys()
        assert self.store.remove(ids) == len(present)
        for item_id in present:
            del self.oracle.items[item_id]

    def remove_label(self) -> None:
        label = self.label()
        gone = [item.id for item in self.oracle.items.values() if item.label == label]
        assert self.store.remove_label(label) == len(gone)
        for item_id in gone:
            del self.oracle.items[item_id]

    def search(self) -> None:
        query, radius, top_k = self.code(), self.rng.randrange(30), self.rng.choice([1, 3, 80])
        label = self.rng.choice([None, self.label()])
        codes = self.tools.as_codes([query])
        (result,) = self.store.search(codes, radius, top_k, label)
        assert self.tools.as_pairs(result) == self.oracle.search(query, radius, top_k, label)
        for match in result.matches:
            known = self.oracle.items[match.id]
            assert (match.label, match.metadata) == (known.label, known.metadata)
        (nearest,) = self.store.nearest(codes, radius, label)
        assert (nearest and (nearest.distance, nearest.id)) == self.oracle.nearest(query, radius, label)

    def get(self) -> None:
        item_id = self.some_id()
        assert self.store.get(item_id) == self.oracle.items.get(item_id)

    def has_source(self) -> None:
        source = f"{self.rng.randrange(50)}.jpg"
        known = any(item.source == source for item in self.oracle.items.values())
        assert self.store.has_source(source) == known

    def snapshot(self) -> None:
        self.store.snapshot()

    def rebuild(self) -> None:
        self.store.rebuild()

    def reopen(self) -> None:
        self.store.close()
        self.store = self.open_store()

    def check(self) -> None:
        self.oracle.check(self.store, [self.code()])
        walked = [item.id for item in self.tools.walk(self.store, 7, "label 1")]
        assert walked == sorted(i.id for i in self.oracle.items.values() if i.label == "label 1")


WEIGHTS = {
    Life.add: 10,
    Life.add_if_new: 4,
    Life.replace: 4,
    Life.remove: 4,
    Life.remove_label: 1,
    Life.search: 10,
    Life.get: 2,
    Life.has_source: 1,
    Life.snapshot: 1,
    Life.rebuild: 1,
    Life.reopen: 1,
    Life.check: 2,
}


@pytest.mark.parametrize("seed", range(4))
def test_a_random_life_agrees_with_a_dictionary(open_store, tools, seed: int, monkeypatch) -> None:
    # Segments of five codes: removals and searches cross their borders all the time.
    monkeypatch.setattr("index_store.hamming.methods.FlatIndex", partial(FlatIndex, segment_bytes=5 * 8))
    rng = random.Random(seed)
    life = Life(open_store, tools.Oracle(), rng, tools)
    operations = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=OPERATIONS)
    for operation in operations:
        operation(life)
    life.check()
    life.reopen()
    life.check()
