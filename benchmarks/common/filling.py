"""A gallery with codes in it, served by a given method."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from index_store import GalleryStore, Item

from .progress import bar

_BATCH = 10_000
_LABELS = 1000


def fill(store: GalleryStore, codes: npt.NDArray[np.uint8]) -> None:
    """Enrol those codes, uint8 (n, bits / 8), that are not there yet."""
    with bar("enrol", len(codes)) as tell:
        for start in range(len(store), len(codes), _BATCH):
            part = codes[start : start + _BATCH]
            store.add([Item(None, f"label {n % _LABELS}", code.tobytes()) for n, code in enumerate(part, start)])
            tell(start + len(part))


def serve_by(store: GalleryStore, method: str, threads: int, nlist: int | None = None) -> float | None:
    """Build an index of this method, with so many lists if it has any, unless it serves; seconds that it took."""
    stats = store.stats()
    if stats.serving == method and (nlist is None or stats.parameters.get("nlist", nlist) == nlist):
        return None
    with bar(f"build {method}", 1.0) as tell:
        before = time.perf_counter()
        store.rebuild(method, tell, threads)
        seconds = time.perf_counter() - before
    store.snapshot()
    return seconds
