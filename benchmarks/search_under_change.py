"""How much slower are searches while the gallery changes?

A gallery of clustered codes is searched by one thread, one query a call: first alone, then while other threads enrol
200 items and remove 50 a second, each durably, one by one; and once more while an IVF index is built anew beside. The
changes go on through whatever folding and snapshots they cause.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import clusters, options, tables
from common.filling import fill, serve_by

from index_store import GalleryStore, Item, open_gallery

_BITS = 512
_TOP_K = 10
_LEAST_SEARCHES = 200


@dataclass
class Rate:
    """How often something was done."""

    count: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """Write it as a figure a second."""
        return f"{self.count / self.seconds:.0f}" if self.seconds else ""


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    arguments.add_argument("--items", type=int, default=1_000_000, help="codes in the gallery (default 1,000,000)")
    arguments.add_argument("--methods", nargs="+", default=["Flat", "IVF", "HNSW32"], help="methods (default all)")
    arguments.add_argument("--seconds", type=float, default=30.0, help="seconds of each phase (default 30)")
    arguments.add_argument("--adds", type=float, default=200.0, help="items enrolled a second (default 200)")
    arguments.add_argument("--removals", type=float, default=50.0, help="items removed a second (default 50)")
    arguments.add_argument("--folder", type=Path, help="keep the gallery here (default: a temporary folder)")
    chosen = arguments.parse_args()
    threads = len(os.sched_getaffinity(0))
    codes, queries = clusters.make(chosen.items, _BITS, 10_000)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as temporary:
        folder = (chosen.folder or Path(temporary)) / str(chosen.items)
        with open_gallery(folder, _BITS, threads=threads) as store:
            fill(store, codes)
            for method in chosen.methods:
                serve_by(store, method, threads)
                rows += _measure(store, queries, chosen)
    tables.show(
        f"Searches among {chosen.items:,} codes of {_BITS} bit, top {_TOP_K}",
        ["while", "p50 ms", "p99 ms", "p99 to idle", "searches/s", "adds/s", "removals/s"],
        rows,
        [f"One query a call on one thread, {chosen.seconds:g} s each; each add and removal is a durable transaction."],
        markdown=chosen.markdown,
    )
    return 0


def _measure(store: GalleryStore, queries: npt.NDArray[np.uint8], chosen: argparse.Namespace) -> Iterator[list[str]]:
    method = store.stats().serving
    idle = _search(store, queries, chosen.seconds)
    yield _row(f"{method}, idle", idle, idle)
    adds, removals = Rate(), Rate()
    with _changes(store, queries, chosen, adds, removals):
        busy = _search(store, queries, chosen.seconds)
    yield _row(f"{method}, under change", busy, idle, adds, removals)
    if method == "IVF":
        adds, removals = Rate(), Rate()
        rebuild = threading.Thread(target=store.rebuild)
        rebuild.start()
        with _changes(store, queries, chosen, adds, removals):
            busy = _search(store, queries, chosen.seconds, rebuild.is_alive)
        rebuild.join()
        yield _row(f"{method}, under change and a rebuild", busy, idle, adds, removals)


def _row(name: str, series: list[float], idle: list[float], *rates: Rate) -> list[str]:
    p50, p99 = np.quantile(series, (0.5, 0.99))
    ratio = p99 / np.quantile(idle, 0.99)
    shown = [str(rate) for rate in rates] or ["", ""]
    return [name, f"{p50:.3f}", f"{p99:.3f}", f"{ratio:.2f}", f"{len(series) / (sum(series) / 1000):.0f}", *shown]


def _search(
    store: GalleryStore,
    queries: npt.NDArray[np.uint8],
    seconds: float,
    going_on: Callable[[], bool] = lambda: True,
) -> list[float]:
    """Milliseconds of each search until the time is over or what goes on beside has ended."""
    series: list[float] = []
    end = time.perf_counter() + seconds
    while (time.perf_counter() < end and going_on()) or len(series) < _LEAST_SEARCHES:
        query = queries[len(series) % len(queries)][None]
        before = time.perf_counter()
        store.search(query, store.bits, _TOP_K)
        series.append((time.perf_counter() - before) * 1000)
    return series


@contextmanager
def _changes(
    store: GalleryStore,
    queries: npt.NDArray[np.uint8],
    chosen: argparse.Namespace,
    adds: Rate,
    removals: Rate,
) -> Iterator[None]:
    """Enrol and remove in threads of their own, at a steady pace."""
    stop = threading.Event()
    added: list[str] = []

    def add(number: int) -> None:
        (item,) = store.add([Item(None, f"label {number % 1000}", queries[number % len(queries)].tobytes())])
        added.append(item.id or "")

    def remove(number: int) -> None:
        if number < len(added):
            store.remove([added[number]])

    workers = [
        threading.Thread(target=_paced, args=(add, chosen.adds, stop, adds)),
        threading.Thread(target=_paced, args=(remove, chosen.removals, stop, removals)),
    ]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _paced(call: Callable[[int], None], rate: float, stop: threading.Event, done: Rate) -> None:
    start = time.perf_counter()
    while not stop.wait(max(0.0, start + done.count / rate - time.perf_counter())):
        call(done.count)
        done.count += 1
        done.seconds = time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
