"""Flat search on a GPU, with Faiss's CPU index in the GPU's place, and with a GPU where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import faiss
import numpy as np
import pytest

from index_store import IndexOptions, Item, open_gallery
from index_store.hamming import FlatIndex, GpuFailed, Segments, Work, plan, why_no_gpu
from index_store.hamming.gpu import GpuFlat, on_gpu
from index_store.hamming.layered import LayeredIndex
from index_store.locks import ReadWriteLock

BITS = 32
MAKERS = [
    faiss.IndexBinaryFlat,
    pytest.param(on_gpu, marks=pytest.mark.skipif(why_no_gpu() is not None, reason=f"no GPU: {why_no_gpu()}")),
]


def make_codes(count: int, seed: int = 0) -> np.ndarray:
    """Codes of few bits set, so that distances tie all the time."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8) & rng.integers(
        0, 256, (count, BITS // 8), dtype=np.uint8
    )


@pytest.fixture(params=MAKERS)
def both(request: pytest.FixtureRequest) -> tuple[LayeredIndex, FlatIndex]:
    """An index on the GPU and one on the CPU with the same 3,000 pairs."""
    rows, codes = np.arange(1, 3001, dtype=np.int64), make_codes(3000)
    pairs = Segments(BITS, 2, segment_bytes=700 * BITS // 8)
    pairs.append(rows, codes)
    flat = FlatIndex(BITS, 2)
    flat.add(rows, codes)
    return LayeredIndex(GpuFlat(pairs, 2, request.param), 2), flat


def check(gpu: LayeredIndex, flat: FlatIndex) -> None:
    queries = make_codes(5, seed=9)
    assert len(gpu) == len(flat)
    some = np.arange(1, 3500, 7, dtype=np.int64)
    for radius, top_k in ((0, 1), (6, 10), (BITS, 1), (BITS, 500), (BITS, 2500), (BITS, 5000)):
        for among in (None, some):
            selections = [None if among is None else index.select(among) for index in (gpu, flat)]
            for one, other in zip(
                gpu.search(queries, radius, top_k, selections[0]),
                flat.search(queries, radius, top_k, selections[1]),
                strict=True,
            ):
                assert one.truncated == other.truncated
                last = other.distances[top_k - 1] if one.truncated else BITS
                for hits in (one, other):
                    assert (np.diff(hits.distances) >= 0).all()
                kept = [sorted(hits.rows[hits.distances <= last].tolist()) for hits in (one, other)]
                assert kept[0] == kept[1]
    for one, other in zip(gpu.nearest_outside(queries, 4), flat.nearest_outside(queries, 4), strict=True):
        assert sorted(one.rows.tolist()) == sorted(other.rows.tolist())


def test_it_finds_what_the_cpu_finds_through_changes_and_folding(both: tuple[LayeredIndex, FlatIndex]) -> None:
    gpu, flat = both
    rng = np.random.default_rng(3)
    check(gpu, flat)
    last = 3000
    for _ in range(3):
        gone = rng.choice(np.arange(1, last + 1), 400, replace=False)
        assert gpu.remove(gone) == flat.remove(gone)
        rows = np.arange(last + 1, last + 301, dtype=np.int64)
        last += 300
        for index in both:
            index.add(rows, make_codes(300, seed=last))
        check(gpu, flat)
        gpu.fold(ReadWriteLock(), Work(1, lambda: None))
        assert gpu.recent == 0
        check(gpu, flat)


def test_what_is_removed_while_it_folds_stays_removed(both: tuple[LayeredIndex, FlatIndex]) -> None:
    gpu, flat = both
    for index in both:
        index.add(np.arange(3001, 3101, dtype=np.int64), make_codes(100, seed=5))
    gone = np.array([3, 1500, 3001, 3050], dtype=np.int64)

    def remove_meanwhile() -> None:
        gpu.remove(gone)

    gpu.fold(ReadWriteLock(), Work(1, remove_meanwhile))
    flat.remove(gone)
    check(gpu, flat)


def test_many_removals_wear_it(both: tuple[LayeredIndex, FlatIndex]) -> None:
    gpu, _ = both
    assert gpu.worn() is None
    gpu.remove(np.arange(1, 1001, dtype=np.int64))
    assert "1,000 of 3,000" in (gpu.worn() or "")


def test_it_is_planned_only_where_it_is_asked_for_and_worth_it() -> None:
    asked = IndexOptions(gpu=True)
    assert plan("Flat", 5000, "Flat", asked).kind == GpuFlat.method
    assert plan("auto", 5000, "Flat", asked).kind == GpuFlat.method
    assert plan("Flat", 100, "Flat", asked).kind == "Flat"
    assert plan("Flat", 5000, "Flat", IndexOptions()).kind == "Flat"
    assert plan("IVF", 5000, "Flat", asked).kind == "IVF"


def test_a_gpu_that_cannot_take_the_codes_says_so() -> None:
    def full(bits: int) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(GpuFailed, match="out of memory"):
        GpuFlat(Segments(BITS, 1), 1, full)


@pytest.fixture
def gpu_that_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Put Faiss's CPU index in the place of a GPU's that fails when it is made for the given time."""

    def put(time: int) -> list[int]:
        made: list[int] = []

        def make(bits: int) -> faiss.IndexBinaryFlat:
            made.append(bits)
            if len(made) == time:
                raise RuntimeError("out of memory")
            return faiss.IndexBinaryFlat(bits)

        class InPlaceOfGpu(GpuFlat):
            def __init__(self, pairs: Segments, threads: int) -> None:
                super().__init__(pairs, threads, make)

        monkeypatch.setattr("index_store.local.why_no_gpu", lambda: None)
        monkeypatch.setattr("index_store.hamming.methods.GpuFlat", InPlaceOfGpu)
        monkeypatch.setattr("index_store.hamming.methods._GPU_FROM", 16)
        return made

    return put


def test_a_rebuild_whose_gpu_fails_is_done_on_the_cpu(open_store, tools, rng, gpu_that_fails) -> None:
    made = gpu_that_fails(1)
    oracle, store = tools.Oracle(), open_store(method="IVF", options=replace(tools.OPTIONS, gpu=True))
    oracle.put(*store.add([Item(None, "x", rng.randbytes(8)) for _ in range(100)]))
    tools.settle(store)
    store.rebuild("Flat")
    assert len(made) == 1
    assert (store.method, store.stats().serving, store.background_error) == ("Flat", "Flat", None)
    oracle.check(store, [bytes(8)])


def test_a_gpu_that_fails_at_a_fold_is_given_up_and_the_cpu_searches(open_store, tools, rng, gpu_that_fails) -> None:
    made = gpu_that_fails(2)
    oracle, store = tools.Oracle(), open_store(options=IndexOptions(gpu=True))
    oracle.put(*store.add([Item(None, "x", rng.randbytes(8)) for _ in range(100)]))
    tools.settle(store)
    assert store.stats().serving == GpuFlat.method
    oracle.check(store, [bytes(8)])
    oracle.put(*store.add([Item(None, "x", rng.randbytes(8)) for _ in range(50)]))
    tools.settle(store)
    assert (store.stats().serving, store.background_error) == ("Flat", None)
    assert len(made) == 2
    oracle.check(store, [bytes(8)])


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_the_cpu_searches_and_the_log_says_why(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="index_store")
    with open_gallery(tmp_path, BITS, options=IndexOptions(gpu=True)) as store:
        assert store.stats().serving == "Flat"
    assert "the CPU searches" in caplog.text
    assert "faiss-gpu" in caplog.text
