"""What does the gallery store add to a bare Faiss search?

The same random codes are put into an `IndexBinaryFlat` and into a gallery (which also orders ties by id, reads ids,
labels and metadata from SQLite, and lets changes in between). Both are asked in turns, in this process, with as many
threads; distances are compared on the way.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
from common import tables

from index_store import GalleryStore, Item, open_gallery

Codes = npt.NDArray[np.uint8]

_FILL_BATCH = 10_000
_LABELS = 1000


def main() -> int:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments.add_argument(
        "--items", type=int, nargs="+", default=[100_000, 1_000_000], help="gallery sizes (default 100000 1000000)"
    )
    arguments.add_argument("--bits", type=int, default=512, help="length of the codes (default 512)")
    arguments.add_argument("--top-k", type=int, default=10, help="matches a search (default 10)")
    arguments.add_argument("--singles", type=int, default=500, help="searches of one query each (default 500)")
    arguments.add_argument("--batches", type=int, default=30, help="searches of 64 queries each (default 30)")
    chosen = arguments.parse_args()
    threads = len(os.sched_getaffinity(0))
    rows = [row for items in chosen.items for row in _compare(items, threads, chosen)]
    tables.show(
        f"Codes of {chosen.bits} bit, top {chosen.top_k}, radius {chosen.bits}",
        ["gallery", "queries", "Faiss p50", "Faiss p99", "store p50", "store p99", "ratio of the p50"],
        rows,
        [
            f"Milliseconds a call. One query runs on one thread, 64 on {threads}.",
            f"With a label, the gallery searches among 1/{_LABELS} of its items; Faiss searches among all.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _compare(items: int, threads: int, chosen: argparse.Namespace) -> list[list[str]]:
    rng = np.random.default_rng(items)
    codes = rng.integers(0, 256, (items, chosen.bits // 8), dtype=np.uint8)
    index = faiss.IndexBinaryFlat(chosen.bits)
    index.add(codes)
    with (
        tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder,
        open_gallery(Path(folder), chosen.bits, threads=threads) as store,
    ):
        for start in range(0, items, _FILL_BATCH):
            part = codes[start : start + _FILL_BATCH]
            labels = [f"label {(start + i) % _LABELS}" for i in range(len(part))]
            store.add([Item(None, label, code.tobytes()) for label, code in zip(labels, part, strict=True)])
        rows = []
        for name, queries, turns, label in (
            ("1", 1, chosen.singles, None),
            ("1, with a label", 1, chosen.singles, "label 7"),
            ("64", 64, chosen.batches, None),
        ):
            batches = rng.integers(0, 256, (turns, queries, chosen.bits // 8), dtype=np.uint8)
            raw, stored = _in_turns(index, store, batches, min(threads, queries), chosen.top_k, label)
            ratio = float(np.median(stored) / np.median(raw))
            figures = [f"{value:.2f}" for series in (raw, stored) for value in np.quantile(series, (0.5, 0.99))]
            rows.append([f"{items:,}", name, *figures, f"{ratio:.2f}"])
    return rows


def _in_turns(
    index: faiss.IndexBinaryFlat,
    store: GalleryStore,
    batches: npt.NDArray[np.uint8],
    threads: int,
    top_k: int,
    label: str | None,
) -> tuple[list[float], list[float]]:
    """Milliseconds of each call of either, taken in turns so that a busy machine slows both."""
    raw: list[float] = []
    stored: list[float] = []
    for number, queries in enumerate(batches):
        # The store sets this for its own calls, on the same thread.
        faiss.omp_set_num_threads(threads)
        (distances, _), raw_ms = _timed(lambda queries=queries: index.search(queries, top_k))
        results, stored_ms = _timed(lambda queries=queries: store.search(queries, store.bits, top_k, label))
        if label is None:
            _check(distances, [[match.distance for match in result.matches] for result in results])
        if number:  # the first of each warms up
            raw.append(raw_ms)
            stored.append(stored_ms)
    return raw, stored


def _timed(call: Callable[[], object]) -> tuple[object, float]:
    before = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - before) * 1000


def _check(raw: npt.NDArray[np.int32], stored: Sequence[Sequence[int]]) -> None:
    if raw.tolist() != [list(distances) for distances in stored]:
        raise RuntimeError("the store and Faiss found different distances")


if __name__ == "__main__":
    sys.exit(main())
