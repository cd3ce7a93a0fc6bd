"""What does the service add to a bare search, and what does a large gallery cost in memory and at start?

Random codes are put into a gallery and served. ``POST /search`` by code (radius = bits, one keep-alive connection)
alternates with `IndexBinaryFlat.search` on the same codes in this process. The bare search is timed with as many
threads as the service has and with one, which is often faster for a single query; the ratio is to the faster.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
from common import hashing, options, serving, tables

from index_store import Item, open_gallery
from service.demo.server import ServiceProcess

_FILL_BATCH = 10_000
# Short turns: the load of a shared machine changes, and a server closes a connection that idles for seconds.
_ROUND = 10


@dataclass(frozen=True)
class Load:
    """A process under 1,000 searches: seconds until ready, resident bytes after them."""

    start_s: float
    resident: int


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    arguments.add_argument("--items", type=int, default=1_000_000, help="codes in the gallery (default 1,000,000)")
    arguments.add_argument("--searches", type=int, default=1000, help="searches of either kind (default 1,000)")
    arguments.add_argument("--top-k", type=int, default=10, help="matches a search (default 10)")
    chosen = arguments.parse_args()
    hasher = hashing.load(chosen.hasher)
    bits, fingerprint = hasher.bits, hasher.fingerprint
    del hasher
    threads = len(os.sched_getaffinity(0))
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (chosen.items, bits // 8), dtype=np.uint8)
    queries = rng.integers(0, 256, (chosen.searches, bits // 8), dtype=np.uint8)
    settings = {
        **serving.hasher_setting(chosen.hasher),
        "SHITU_CPU_THREADS": str(threads),
        "SHITU_LOG_LEVEL": "warning",
    }
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder:
        empty, _, _ = _serve(Path(folder) / "empty", settings, queries, None, chosen)
        filled = _fill(Path(folder) / "full", codes, bits, fingerprint)
        index = faiss.IndexBinaryFlat(bits)
        index.add(codes)
        full, http, raw = _serve(Path(folder) / "full", settings, queries, index, chosen)
    fastest = min(raw.values(), key=lambda times: float(np.median(times)))
    ratio = float(np.median(http) / np.median(fastest))
    per_item = (full.resident - empty.resident) / chosen.items
    rows = [
        ["POST /search, p50 / p99", f"{np.median(http):.2f} / {np.quantile(http, 0.99):.2f} ms"],
        *(
            [
                f"IndexBinaryFlat.search, {count} thread(s), p50 / p99",
                f"{np.median(t):.2f} / {np.quantile(t, 0.99):.2f} ms",
            ]
            for count, t in raw.items()
        ),
        ["ratio of the p50 to the faster bare search", f"{ratio:.2f}"],
        ["resident, empty gallery", f"{empty.resident / 2**20:.0f} MiB"],
        ["resident, full gallery", f"{full.resident / 2**20:.0f} MiB"],
        ["bytes an item", f"{per_item:.0f}"],
        ["start to ready, empty gallery", f"{empty.start_s:.2f} s"],
        ["start to ready, from the snapshot", f"{full.start_s:.2f} s"],
        ["filling the gallery (index_store.add)", f"{chosen.items / filled:,.0f} items/s"],
    ]
    tables.show(
        f"{chosen.items:,} codes of {bits} bit, top {chosen.top_k}, radius {bits}, {threads} threads",
        ["", "measured"],
        rows,
        [f"Resident size is read after {chosen.searches:,} searches; SQLite's cache is part of it."],
        markdown=chosen.markdown,
    )
    return 0


def _fill(folder: Path, codes: npt.NDArray[np.uint8], bits: int, fingerprint: str) -> float:
    """Put all codes into a new gallery; returns the seconds that the additions took."""
    with open_gallery(folder, bits, fingerprint=fingerprint) as store:
        started = time.perf_counter()
        for start in range(0, len(codes), _FILL_BATCH):
            part = codes[start : start + _FILL_BATCH]
            store.add([Item(None, f"label {(start + i) % 1000}", code.tobytes()) for i, code in enumerate(part)])
        return time.perf_counter() - started


def _serve(
    folder: Path,
    settings: dict[str, str],
    queries: npt.NDArray[np.uint8],
    index: faiss.IndexBinaryFlat | None,
    chosen: argparse.Namespace,
) -> tuple[Load, npt.NDArray[np.float64], dict[int, npt.NDArray[np.float64]]]:
    """Search a service, in turns with a bare index if there is one: milliseconds of each search, by threads."""
    bits = queries.shape[1] * 8
    http: list[float] = []
    raw: dict[int, list[float]] = {count: [] for count in (1, int(settings["SHITU_CPU_THREADS"]))}
    with ServiceProcess(folder, folder.with_suffix(".log"), settings) as process:
        start_s = process.wait_until_ready()
        ask = serving.KeepAliveSearch(process.port)
        for first in range(0, len(queries), _ROUND):
            for query in queries[first : first + _ROUND]:
                body = {"code": query.tobytes().hex(), "hamming_radius": bits, "top_k": chosen.top_k}
                before = time.perf_counter()
                answer = ask(body)
                http.append((time.perf_counter() - before) * 1000)
                found = len(answer["objects"][0]["matches"])
                if index is not None and found != chosen.top_k:
                    raise RuntimeError(f"a search found {found} matches instead of {chosen.top_k}")
            if index is None:
                continue
            for threads, times in raw.items():
                faiss.omp_set_num_threads(threads)
                for query in queries[first : first + _ROUND]:
                    before = time.perf_counter()
                    index.search(query[None], chosen.top_k)
                    times.append((time.perf_counter() - before) * 1000)
        ask.close()
        return (
            Load(start_s, _resident_bytes(process.pid)),
            np.array(http),
            {count: np.array(times) for count, times in raw.items()},
        )


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status does not tell the resident size")


if __name__ == "__main__":
    sys.exit(main())
