"""A gallery as a dictionary that is searched by counting bits: what every store must agree with."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from index_store import GalleryStore, Item, SearchResult, open_gallery

METHODS = ["Flat"]


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
        """Everything the store holds, lists and finds equals this."""
        assert len(store) == len(self.items)
        listed = list(walk(store))
        assert [item.id for item in listed] == sorted(self.items)
        assert {item.id: item for item in listed} == self.items
        radius = store.bits if radius is None else radius
        for query, result in zip(
            queries, store.search(as_codes(queries), radius, max(1, len(self.items))), strict=True
        ):
            assert as_pairs(result) == self.search(query, radius, max(1, len(self.items)))


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


class Tools:
    """What test modules need of this file; they cannot import it."""

    Oracle = Oracle
    popcount = staticmethod(popcount)
    as_codes = staticmethod(as_codes)
    as_pairs = staticmethod(as_pairs)
    walk = staticmethod(walk)
    flip = staticmethod(flip)


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def rng() -> random.Random:
    return random.Random(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gallery"


@pytest.fixture(params=METHODS)
def open_store(request: pytest.FixtureRequest, folder: Path) -> Iterator[Callable[..., GalleryStore]]:
    """Open the gallery of the test (64 bits, model "m1"), as often as asked; what is left open is closed."""
    opened = []

    def opener(bits: int | None = 64, fingerprint: str | None = "m1", path: Path = folder) -> GalleryStore:
        store = open_gallery(path, bits, method=request.param, fingerprint=fingerprint, threads=2)
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
