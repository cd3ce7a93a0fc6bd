"""Many threads at once: readers see whole changes, writers are not starved."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from index_store import GalleryClosed, GalleryError, GalleryStore, Item
from index_store.background import BackgroundJob
from index_store.locks import ReadWriteLock

CODE = bytes(range(8))


def run_beside(main: Callable[[], None], *others: Callable[[], None], times: int = 1) -> None:
    """Run ``main`` while each of ``others`` runs again and again in ``times`` threads."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def repeat(call: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in others for _ in range(times)]
    for thread in threads:
        thread.start()
    try:
        main()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_readers_never_see_half_a_change(store: GalleryStore, tools, rng: random.Random) -> None:
    store.add([Item(f"stay-{n:03}", "stay", rng.randbytes(8)) for n in range(100)])
    store.add([Item(f"pair-{n}", "pair", CODE) for n in (0, 1)])
    everything = tools.as_codes([CODE])

    def search() -> None:
        (result,) = store.search(everything, 64, 10_000)
        seen = [match.id for match in result.matches]
        assert len(seen) == len(set(seen))
        assert sum(item_id.startswith("stay") for item_id in seen) == 100
        assert {"pair-0", "pair-1"} <= set(seen)
        assert sum(item_id.startswith("batch") for item_id in seen) in (0, 50)

    def search_by_label() -> None:
        (result,) = store.search(everything, 64, 10_000, label="stay")
        assert len(result.matches) == 100

    def search_the_nearest() -> None:
        (result,) = store.search(everything, 0, 3)
        assert {"pair-0", "pair-1"} <= {match.id for match in result.matches}

    def read() -> None:
        assert len([item for item in tools.walk(store, 40) if item.id.startswith("stay")]) == 100
        assert store.get("stay-050") is not None

    def change() -> None:
        for turn in range(80):
            for n in rng.sample(range(100), 5):
                store.replace(Item(f"stay-{n:03}", "stay", rng.randbytes(8)))
            store.replace(Item(f"pair-{turn % 2}", "pair", CODE, {"turn": turn}))
            store.add([Item(f"batch-{n}", "batch", tools.flip(CODE, 3)) for n in range(50)])
            if turn % 2:
                store.remove_label("batch")
            else:
                store.remove([f"batch-{n}" for n in range(50)])
            if turn % 40 == 0:
                store.rebuild()
                store.snapshot()

    run_beside(change, search, search_by_label, search_the_nearest, read)


@pytest.mark.every_method
def test_an_item_is_searchable_and_listed_once_it_is_answered(store: GalleryStore, tools, rng) -> None:
    store.add([Item(None, "stay", rng.randbytes(8)) for _ in range(100)])
    tools.settle(store)
    everything = tools.as_codes([rng.randbytes(8)])

    def write() -> None:
        mine = random.Random(threading.get_ident())
        code = mine.randbytes(8)
        (item,) = store.add([Item(None, "mine", code)])
        (result,) = store.search(tools.as_codes([code]), 0, 10)
        assert item.id in [match.id for match in result.matches]
        assert store.get(item.id) == item
        store.remove([item.id])
        (result,) = store.search(tools.as_codes([code]), 0, 10)
        assert item.id not in [match.id for match in result.matches]
        assert store.get(item.id) is None

    def wait() -> None:
        for _ in range(60):
            store.search(everything, 64, 10)
            time.sleep(0.01)

    run_beside(wait, write, times=4)
    assert len(store) == 100


def test_ids_of_many_threads_are_distinct(store: GalleryStore) -> None:
    made: list[str] = []

    def add() -> None:
        made.extend([item.id for item in store.add([Item(None, "x", CODE)] * 20)])

    run_beside(lambda: time.sleep(0.3), add, times=4)
    assert len(made) == len(set(made)) == len(store)


def test_a_writer_is_not_starved_by_searches(store: GalleryStore, tools, rng: random.Random) -> None:
    store.add([Item(None, "x", rng.randbytes(8)) for _ in range(20_000)])
    queries = tools.as_codes([rng.randbytes(8) for _ in range(64)])
    waits_s = []

    def write() -> None:
        for _ in range(10):
            started = time.monotonic()
            store.add([Item(None, "x", CODE)])
            waits_s.append(time.monotonic() - started)

    run_beside(write, lambda: store.search(queries, 5, 5), times=4)
    assert max(waits_s) < 20


def test_closing_waits_for_calls_under_way(open_store, tools, rng: random.Random) -> None:
    store = open_store()
    store.add([Item(f"{n}", "x", rng.randbytes(8)) for n in range(5000)])
    queries = tools.as_codes([rng.randbytes(8) for _ in range(64)])
    outcomes: list[str] = []

    def search() -> None:
        try:
            while True:
                assert all(len(result.matches) == 50 for result in store.search(queries, 64, 50))
        except GalleryClosed:
            outcomes.append("closed")

    def write() -> None:
        try:
            for number in range(10**6):
                store.add([Item(f"new-{number}", "x", CODE)])
                written.append(f"new-{number}")
        except GalleryClosed:
            outcomes.append("closed")

    written: list[str] = []
    threads = [threading.Thread(target=call) for call in (search, search, search, write)]
    for thread in threads:
        thread.start()
    while len(written) < 20:
        time.sleep(0.001)
    store.close()
    for thread in threads:
        thread.join(timeout=60)
    assert outcomes == ["closed"] * len(threads)
    with open_store() as store:
        assert len(store) == 5000 + len(written)


def test_a_read_write_lock_keeps_writers_alone() -> None:
    lock = ReadWriteLock()
    inside: list[str] = []
    most_readers = 0

    def read() -> None:
        nonlocal most_readers
        with lock.read():
            inside.append("r")
            most_readers = max(most_readers, len(inside))
            assert "w" not in inside
            time.sleep(0.001)
            inside.remove("r")

    def write() -> None:
        with lock.write():
            assert inside == []
            inside.append("w")
            time.sleep(0.001)
            assert inside == ["w"]
            inside.remove("w")

    run_beside(lambda: time.sleep(0.5), read, read, read, write, write)
    assert most_readers > 1


def test_a_waiting_writer_holds_later_readers_back() -> None:
    lock = ReadWriteLock()
    order: list[str] = []

    def write() -> None:
        with lock.write():
            order.append("writer")

    def read() -> None:
        with lock.read():
            order.append("reader")

    with lock.read():
        writer = threading.Thread(target=write)
        writer.start()
        while not lock._gate.locked():
            time.sleep(0.001)
        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.05)
        assert order == []
    writer.join()
    reader.join()
    assert order == ["writer", "reader"]


def test_an_error_inside_a_lock_frees_it() -> None:
    lock = ReadWriteLock()
    with pytest.raises(ValueError, match="x"), lock.write():
        raise ValueError("x")
    with pytest.raises(ValueError, match="x"), lock.read():
        raise ValueError("x")
    with lock.write():
        pass


def test_a_background_job_tries_again_after_an_error_it_knows() -> None:
    attempts: list[int] = []
    done = threading.Event()

    def job() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise GalleryError("not now")
        done.set()

    background = BackgroundJob("test", job, retry_s=0.01)
    background.wake()
    assert done.wait(10)
    background.stop()
    assert background.error is None
    assert len(attempts) == 2


def test_a_background_job_that_dies_says_so() -> None:
    def job() -> None:
        raise ZeroDivisionError

    background = BackgroundJob("test", job)
    background.wake()
    background._thread.join(10)
    assert isinstance(background.error, ZeroDivisionError)
    background.stop()
