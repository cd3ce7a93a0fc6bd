"""A gallery that changes its model: every code at once, or none."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator

import pytest

from index_store import (
    GalleryStore,
    InvalidItem,
    InvalidQuery,
    Item,
    MissingCodes,
)

CODE = bytes(range(8))


def fill(store: GalleryStore, rng: random.Random, count: int = 200) -> list[Item]:
    return store.add([Item(None, f"label {n % 3}", rng.randbytes(8)) for n in range(count)])


@pytest.mark.every_method
def test_all_codes_bits_and_the_fingerprint_change_together(
    open_store: Callable[..., GalleryStore], tools, rng: random.Random, folder
) -> None:
    store = open_store()
    items = fill(store, rng)
    tools.settle(store)
    store.add([Item("gone", "x", CODE)])
    store.remove(["gone"])
    store.snapshot()
    codes = {item.id: rng.randbytes(16) for item in items}
    assert store.recode(iter(codes.items()), 128, "m2") == len(items)
    oracle = tools.Oracle()
    oracle.put(*(Item(i.id, i.label, codes[i.id], i.metadata, i.source, i.created_at) for i in items))
    assert (store.bits, store.fingerprint) == (128, "m2")
    oracle.check(store, [rng.randbytes(16)])
    with pytest.raises(InvalidQuery):
        store.search(tools.as_codes([CODE]), 8, 1)
    # A kill now must not bring the old snapshot back.
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    with open_store(bits=128, fingerprint="m2", path=killed) as reopened:
        oracle.check(reopened, [rng.randbytes(16)])
    store.close()
    with open_store(bits=128, fingerprint="m2") as store:
        oracle.check(store, [rng.randbytes(16)])
        existing = store.add([Item(None, "x", codes[items[3].id])], on_duplicate="return")
        assert existing[0].id == items[3].id


def test_no_snapshot_of_the_old_codes_is_used_even_if_the_model_keeps_its_name(
    open_store, tools, rng: random.Random, folder
) -> None:
    store, oracle = open_store(), tools.Oracle()
    items = fill(store, rng)
    store.snapshot()
    oracle.put(*(Item(i.id, i.label, rng.randbytes(8), created_at=i.created_at) for i in items))
    store.recode([(item.id, item.code) for item in oracle.items.values()], 64, "m1")
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    with open_store(path=killed) as reopened:
        oracle.check(reopened, [CODE])


def test_equal_codes_are_found_after_a_recoding(store: GalleryStore) -> None:
    (item,) = store.add([Item("a", "x", CODE)], on_duplicate="return")
    store.recode([("a", bytes(8))], 64, "m2")
    assert store.add([Item("b", "x", CODE)], on_duplicate="return")[0].id == "b"
    assert store.add([Item("c", "x", bytes(8))], on_duplicate="return")[0].id == "a"
    assert item.code == CODE


def test_items_without_a_new_code_stop_the_recoding(store: GalleryStore, tools, rng: random.Random) -> None:
    oracle = tools.Oracle()
    items = fill(store, rng)
    oracle.put(*items)
    with pytest.raises(MissingCodes) as caught:
        store.recode(((item.id, bytes(16)) for item in items[5:]), 128, "m2")
    assert (caught.value.ids, caught.value.count) == (tuple(item.id for item in items[:5]), 5)
    assert (store.bits, store.fingerprint) == (64, "m1")
    oracle.check(store, [CODE])


def test_items_without_a_new_code_are_removed_if_that_is_wanted(open_store, tools, rng) -> None:
    store = open_store()
    items = fill(store, rng)
    assert store.recode(((item.id, CODE) for item in items[5:]), 64, "m2", drop_missing=True) == 195
    oracle = tools.Oracle()
    oracle.put(*(Item(i.id, i.label, CODE, created_at=i.created_at) for i in items[5:]))
    oracle.check(store, [CODE])
    store.close()
    with open_store(fingerprint="m2") as store:
        oracle.check(store, [CODE])


@pytest.mark.parametrize("code", [CODE[:7], CODE * 2, "12345678", None])
def test_a_new_code_of_a_wrong_length_stops_the_recoding(store, tools, rng, code: object) -> None:
    oracle = tools.Oracle()
    items = fill(store, rng, 10)
    oracle.put(*items)
    with pytest.raises(InvalidItem):
        store.recode([(item.id, code) for item in items], 64, "m2")
    oracle.check(store, [CODE])
    with pytest.raises(InvalidQuery):
        store.recode([], 12, "m2")


def test_an_error_of_the_one_who_makes_the_codes_changes_nothing(store, tools, rng, folder) -> None:
    oracle = tools.Oracle()
    oracle.put(*fill(store, rng, 10))

    def codes() -> Iterator[tuple[str, bytes]]:
        yield min(oracle.items), CODE
        raise OSError("picture gone")

    with pytest.raises(OSError, match="picture gone"):
        store.recode(codes(), 64, "m2")
    assert store.fingerprint == "m1"
    assert not (folder / "recode.staging").exists()
    oracle.check(store, [CODE])


def test_the_gallery_serves_while_new_codes_come(store: GalleryStore, tools, rng: random.Random) -> None:
    items = fill(store, rng, 50)
    gone = []

    def codes() -> Iterator[tuple[str, bytes]]:
        for item in items:
            yield item.id, bytes(reversed(item.code))
            (result,) = store.search(tools.as_codes([item.code]), 0, 1)
            assert len(result.matches) == 1
            if len(gone) < 10:
                gone.append(item.id)
                threads = threading.Thread(target=store.remove, args=([item.id],))
                threads.start()
                threads.join()
        store.snapshot()
        yield "never here", CODE

    assert store.recode(codes(), 64, "m2") == 40
    assert all(store.get(item.id).code == bytes(reversed(item.code)) for item in items[10:])
    with pytest.raises(MissingCodes):
        added_meanwhile = (pair for pair in [*_pairs(items[10:]), *_adding(store)])
        store.recode(added_meanwhile, 64, "m3")


def _pairs(items: list[Item]) -> Iterator[tuple[str, bytes]]:
    for item in items:
        yield item.id, item.code


def _adding(store: GalleryStore) -> Iterator[tuple[str, bytes]]:
    store.add([Item("late", "x", CODE)])
    yield from ()


def test_an_empty_gallery_changes_its_model(open_store: Callable[..., GalleryStore]) -> None:
    with open_store() as store:
        assert store.recode([], 256, "m2") == 0
    with open_store(bits=256, fingerprint="m2") as store:
        assert len(store) == 0


def test_searches_during_a_recoding_see_one_model_or_the_other(store, tools, rng) -> None:
    items = fill(store, rng, 300)
    stop = threading.Event()
    errors: list[BaseException] = []

    def search() -> None:
        try:
            while not stop.is_set():
                bits = store.bits
                try:
                    (result,) = store.search(tools.as_codes([bytes(bits // 8)]), bits, 1000)
                except InvalidQuery:
                    continue  # the model changed between asking for the bits and searching
                assert len(result.matches) == 300
                assert {match.distance % 3 for match in result.matches} == {0} or bits == 64
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        bits, code = (128, b"\x07" * 16) if turn % 2 == 0 else (64, CODE)
        store.recode([(item.id, code) for item in items], bits, f"m{turn}")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
