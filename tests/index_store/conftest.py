"""A gallery as a dictionary that is searched by counting bits: what every store must agree with.

Tests are run on Flat; those marked ``every_method`` are run on every index method, with options by which small
galleries get lists and graphs. IVF looks at all lists then, so it must equal the dictionary; a graph may miss some.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from index_store import GalleryStore, IndexOptions, Item, SearchResult, open_gallery
from index_store.background import BackgroundJob
from index_store.hamming import Hits

METHODS = ["Flat", "IVF", "HNSW32"]
OPTIONS = IndexOptions(ivf_from=16, hnsw_from=16, nprobe=10**6, ef_search=4096)
LEAST_FOLD = 40


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_method"):
        metafunc.parametrize("method", METHODS)


@dataclass
class Oracle:
    items: dict[str, Item] = field(default_factory=dict)

    def put(self, *items: Item) -> None:
        self.items.update({item.id: item for item in items})

    def ranked(self, code: bytes, label: str | None = None) -> list[tuple[int, str]]:
        """(distance, id) of every item, in the order in which a search must give them."""
        return sorted(
            (popcount(code, item.code), item.id) for item in self.items.values() if label is None or item.label == label
        )

    def search(
        self, code: bytes, radius: int, top_k: int, label: str | None = None
    ) -> tuple[list[tuple[int, str]], bool]:
        within = [found for found in self.ranked(code, label) if found[0] <= radius]
        return within[:top_k], len(within) > top_k

    def nearest(self, code: bytes, radius: int, label: str | None = None) -> tuple[int, str] | None:
        return next((found for found in self.ranked(code, label) if found[0] > radius), None)

    def check(self, store: GalleryStore, queries: list[bytes], radius: int | None = None) -> None:
        """Everything the store holds, lists and finds agrees with this, once its index is as it wants to be."""
        settle(store)
        assert len(store) == len(self.items)
        listed = list(walk(store))
        assert [item.id for item in listed] == sorted(self.items)
        assert {item.id: item for item in listed} == self.items
        self.check_search(store, queries, store.bits if radius is None else radius, max(1, len(self.items)))
        for query in queries:
            label = min((item.label for item in self.items.values()), default="none")
            self.check_search(store, [query], store.bits, 3, label)

    def check_search(
        self,
        store: GalleryStore,
        queries: list[bytes],
        radius: int,
        top_k: int,
        label: str | None = None,
        exact: bool | None = None,
        **tuning: int | None,
    ) -> None:
        """A search finds what this finds, or, unless it is ``exact``, some of it; see ``finds_all``."""
        results = store.search(as_codes(queries), radius, top_k, label, **tuning)
        exact = finds_all(store, label) if exact is None else exact
        for query, result in zip(queries, results, strict=True):
            expected, more = self.search(query, radius, top_k, label)
            found, truncated = as_pairs(result)
            for match in result.matches:
                known = self.items[match.id]
                assert (match.label, match.metadata) == (known.label, known.metadata)
                assert match.distance == popcount(query, known.code) <= radius
            if exact:
                assert (found, truncated) == (expected, more)
            else:
                assert found == sorted(set(found))
                assert len(found) <= len(expected)
                assert truncated <= (more and len(found) == top_k)

    def check_nearest(self, store: GalleryStore, query: bytes, radius: int, label: str | None = None) -> None:
        """The nearest outside a radius is what this finds, or, where that may be missed, one further away."""
        (match,) = store.nearest(as_codes([query]), radius, label)
        expected = self.nearest(query, radius, label)
        found = match and (match.distance, match.id)
        if finds_all(store, label):
            assert found == expected
        elif found is not None:
            assert found >= expected
            assert radius < found[0] == popcount(query, self.items[found[1]].code)


def finds_all(store: GalleryStore, label: str | None = None) -> bool:
    """Whether a search with OPTIONS misses nothing: among the items of a label, or without a graph."""
    return label is not None or store.method != "HNSW32"


def settle(store: GalleryStore, timeout_s: float = 60) -> None:
    """Wait until the kind of index serves that shall serve, and nothing is left to be folded in."""
    deadline = time.monotonic() + timeout_s
    while store._live._switch_is_due() or store._live.index.fold_is_due():
        assert store.background_error is None
        assert time.monotonic() < deadline, store.stats().reason
        time.sleep(0.001)


def popcount(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def as_codes(codes: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(len(codes), -1)


def as_pairs(result: SearchResult) -> tuple[list[tuple[int, str]], bool]:
    return [(match.distance, match.id) for match in result.matches], result.truncated


def walk(store: GalleryStore, limit: int = 500, label: str | None = None) -> Iterator[Item]:
    cursor = None
    while True:
        page = store.list(cursor, limit, label)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def flip(code: bytes, *bits: int) -> bytes:
    """The code with these bits turned over; bit 0 is the highest bit of the first byte."""
    changed = bytearray(code)
    for bit in bits:
        changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)


def make_codes(rng: random.Random, count: int, code_size: int, few_bits: bool = False) -> np.ndarray:
    """Random codes; with ``few_bits`` nearly equal ones, so that distances tie all the time."""
    codes = np.frombuffer(rng.randbytes(count * code_size), dtype=np.uint8).reshape(count, code_size).copy()
    if few_bits:
        codes[:, 1:] = 0
    return codes


def distances(query: np.ndarray, codes: np.ndarray) -> list[int]:
    return np.unpackbits(query ^ codes, axis=1).sum(axis=1, dtype=np.int64).tolist()


def check_hits(hits: Hits, pairs: list[tuple[int, int]], radius: int, top_k: int) -> None:
    """``pairs`` are (distance, row) of all that may be found."""
    within = sorted(pair for pair in pairs if pair[0] <= radius)
    found = list(zip(hits.distances.tolist(), hits.rows.tolist(), strict=True))
    assert [distance for distance, _ in found] == sorted(distance for distance, _ in found)
    assert len(set(found)) == len(found)
    assert set(found) <= set(within)
    assert hits.truncated == (len(within) > top_k)
    if hits.truncated:
        last = within[top_k - 1][0]
        assert set(found) >= {pair for pair in within if pair[0] <= last}
        assert len(found) > top_k
    else:
        assert sorted(found) == within


class Tools:
    """What test modules need of this file; they cannot import it."""

    OPTIONS = OPTIONS
    METHODS = METHODS
    Oracle = Oracle
    settle = staticmethod(settle)
    finds_all = staticmethod(finds_all)
    popcount = staticmethod(popcount)
    as_codes = staticmethod(as_codes)
    as_pairs = staticmethod(as_pairs)
    walk = staticmethod(walk)
    flip = staticmethod(flip)
    make_codes = staticmethod(make_codes)
    distances = staticmethod(distances)
    check_hits = staticmethod(check_hits)


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def rng() -> random.Random:
    return random.Random(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gallery"


@pytest.fixture
def method() -> str:
    """The index method of ``open_store``; the mark every_method overrides it."""
    return "Flat"


@pytest.fixture
def open_store(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., GalleryStore]]:
    """Open the gallery of the test (64 bits, model "m1"), as often as asked; what is left open is closed."""
    monkeypatch.setattr("index_store.hamming.layered._LEAST_FOLD", LEAST_FOLD)
    monkeypatch.setattr("index_store.live_index.BackgroundJob", partial(BackgroundJob, retry_s=0.05))
    opened = []

    def opener(
        bits: int | None = 64,
        fingerprint: str | None = "m1",
        path: Path = folder,
        method: str | None = method,
        options: IndexOptions = OPTIONS,
    ) -> GalleryStore:
        store = open_gallery(path, bits, method, fingerprint, threads=2, options=options)
        opened.append(store)
        return store

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., GalleryStore]) -> GalleryStore:
    return open_store()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Mount something for the time of the test, or skip where that is not allowed."""
    mounted: list[Path] = []

    def mounter(target: Path, *arguments: str) -> None:
        target.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["mount", *arguments, str(target)], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"mounting is not possible here: {error}")
        if target not in mounted:
            mounted.append(target)

    yield mounter
    for target in reversed(mounted):
        # Lazily: a store may still be open on it, which is closed after this.
        subprocess.run(["umount", "--lazy", str(target)], check=True, timeout=30)
