"""What do the index methods bring, from ten thousand codes to ten million?

Codes lie in random clusters of ten: each is its cluster's centre with 8 % of the bits flipped, and so is each query.
A gallery store is filled and rebuilt as Flat, IVF and HNSW32; each setting is asked in turns with the Faiss index that
is inside of it (the same lists, the same graph), with one query a call on one thread and with 64 on all. Beside them:
Faiss's IndexBinaryFlat, whose distances are the truth that recall is measured by, IndexBinaryIVF as Faiss trains it,
usearch's exact search, and the inner product of float vectors of -1 and 1.

With --folder, galleries and what was built stay there, so that a run of many hours can be stopped and go on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from common import clusters, options, tables
from common.filling import fill, serve_by

from index_store import GalleryStore, IndexOptions, open_gallery

Codes = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.int32]
Search = Callable[[Codes], Distances]

_BITS = 512
_TOP_K = 10
_BATCH = 64
_NPROBE_SHARES = (100, 40, 20)  # one list in so many
_EF_SEARCH = (32, 64, 128)
_BUILT = "built.json"
_MOST_FLOATS = 1_000_000  # 2 GB of float vectors
_MOST_FAISS_TRAINING = 1_000_000  # Faiss's own training takes a quarter of an hour beyond
_COLUMNS = (
    *("codes", "index", "setting", "build s", "B/item", "1 p50", "1 p99", "64 p50", "64 p99"),
    *("R@1", "R@10", "x Flat, 1", "x Flat, 64", "of raw, 64"),
)


@dataclass
class Row:
    """One index with one setting, and what was measured of it."""

    index: str
    setting: str
    build_s: float | None
    item_bytes: float | None
    search: Search
    over: Row | None = None  # the bare index that it is compared with
    singles_ms: list[float] = field(default_factory=list)
    batches_ms: list[float] = field(default_factory=list)
    recall: tuple[float, float] = (0.0, 0.0)


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    arguments.add_argument(
        "--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="gallery sizes (default to 10^6)"
    )
    arguments.add_argument("--methods", nargs="+", default=["Flat", "IVF", "HNSW32"], help="methods (default all)")
    arguments.add_argument("--nlist", type=int, help="lists of IVF (default: by the number of codes)")
    arguments.add_argument("--folder", type=Path, help="keep galleries here (default: a temporary folder)")
    arguments.add_argument("--singles", type=int, default=300, help="searches of one query each (default 300)")
    arguments.add_argument("--batches", type=int, default=15, help="searches of 64 queries each (default 15)")
    arguments.add_argument("--no-peers", action="store_true", help="leave out usearch, floats and Faiss's training")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as temporary:
        folder = chosen.folder or Path(temporary)
        rows = [row for items in chosen.items for row in _measure(items, folder / str(items), chosen)]
    threads = len(os.sched_getaffinity(0))
    tables.show(
        f"Codes of {_BITS} bit in clusters of ten, top {_TOP_K}",
        _COLUMNS,
        rows,
        [
            f"Milliseconds a call; one query on one thread, 64 on {threads}. Recall counts any hit at a distance not "
            "above the true k-th. x Flat: how many times faster than Faiss IndexBinaryFlat, by the p50. "
            "of raw: the store's p50 of 64 queries over that of the Faiss index inside of it, asked in turns."
        ],
        markdown=chosen.markdown,
    )
    return 0


def _measure(items: int, folder: Path, chosen: argparse.Namespace) -> Iterator[list[str]]:
    """Measure everything at one size; rows as text."""
    threads = len(os.sched_getaffinity(0))
    codes, queries = clusters.make(items, _BITS, max(chosen.batches * _BATCH, chosen.singles, 1000))
    flat = faiss.IndexBinaryFlat(_BITS)
    flat.add(codes)
    faiss.omp_set_num_threads(threads)
    truth = flat.search(queries, _TOP_K)[0]
    with open_gallery(folder, _BITS, threads=threads, options=IndexOptions(nlist=chosen.nlist)) as store:
        fill(store, codes)
        built = json.loads((folder / _BUILT).read_text()) if (folder / _BUILT).exists() else {}
        methods = sorted(chosen.methods, key=lambda method: method != store.stats().serving)
        baseline = Row("Faiss Flat", "", 0.0, _BITS / 8, lambda part: flat.search(part, _TOP_K)[0])
        for method in methods:
            seconds = serve_by(store, method, threads, chosen.nlist)
            if seconds is not None:
                built[method] = seconds
                (folder / _BUILT).write_text(json.dumps(built))
            rows = list(_settings(store, method, flat, built.get(method)))
            _time([baseline, *rows], queries, truth, threads, chosen)
            yield from (_texts(items, row, baseline) for row in rows)
    yield _texts(items, baseline, baseline)
    if not chosen.no_peers:
        for peer in _peers(codes, flat, threads):
            rows = [baseline, peer]
            _time(rows, queries, truth, threads, chosen)
            yield _texts(items, peer, baseline)


def _settings(store: GalleryStore, method: str, flat: faiss.IndexBinaryFlat, build_s: float | None) -> Iterator[Row]:
    """The settings of a method: the bare index and the store with each."""
    item_bytes = store.stats().bytes / len(store)
    # What the store adds can only be told beside the very index that it uses.
    inner: Any = flat if method == "Flat" else store._live.index._structure._index  # type: ignore[attr-defined]
    nlist = store.stats().parameters.get("nlist", 0)
    arguments: dict[str, list[dict[str, int]]] = {
        "Flat": [{}],
        "IVF": [{"nprobe": max(1, nlist // share)} for share in _NPROBE_SHARES],
        "HNSW32": [{"ef_search": value} for value in _EF_SEARCH],
    }
    for given in arguments[method]:
        setting = " ".join(f"{name} {value}" for name, value in given.items()) + (f" of {nlist}" if nlist else "")
        bare = Row(f"Faiss inside {method}", setting, None, None, _bare(inner, given))
        yield bare
        yield Row(f"store {method}", setting, build_s, item_bytes, _stored(store, given), over=bare)


def _bare(index: Any, given: dict[str, int]) -> Search:
    parameters = None
    if "nprobe" in given:
        parameters = faiss.IVFSearchParameters(nprobe=given["nprobe"])
    elif "ef_search" in given:
        parameters = faiss.SearchParametersHNSW(efSearch=given["ef_search"])
    return lambda part: index.search(part, _TOP_K, params=parameters)[0]


def _stored(store: GalleryStore, given: dict[str, int]) -> Search:
    def search(part: Codes) -> Distances:
        results = store.search(part, store.bits, _TOP_K, **given)
        distances = np.full((len(part), _TOP_K), _BITS + 1, dtype=np.int32)
        for line, result in zip(distances, results, strict=True):
            line[: len(result.matches)] = [match.distance for match in result.matches]
        return distances

    return search


def _peers(codes: Codes, flat: faiss.IndexBinaryFlat, threads: int) -> Iterator[Row]:
    """Other ways to search the same codes."""
    if len(codes) <= _MOST_FAISS_TRAINING:
        nlist = max(1, len(codes) // 8 if len(codes) <= 40_000 else round(4 * len(codes) ** 0.5))
        index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(_BITS), _BITS, nlist)
        faiss.omp_set_num_threads(threads)
        before = time.perf_counter()
        some = np.random.default_rng(1).choice(len(codes), min(len(codes), 39 * nlist), replace=False)
        index.train(codes[some])
        index.add(codes)
        build_s = time.perf_counter() - before
        for share in _NPROBE_SHARES:
            given = {"nprobe": max(1, nlist // share)}
            yield Row("Faiss-trained IVF", f"nprobe {given['nprobe']} of {nlist}", build_s, None, _bare(index, given))
    yield _usearch(codes, threads)
    if len(codes) <= _MOST_FLOATS:
        floats = faiss.IndexFlatIP(_BITS)
        for start in range(0, len(codes), 10_000):
            floats.add(_signs(codes[start : start + 10_000]))
        yield Row(
            *("float FlatIP", "", 0.0, _BITS * 4.0),
            lambda part: ((_BITS - floats.search(_signs(part), _TOP_K)[0]) / 2).round().astype(np.int32),
        )


def _usearch(codes: Codes, threads: int) -> Row:
    from usearch.index import MetricKind, search

    def exact(part: Codes) -> Distances:
        found = search(codes, part, _TOP_K, MetricKind.Hamming, exact=True, threads=1 if len(part) == 1 else threads)
        return np.asarray(found.distances).reshape(len(part), -1).astype(np.int32)

    return Row("usearch exact", "", 0.0, _BITS / 8, exact)


def _signs(codes: Codes) -> npt.NDArray[np.float32]:
    return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1


def _time(rows: Sequence[Row], queries: Codes, truth: Distances, threads: int, chosen: argparse.Namespace) -> None:
    """Time all rows in turns, so that a busy machine slows all, and measure their recall."""
    for row in rows:
        row.singles_ms.clear()
        row.batches_ms.clear()
    found: dict[int, list[Distances]] = {id(row): [] for row in rows}
    for number in range(chosen.singles):
        for row in rows:
            faiss.omp_set_num_threads(1)  # the store sets this itself, for its thread
            _, ms = _timed(row.search, queries[number : number + 1])
            row.singles_ms.append(ms)
    for number in range(chosen.batches):
        part = queries[number * _BATCH : (number + 1) * _BATCH]
        for row in rows:
            faiss.omp_set_num_threads(threads)
            distances, ms = _timed(row.search, part)
            row.batches_ms.append(ms)
            found[id(row)].append(distances)
    for row in rows:
        distances = np.concatenate(found[id(row)])
        known = truth[: len(distances)]
        row.recall = (
            float((distances[:, :1] <= known[:, :1]).mean()),
            float((distances <= known[:, -1:]).mean()),
        )


def _timed(search: Search, queries: Codes) -> tuple[Distances, float]:
    before = time.perf_counter()
    distances = search(queries)
    return distances, (time.perf_counter() - before) * 1000


def _texts(items: int, row: Row, baseline: Row) -> list[str]:
    one, many = (np.quantile(series[1:], (0.5, 0.99)) for series in (row.singles_ms, row.batches_ms))
    flat_one, flat_many = np.median(baseline.singles_ms[1:]), np.median(baseline.batches_ms[1:])
    return [
        f"{items:,}",
        row.index,
        row.setting,
        "" if row.build_s is None else f"{row.build_s:.1f}",
        "" if row.item_bytes is None else f"{row.item_bytes:.0f}",
        *(f"{value:.3f}" for value in one),
        *(f"{value:.2f}" for value in many),
        *(f"{value:.3f}" for value in row.recall),
        f"{flat_one / one[0]:.2f}",
        f"{flat_many / many[0]:.2f}",
        "" if row.over is None else f"{many[0] / np.median(row.over.batches_ms[1:]):.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
