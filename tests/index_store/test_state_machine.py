"""Random lives of a gallery beside a dictionary that is searched by counting bits.

Hypothesis chooses the steps and, if one fails, looks for the shortest life that fails. Continuous integration
lives the same lives each time; STRESS_STEPS=100000 asks for so many steps a method, and for new ones.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from index_store import DuplicateCode, GalleryStore, IndexOptions, Item, ItemExists, ItemNotFound, open_gallery
from index_store.hamming import FlatIndex

STEPS = int(os.environ.get("STRESS_STEPS", "0"))
STEPS_A_LIFE = 50
LIVES = 50
OPTIONS = IndexOptions(ivf_from=12, hnsw_from=12, auto_from=12, nprobe=10**6, ef_search=4096)
SNAPSHOT = "index.snapshot"
METHODS = ["Flat", "IVF", "HNSW32", "auto"]

seeds = st.integers(0, 2**32)
picks = st.integers(0, 10**6)
labels = st.sampled_from([f"label {n}" for n in range(6)])
perhaps_labels = st.none() | labels
methods = st.sampled_from(METHODS)
radii = st.integers(0, 30) | st.just(64)
top_ks = st.sampled_from([1, 3, 80, 1000])
tunings = st.none() | st.sampled_from([1, 2, 1000])


def make_code(rng: random.Random) -> bytes:
    """Few different codes, so that equal ones and ties are common, among others that are far apart."""
    if rng.random() < 0.3:
        return rng.randbytes(8)
    return bytes(rng.choice([0, 1, 0xFF]) for _ in range(3)) + bytes(5)


def make_item(rng: random.Random) -> Item:
    item_id = rng.choice([None, None, f"chosen-{rng.randrange(400)}"])
    source = rng.choice([None, f"{rng.randrange(50)}.jpg"])
    return Item(item_id, f"label {rng.randrange(6)}", make_code(rng), {"n": rng.randrange(9)}, source)


class Life(RuleBasedStateMachine):
    """Each step does the same to a store and to a dictionary and compares the answers."""

    first_method: str
    tools: type
    parent: Path

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(dir=self.parent))
        self.folders = 0
        self.oracle = self.tools.Oracle()
        self.method = self.first_method
        self.store = self.open(self.base / "0", self.method)

    def open(self, folder: Path, method: str | None) -> GalleryStore:
        return open_gallery(folder, 64, method, "m1", threads=1, options=OPTIONS)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.base)

    def some_id(self, pick: int) -> str:
        """An id that is there, or, now and then, one that is not."""
        known = sorted(self.oracle.items)
        return known[pick % len(known)] if known and pick % 11 else f"unknown-{pick}"

    # Changes

    @precondition(lambda self: len(self.oracle.items) < 30)
    @rule(seed=seeds)
    def add_many(self, seed: int) -> None:
        self.add(seed, 40 + seed % 80)

    @rule(seed=seeds, count=st.sampled_from([1, 1, 2, 10, 40]))
    def add(self, seed: int, count: int) -> None:
        rng = random.Random(seed)
        items = [make_item(rng) for _ in range(count)]
        ids = [item.id for item in items if item.id]
        if len(set(ids)) < len(ids) or self.oracle.items.keys() & set(ids):
            with pytest.raises(ItemExists):
                self.store.add(items)
            items = [replace(item, id=None) for item in items]
        added = self.store.add(items)
        assert [replace(item, id=None, created_at=None) for item in added] == [replace(item, id=None) for item in items]
        assert len({item.id for item in added} - self.oracle.items.keys()) == count
        self.oracle.put(*added)

    @rule(seed=seeds, way=st.sampled_from(["return", "reject"]))
    def add_if_new(self, seed: int, way: str) -> None:
        item = replace(make_item(random.Random(seed)), id=None)
        equal = sorted(known.id for known in self.oracle.items.values() if known.code == item.code)
        if equal and way == "reject":
            with pytest.raises(DuplicateCode) as caught:
                self.store.add([item], way)
            assert caught.value.existing == self.oracle.items[equal[0]]
            return
        (added,) = self.store.add([item], way)
        if equal:
            assert added == self.oracle.items[equal[0]]
        self.oracle.put(added)

    @rule(seed=seeds, pick=picks)
    def replace(self, seed: int, pick: int) -> None:
        item = replace(make_item(random.Random(seed)), id=self.some_id(pick))
        if item.id in self.oracle.items:
            new = self.store.replace(item)
            assert new == replace(item, created_at=self.oracle.items[item.id].created_at)
            self.oracle.put(new)
        else:
            with pytest.raises(ItemNotFound):
                self.store.replace(item)

    @rule(given=st.lists(picks, min_size=1, max_size=12))
    def remove(self, given: list[int]) -> None:
        ids = {self.some_id(pick) for pick in given}
        present = ids & self.oracle.items.keys()
        assert self.store.remove(ids) == len(present)
        for item_id in present:
            del self.oracle.items[item_id]

    @precondition(lambda self: len(self.oracle.items) > 60)
    @rule(label=labels)
    def remove_label(self, label: str) -> None:
        gone = [item.id for item in self.oracle.items.values() if item.label == label]
        assert self.store.remove_label(label) == len(gone)
        for item_id in gone:
            del self.oracle.items[item_id]

    # Questions

    @rule(seed=seeds, radius=radii, top_k=top_ks, label=perhaps_labels, nprobe=tunings, ef_search=tunings)
    def search(
        self, seed: int, radius: int, top_k: int, label: str | None, nprobe: int | None, ef_search: int | None
    ) -> None:
        if seed % 4:
            self.tools.settle(self.store)
        queries = [make_code(random.Random(seed + n)) for n in range(1 + seed % 3)]
        hasty = label is None and nprobe is not None and self.method in ("IVF", "auto")
        self.oracle.check_search(
            self.store, queries, radius, top_k, label, False if hasty else None, nprobe=nprobe, ef_search=ef_search
        )

    @rule(seed=seeds, radius=radii, label=perhaps_labels)
    def nearest(self, seed: int, radius: int, label: str | None) -> None:
        self.oracle.check_nearest(self.store, make_code(random.Random(seed)), radius, label)

    @rule(pick=picks)
    def get(self, pick: int) -> None:
        item_id = self.some_id(pick)
        assert self.store.get(item_id) == self.oracle.items.get(item_id)
        source = f"{pick % 50}.jpg"
        assert self.store.has_source(source) == any(item.source == source for item in self.oracle.items.values())

    @rule(label=perhaps_labels, limit=st.sampled_from([1, 7, 1000]))
    def walk(self, label: str | None, limit: int) -> None:
        walked = list(self.tools.walk(self.store, limit, label))
        expected = [self.oracle.items[item_id] for item_id in sorted(self.oracle.items)]
        assert walked == [item for item in expected if label in (None, item.label)]

    # Maintenance

    @rule()
    def snapshot(self) -> None:
        self.store.snapshot()

    @rule(method=st.none() | methods)
    def rebuild(self, method: str | None) -> None:
        told: list[float] = []
        self.store.rebuild(method, told.append)
        self.method = method or self.method
        assert (told[0], told[-1]) == (0, 1)
        assert told == sorted(told)

    @rule()
    def settle(self) -> None:
        self.tools.settle(self.store)
        if len(self.oracle.items) >= OPTIONS.ivf_from:
            assert self.store.stats().serving == ("IVF" if self.method == "auto" else self.method)

    @rule(method=st.none() | methods)
    def reopen(self, method: str | None) -> None:
        self.store.close()
        self.store = self.open(self.store.path, method)
        self.method = method or self.method
        self.check(0)

    @rule(method=st.none() | methods, snapshot=st.sampled_from(["as it is", "as it is", "lost", "damaged"]), seed=seeds)
    def crash_and_reopen(self, method: str | None, snapshot: str, seed: int) -> None:
        """Go on with a copy of the folder as a kill at this moment would leave it."""
        self.folders += 1
        killed = self.base / str(self.folders)
        shutil.copytree(self.store.path, killed)
        self.store.close()
        if snapshot == "lost":
            (killed / SNAPSHOT).unlink(missing_ok=True)
        elif snapshot == "damaged" and (killed / SNAPSHOT).exists():
            data = bytearray((killed / SNAPSHOT).read_bytes())
            data[seed % len(data)] ^= 1 + seed % 255
            (killed / SNAPSHOT).write_bytes(data)
        self.store = self.open(killed, method)
        self.method = method or self.method
        self.check(0)

    @rule(seed=seeds)
    def check(self, seed: int) -> None:
        queries = [make_code(random.Random(seed + n)) for n in range(2)]
        self.oracle.check_search(self.store, queries, 64, 10_000)  # by whatever kind serves now
        self.oracle.check(self.store, queries)

    @invariant()
    def count(self) -> None:
        assert len(self.store) == len(self.oracle.items)
        assert self.store.method == self.method
        assert self.store.background_error is None


@pytest.fixture
def small_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of five codes, and so on: whatever is done in parts is done in many."""
    for module in ("methods", "layered"):
        monkeypatch.setattr(f"index_store.hamming.{module}.FlatIndex", partial(FlatIndex, segment_bytes=5 * 8))
    for module in ("flat", "lists", "graph"):
        monkeypatch.setattr(f"index_store.hamming.{module}.BLOCK", 10)
    monkeypatch.setattr("index_store.hamming.graph._LINKS_AT_ONCE", 1000)
    monkeypatch.setattr("index_store.hamming.graph._LEAST_BATCH", 7)
    monkeypatch.setattr("index_store.hamming.lists._LOCKED_AT_ONCE", 5)
    monkeypatch.setattr("index_store.hamming.layered._LEAST_FOLD", 8)


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a disk would take most of the time."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("method", METHODS)
def test_a_random_life_agrees_with_a_dictionary(
    quick_folder: Path, tools: type, small_everything: None, method: str
) -> None:
    machine: Callable[[], Life] = type(
        f"LifeOf{method}", (Life,), {"first_method": method, "tools": tools, "parent": quick_folder}
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_A_LIFE) if STEPS else LIVES,
            stateful_step_count=STEPS_A_LIFE,
            derandomize=not STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
