"""What does an item of a large gallery cost in memory, and how long does a start take?

Three processes, one after another: one fills a gallery in batches of 1,000, one opens it from its snapshot and searches
1,000 times on four threads, and one does the same with an empty gallery. The cost of an item is the resident size of
either of the first less that of the last; SQLite's caches and everything else that grew are in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import tables

from index_store import Item, open_gallery

_FILL_BATCH = 1000
_LABELS = 1000
_SEARCH_THREADS = 4
_LABELLED = 10  # one search in so many asks for a label


def main() -> int:
    """Run the benchmark, or one of its processes."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments.add_argument("--items", type=int, default=1_000_000, help="codes in the gallery (default 1,000,000)")
    arguments.add_argument("--bits", type=int, default=512, help="length of the codes (default 512)")
    arguments.add_argument("--method", default="Flat", help="kind of index: Flat, IVF or HNSW32 (default Flat)")
    arguments.add_argument("--searches", type=int, default=1000, help="searches (default 1,000)")
    arguments.add_argument("--process", nargs=2, metavar=("ROLE", "FOLDER"), help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.process:
        role, folder = chosen.process
        roles: dict[str, Callable[[Path, argparse.Namespace], dict[str, float]]] = {"fill": _fill, "search": _search}
        print(json.dumps(roles[role](Path(folder), chosen)))
        return 0
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder:
        filled = _run("fill", Path(folder) / "full", chosen)
        full = _run("search", Path(folder) / "full", chosen)
        empty = _run("search", Path(folder) / "empty", chosen)
        disk = sum(path.stat().st_size for path in (Path(folder) / "full").iterdir())
    _report(filled, full, empty, disk, chosen)
    return 0


def _report(
    filled: dict[str, float],
    full: dict[str, float],
    empty: dict[str, float],
    disk: int,
    chosen: argparse.Namespace,
) -> None:
    code_bytes = chosen.bits // 8

    def per_item(process: dict[str, float], figure: str) -> list[str]:
        cost = (process[figure] - empty[figure]) / chosen.items
        return [f"{cost:.0f} B", f"{cost / code_bytes:.2f}"]

    tables.show(
        f"A gallery of {chosen.items:,} codes of {chosen.bits} bit, {chosen.method}",
        ["", "measured", "times the bare code"],
        [
            [f"an item in memory, opened and searched {chosen.searches:,} times", *per_item(full, "resident")],
            ["the same, highest ever", *per_item(full, "peak")],
            ["an item in memory, in the process that enrolled all", *per_item(filled, "resident")],
            ["an item on disk", f"{disk / chosen.items:.0f} B", f"{disk / chosen.items / code_bytes:.2f}"],
            ["resident with an empty gallery", f"{empty['resident'] / 2**20:.0f} MiB", ""],
            ["resident with the full gallery", f"{full['resident'] / 2**20:.0f} MiB", ""],
            ["start from the snapshot", f"{full['start_s']:.2f} s", ""],
            *(
                [["start without a snapshot", f"{filled['bare_start_s']:.2f} s", ""]]
                if "bare_start_s" in filled
                else []
            ),
            [f"enrolment in batches of {_FILL_BATCH:,}", f"{chosen.items / filled['add_s']:,.0f} items/s", ""],
        ],
        [f"Searches on {_SEARCH_THREADS} threads, every {_LABELLED}th by label."],
        markdown=chosen.markdown,
    )


def _run(role: str, folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """Run a part in a process of its own; its figures."""
    options = [f"--{name}={getattr(chosen, name)}" for name in ("items", "bits", "method", "searches")]
    arguments = [sys.executable, __file__, "--process", role, str(folder), *options]
    output = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def _fill(folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    rng = np.random.default_rng(3)
    add_s = 0.0
    with open_gallery(folder, chosen.bits) as store:
        for start in range(0, chosen.items, _FILL_BATCH):
            size = min(_FILL_BATCH, chosen.items - start)
            codes = rng.integers(0, 256, (size, chosen.bits // 8), dtype=np.uint8)
            labels = rng.integers(0, _LABELS, size)
            items = [Item(None, f"label {label}", code.tobytes()) for label, code in zip(labels, codes, strict=True)]
            before = time.perf_counter()
            store.add(items)
            add_s += time.perf_counter() - before
        if chosen.method != "Flat":
            store.rebuild(chosen.method)
        figures = {"add_s": add_s, **_memory()}
    if chosen.method == "Flat":  # the others serve as Flat at once, and are built in the background
        (folder / "index.snapshot").unlink()
        before = time.perf_counter()
        store = open_gallery(folder)
        figures["bare_start_s"] = time.perf_counter() - before
        store.close()
    return figures


def _search(folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    before = time.perf_counter()
    with open_gallery(folder, chosen.bits) as store:
        start_s = time.perf_counter() - before
        rng = np.random.default_rng(4)
        queries = rng.integers(0, 256, (chosen.searches, 1, chosen.bits // 8), dtype=np.uint8)

        def search(number: int) -> None:
            label = f"label {number % _LABELS}" if number % _LABELLED == 0 else None
            store.search(queries[number], chosen.bits, 10, label)

        with ThreadPoolExecutor(_SEARCH_THREADS) as threads:
            list(threads.map(search, range(chosen.searches)))
        return {"start_s": start_s, **_memory()}


def _memory() -> dict[str, float]:
    """The resident size of this process in bytes, now and at its highest."""
    fields = {"VmRSS:": "resident", "VmHWM:": "peak"}
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {fields[line[0]]: int(line[1]) * 1024 for line in lines if line and line[0] in fields}


if __name__ == "__main__":
    sys.exit(main())
