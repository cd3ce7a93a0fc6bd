"""What does it cost to measure retrieval by packed Hamming distance instead of by inner product?

The same codes are evaluated by `models.training.metrics` and by plain NumPy in the way the reference does it: float
codes of -1 and 1, one matrix of inner products and one stable sort a block of 64 queries. NumPy takes a part of the
queries, in turns with the same part by Hamming distance; the figures of both must agree.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from common import tables

from models.training.metrics import Evaluation, evaluate_codes

Codes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_CLASSES = 100
_BLOCK = 64  # queries, PaddleClas's `sim_block_size`
_RANKS = (1, 5, 100)


def main() -> int:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments.add_argument("--gallery", type=int, default=60_000, help="gallery codes (default 60,000)")
    arguments.add_argument("--queries", type=int, default=1000, help="queries (default 1,000)")
    arguments.add_argument("--part", type=int, default=128, help="queries that NumPy takes as well (default 128)")
    arguments.add_argument("--bits", type=int, nargs="+", default=[48, 512], help="lengths of codes (default 48 512)")
    chosen = arguments.parse_args()
    rows = [_compare(bits, chosen) for bits in chosen.bits]
    tables.show(
        f"{chosen.queries:,} queries against {chosen.gallery:,} codes: Recall@k, Precision@k and mAP",
        ["bits", "packed, all queries", "extra memory", "packed, part", "NumPy float, part", "ratio", "NumPy memory"],
        rows,
        [
            f"A part is {chosen.part} queries, the fastest of three turns. Memory is the peak beyond the codes; for "
            "NumPy these are floats, 32 times as large. The packed times include what NumPy does not compute: figures "
            "within radius 2, the precision-recall curve, balance and correlation of the bits.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _compare(bits: int, chosen: argparse.Namespace) -> list[str]:
    rng = np.random.default_rng(bits)
    centres = rng.random((_CLASSES, bits)) < 0.5
    gallery, gallery_label = _codes(rng, centres, chosen.gallery)
    query, query_label = _codes(rng, centres, chosen.queries)
    part, part_label = query[: chosen.part], query_label[: chosen.part]
    floats = _floats(part), _floats(gallery)

    def packed() -> Evaluation:
        return evaluate_codes(part, gallery, part_label, gallery_label, recall_topk=_RANKS, precision_topk=_RANKS)

    def plain() -> dict[str, float]:
        return _by_inner_product(*floats, part_label, gallery_label)

    _, whole = _timed(lambda: evaluate_codes(query, gallery, query_label, gallery_label, precision_topk=_RANKS))
    seconds: dict[str, list[float]] = {"packed": [], "plain": []}
    for _ in range(3):
        found, took = _timed(packed)
        seconds["packed"].append(took)
        expected, took = _timed(plain)
        seconds["plain"].append(took)
        _check(found, expected)
    fastest = {name: min(times) for name, times in seconds.items()}
    return [
        str(bits),
        f"{whole:.2f} s",
        f"{_peak_mib(packed):.0f} MiB",
        f"{fastest['packed']:.2f} s",
        f"{fastest['plain']:.2f} s",
        f"{fastest['plain'] / fastest['packed']:.1f}",
        f"{_peak_mib(plain):.0f} MiB",
    ]


def _codes(rng: np.random.Generator, centres: npt.NDArray[np.bool_], count: int) -> tuple[Codes, Labels]:
    """Codes about a centre for each class; a quarter of the bits is flipped."""
    labels = rng.integers(0, len(centres), count)
    codes = np.empty((count, centres.shape[1] // 8), np.uint8)
    for start in range(0, count, 4096):
        block = centres[labels[start : start + 4096]]
        codes[start : start + 4096] = np.packbits(block ^ (rng.random(block.shape) < 0.25), axis=1)
    return codes, labels


def _floats(codes: Codes) -> npt.NDArray[np.float32]:
    return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1


def _by_inner_product(
    query: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32], query_label: Labels, gallery_label: Labels
) -> dict[str, float]:
    """Recall@k, Precision@k and mAP over float codes, a block of queries at a time; every query has an answer."""
    sums: dict[str, float] = {}
    places = np.arange(1, len(gallery) + 1, dtype=np.float32)
    for start in range(0, len(query), _BLOCK):
        similarity = query[start : start + _BLOCK] @ gallery.T
        order = np.argsort(-similarity, axis=1, kind="stable")
        relevant = gallery_label[order] == query_label[start : start + _BLOCK, None]
        found = np.cumsum(relevant, axis=1, dtype=np.int32)
        average = (found / places * relevant).sum(axis=1) / found[:, -1]
        sums["mAP"] = sums.get("mAP", 0.0) + float(average.sum())
        for k in _RANKS:
            sums[f"recall{k}"] = sums.get(f"recall{k}", 0.0) + float((found[:, k - 1] > 0).sum())
            sums[f"precision@{k}"] = sums.get(f"precision@{k}", 0.0) + float(found[:, k - 1].sum()) / k
    return {name: total / len(query) for name, total in sums.items()}


def _check(found: Evaluation, expected: dict[str, float]) -> None:
    figures = found.figures()
    wrong = {name: value for name, value in expected.items() if abs(figures[name] - value) > 1e-5}
    if wrong:
        raise RuntimeError(f"packed and plain figures differ: {wrong} and {figures}")


def _timed(call: Callable[[], object]) -> tuple[object, float]:
    before = time.perf_counter()
    result = call()
    return result, time.perf_counter() - before


def _peak_mib(call: Callable[[], object]) -> float:
    """The most that a call allocates at once; NumPy reports its arrays to tracemalloc, Faiss writes into them."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    sys.exit(main())
