"""What every gallery store does: the suite that all index methods share."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from index_store import (
    DuplicateCode,
    Existing,
    FingerprintMismatch,
    GalleryClosed,
    GalleryError,
    GalleryNotFound,
    GalleryStore,
    InvalidItem,
    InvalidQuery,
    Item,
    ItemExists,
    ItemNotFound,
    Match,
    StorageUnavailable,
    open_gallery,
)

CODE = bytes(range(8))


def random_items(rng: random.Random, count: int, labels: int = 5, code_bytes: int = 8) -> list[Item]:
    """Items whose codes are few bits apart from one another, so that distances tie."""
    return [
        Item(
            f"item-{rng.randrange(10**9)}-{number}",
            f"label {rng.randrange(labels)}",
            bytes(rng.choice([0, 1, 3, 0xFF]) for _ in range(code_bytes)),
            {"number": number},
        )
        for number in range(count)
    ]


def matches(result: object) -> list[tuple[int, str]]:
    return [(match.distance, match.id) for match in result.matches]


# Enrolment


def test_an_added_item_is_returned_as_it_is_stored(store: GalleryStore) -> None:
    before = datetime.now(timezone.utc)
    metadata = {"price": 3.5, "tags": ["a", "é"], "nested": {"null": None, "yes": True}, "huge": 10**30}
    (item,) = store.add([Item("pack:1.a_b-C", "Grüner Tee / 绿茶 \U0001f375", CODE, metadata, "pic/1.jpg")])
    assert (item.id, item.label, item.code) == ("pack:1.a_b-C", "Grüner Tee / 绿茶 \U0001f375", CODE)
    assert (item.metadata, item.source) == (metadata, "pic/1.jpg")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", item.created_at)
    created = datetime.fromisoformat(item.created_at.replace("Z", "+00:00"))
    assert before - timedelta(milliseconds=1) <= created <= datetime.now(timezone.utc)
    assert store.get("pack:1.a_b-C") == item
    assert store.list().items == [item]
    assert len(store) == 1


def test_an_item_without_id_gets_one_that_is_valid_and_rises(store: GalleryStore) -> None:
    ids = [item.id for _ in range(5) for item in store.add([Item(None, "a", CODE)] * 300)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", item_id) for item_id in ids)


def test_created_at_of_the_caller_is_not_taken_over(store: GalleryStore) -> None:
    (item,) = store.add([Item("a", "a", CODE, created_at="1999-01-01T00:00:00Z")])
    assert item.created_at > "2020"


@pytest.mark.parametrize(
    "item",
    [
        Item("", "a", CODE),
        Item("a b", "a", CODE),
        Item("é", "a", CODE),
        Item("\udc00", "a", CODE),
        Item("a\n", "a", CODE),
        Item("a" * 129, "a", CODE),
        Item(7, "a", CODE),
        Item("a", "", CODE),
        Item("a", "x" * 513, CODE),
        Item("a", "nul\0", CODE),
        Item("a", "lone \ud800", CODE),
        Item("a", None, CODE),
        Item("a", "a", CODE[:7]),
        Item("a", "a", CODE + b"\0"),
        Item("a", "a", b""),
        Item("a", "a", bytearray(CODE)),
        Item("a", "a", "12345678"),
        Item("a", "a", CODE, []),
        Item("a", "a", CODE, None),
        Item("a", "a", CODE, {1: "number as key"}),
        Item("a", "a", CODE, {"a": (1, 2)}),
        Item("a", "a", CODE, {"a": float("nan")}),
        Item("a", "a", CODE, {"a": b"bytes"}),
        Item("a", "a", CODE, {"a": "\udfff"}),
        Item("a", "a", CODE, {"a": "x" * 65_536}),
        Item("a", "a", CODE, {}, ""),
        Item("a", "a", CODE, {}, "nul\0"),
        "no item at all",
    ],
)
def test_an_impossible_item_is_refused_and_nothing_is_stored(store: GalleryStore, item: Item) -> None:
    with pytest.raises(InvalidItem):
        store.add([Item("fine", "a", CODE), item])
    assert len(store) == 0
    assert store.get("fine") is None
    assert matches(store.search(np.frombuffer(CODE, np.uint8)[None], 64, 10)[0]) == []


def test_items_at_the_limits_are_accepted(store: GalleryStore) -> None:
    metadata = {"a": "x" * (64 * 1024 - len(json.dumps({"a": ""}, separators=(",", ":"))))}
    items = store.add(
        [Item("a" * 128, "é" * 512, CODE, metadata), Item(".", " ", CODE), Item("_:-", "\n", CODE, {"": ""})]
    )
    assert [store.get(item.id) for item in items] == items


def test_metadata_nested_too_deeply_is_refused(store: GalleryStore) -> None:
    metadata: dict = {}
    inner = metadata
    for _ in range(100_000):
        inner["a"] = {}
        inner = inner["a"]
    with pytest.raises(InvalidItem):
        store.add([Item("a", "a", CODE, metadata)])
    while metadata:  # taken apart piece by piece: the interpreter itself would recurse
        metadata = metadata.pop("a")


def test_adding_nothing_is_no_error(store: GalleryStore) -> None:
    assert store.add([]) == []
    assert store.add_each([]) == []
    assert store.remove([]) == 0


@pytest.mark.parametrize("on_duplicate", ["add", "return", "reject"])
def test_an_existing_id_is_refused_whatever_the_code(store: GalleryStore, on_duplicate: str) -> None:
    store.add([Item("a", "first", CODE)])
    with pytest.raises(ItemExists) as caught:
        store.add([Item("b", "b", bytes(8)), Item("a", "second", CODE)], on_duplicate)
    assert caught.value.id == "a"
    assert [item.label for item in store.list().items] == ["first"]


def test_an_id_twice_in_one_call_is_refused(store: GalleryStore) -> None:
    with pytest.raises(ItemExists):
        store.add([Item("a", "x", CODE), Item("a", "y", bytes(8))])
    assert len(store) == 0


def test_equal_codes_are_added_returned_or_rejected(store: GalleryStore) -> None:
    first, second = store.add([Item("b", "x", CODE), Item("a", "y", CODE)])
    assert (first.id, second.id) == ("b", "a")
    returned = store.add([Item("c", "z", CODE), Item("d", "z", bytes(8))], on_duplicate="return")
    assert [item.id for item in returned] == ["a", "d"]  # "a" is the smallest id with this code
    assert returned[0] == second
    with pytest.raises(DuplicateCode) as caught:
        store.add([Item("e", "z", b"new code"), Item("f", "z", CODE)], on_duplicate="reject")
    assert caught.value.existing == second
    assert [item.id for item in store.list().items] == ["a", "b", "d"]


def test_equal_codes_within_one_call(store: GalleryStore) -> None:
    returned = store.add([Item(None, "x", CODE), Item("b", "y", CODE), Item("b", "z", CODE)], "return")
    assert len(store) == 1
    assert returned[0] == returned[1] == returned[2] == store.list().items[0]
    with pytest.raises(DuplicateCode):
        store.add([Item("c", "x", bytes(8)), Item("d", "y", bytes(8))], "reject")
    assert len(store) == 1


def test_codes_with_equal_beginnings_are_no_duplicates(open_store: Callable[..., GalleryStore]) -> None:
    store = open_store(bits=128)
    store.add([Item("a", "x", CODE + bytes(8))])
    assert store.add([Item("b", "x", CODE + CODE)], "return")[0].id == "b"
    assert store.add([Item("c", "x", CODE + CODE)], "return")[0].id == "b"


def test_add_each_stores_what_can_be_stored(store: GalleryStore) -> None:
    store.add([Item("old", "x", CODE)])
    results = store.add_each(
        [
            Item("old", "x", bytes(8)),
            Item("bad id", "x", bytes(8)),
            Item("a", "x", CODE),
            Item("b", "x", b"b" * 8),
            Item("c", "x", b"b" * 8),
            Item(None, "x", b"d" * 8),
        ],
        on_duplicate="reject",
    )
    assert [type(result) for result in results] == [
        ItemExists,
        InvalidItem,
        DuplicateCode,
        Item,
        DuplicateCode,
        Item,
    ]
    assert (results[2].existing.id, results[4].existing) == ("old", results[3])
    assert {item.id for item in store.list().items} == {"old", "b", results[5].id}


def test_add_each_tells_items_that_were_there_from_those_it_made(store: GalleryStore) -> None:
    (old,) = store.add([Item("old", "x", CODE)])
    results = store.add_each(
        [Item(name, "x", code) for name, code in (("a", CODE), ("b", bytes(8)), ("c", bytes(8)))], "return"
    )
    assert results == [Existing(old), store.get("b"), Existing(store.get("b"))]
    assert len(store) == 2


def test_an_unknown_way_with_duplicates_is_refused(store: GalleryStore) -> None:
    with pytest.raises(InvalidQuery):
        store.add([Item("a", "a", CODE)], on_duplicate="overwrite")


# Replacing and removing


def test_a_replaced_item_is_found_as_the_new_one_only(store: GalleryStore) -> None:
    (old,) = store.add([Item("a", "old", CODE, {"v": 1}, "old.jpg")])
    new = store.replace(Item("a", "new", bytes(8), {"v": 2}))
    assert (new.label, new.code, new.metadata, new.source) == ("new", bytes(8), {"v": 2}, None)
    assert new.created_at == old.created_at
    assert store.get("a") == new
    assert len(store) == 1
    (result,) = store.search(np.frombuffer(CODE, np.uint8)[None], 64, 10)
    assert result.matches == [Match("a", "new", sum(byte.bit_count() for byte in CODE), {"v": 2})]
    assert not store.has_source("old.jpg")


def test_only_what_exists_can_be_replaced(store: GalleryStore) -> None:
    with pytest.raises(ItemNotFound) as caught:
        store.replace(Item("a", "new", CODE))
    assert caught.value.id == "a"
    with pytest.raises(InvalidItem):
        store.replace(Item(None, "new", CODE))
    store.add([Item("a", "old", CODE)])
    with pytest.raises(InvalidItem):
        store.replace(Item("a", "new", CODE[:3]))
    assert store.get("a").label == "old"


def test_removed_items_are_gone_and_unknown_ids_are_passed_over(store: GalleryStore) -> None:
    store.add([Item(name, name, CODE) for name in "abcd"])
    assert store.remove(["b", "zz", "b", "d", "bad id\udc00", "é"]) == 2
    assert store.remove(["b"]) == 0
    assert [item.id for item in store.list().items] == ["a", "c"]
    assert matches(store.search(np.frombuffer(CODE, np.uint8)[None], 0, 10)[0]) == [(0, "a"), (0, "c")]
    store.add([Item("b", "again", CODE)])
    assert store.get("b").label == "again"


def test_a_label_is_removed_exactly(store: GalleryStore) -> None:
    store.add([Item(None, label, CODE) for label in ("tea", "Tea", "tea ") for n in range(3)])
    assert store.remove_label("tea") == 3
    assert store.remove_label("tea") == 0
    assert {item.label for item in store.list().items} == {"Tea", "tea "}
    with pytest.raises(InvalidQuery):
        store.remove_label("")


# Searching


def test_a_radius_equal_to_the_distance_finds_and_one_less_does_not(store: GalleryStore, tools) -> None:
    for distance in (0, 1, 7, 32, 63, 64):
        (item,) = store.add([Item(None, f"at {distance}", CODE)])
        query = tools.as_codes([tools.flip(CODE, *range(distance))])
        (result,) = store.search(query, distance, 10)
        assert result.matches == [Match(item.id, f"at {distance}", distance, {})]
        if distance:
            assert store.search(query, distance - 1, 10)[0].matches == []
        store.remove([item.id])


def test_the_first_feature_is_the_highest_bit(store: GalleryStore) -> None:
    features = np.zeros(64, dtype=np.uint8)
    features[[0, 9]] = 1
    store.add([Item("a", "a", np.packbits(features).tobytes())])
    assert store.get("a").code == bytes([0x80, 0x40, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("bits", [8, 24, 64, 128, 512])
def test_search_agrees_with_counting_bits(
    open_store: Callable[..., GalleryStore], tools, rng: random.Random, bits: int
) -> None:
    store, oracle = open_store(bits=bits), tools.Oracle()
    items = random_items(rng, 700, code_bytes=bits // 8)
    oracle.put(*store.add(items))
    queries = [item.code for item in rng.sample(items, 3)] + [rng.randbytes(bits // 8)]
    for radius in (0, 1, bits // 4, bits):
        for top_k in (1, 5, 100, 699, 700, 5000):
            for label in (None, "label 3", "no such label"):
                results = store.search(tools.as_codes(queries), radius, top_k, label)
                expected = [oracle.search(query, radius, top_k, label) for query in queries]
                assert [tools.as_pairs(result) for result in results] == expected
        for label in (None, "label 3"):
            nearest = store.nearest(tools.as_codes(queries), radius, label)
            expected = [oracle.nearest(query, radius, label) for query in queries]
            assert [match and (match.distance, match.id) for match in nearest] == expected


def test_ties_are_ordered_by_id_as_bytes(store: GalleryStore, tools, rng: random.Random) -> None:
    ids = ["a", "B", "b", "Z", "-", ".", "_", ":", "0", "10", "9", "a0", "a-", "a:", "A" * 128]
    rng.shuffle(ids)
    store.add([Item(item_id, "x", CODE) for item_id in ids])
    in_order = sorted(ids, key=str.encode)
    for top_k in range(1, len(ids) + 2):
        (result,) = store.search(tools.as_codes([CODE]), 0, top_k)
        assert [match.id for match in result.matches] == in_order[:top_k]
        assert result.truncated == (top_k < len(ids))


def test_a_tie_far_larger_than_top_k_is_ordered_too(store: GalleryStore, tools, rng: random.Random) -> None:
    ids = [f"{rng.randrange(10**12):x}" for _ in range(3000)]
    store.add([Item(item_id, "x", CODE) for item_id in ids])
    store.add([Item("nearest", "x", bytes(8))])
    (result,) = store.search(tools.as_codes([bytes(8)]), 64, 4)
    assert [match.id for match in result.matches] == ["nearest", *sorted(ids)[:3]]
    assert result.truncated


def test_truncated_says_that_more_lay_inside_the_radius(store: GalleryStore, tools) -> None:
    store.add([Item(str(n), "x", tools.flip(CODE, *range(n))) for n in range(10)])
    for radius in range(10):
        for top_k in range(1, 12):
            (result,) = store.search(tools.as_codes([CODE]), radius, top_k)
            assert len(result.matches) == min(top_k, radius + 1)
            assert result.truncated == (radius + 1 > top_k)


def test_a_label_counts_before_top_k(store: GalleryStore, tools) -> None:
    store.add([Item(f"near-{n:04}", "near", CODE) for n in range(200)])
    store.add([Item("far", "far", tools.flip(CODE, 0, 1, 2))])
    (result,) = store.search(tools.as_codes([CODE]), 10, 1, label="far")
    assert matches(result) == [(3, "far")]
    assert not result.truncated


def test_many_queries_are_answered_in_order(store: GalleryStore, tools, rng: random.Random) -> None:
    oracle = tools.Oracle()
    oracle.put(*store.add(random_items(rng, 300)))
    queries = [rng.randbytes(8) for _ in range(150)]
    results = store.search(tools.as_codes(queries), 40, 3)
    assert [tools.as_pairs(result) for result in results] == [oracle.search(q, 40, 3) for q in queries]
    assert store.search(np.empty((0, 8), dtype=np.uint8), 40, 3) == []


def test_an_empty_gallery_finds_nothing(store: GalleryStore, tools) -> None:
    (result,) = store.search(tools.as_codes([CODE]), 64, 10)
    assert (result.matches, result.truncated) == ([], False)
    assert store.nearest(tools.as_codes([CODE]), 0) == [None]
    assert store.list().items == []
    assert store.list().next_cursor is None


@pytest.mark.parametrize(
    "codes",
    [
        CODE,
        [list(CODE)],
        np.frombuffer(CODE, np.uint8),
        np.frombuffer(CODE, np.int8)[None],
        np.frombuffer(CODE, np.uint8)[None].astype(np.int64),
        np.zeros((1, 7), np.uint8),
        np.zeros((1, 9), np.uint8),
        np.zeros((1, 1, 8), np.uint8),
        np.zeros((8, 4), np.uint8).T,
        np.zeros((2, 16), np.uint8)[:, ::2],
    ],
)
def test_query_codes_are_refused_rather_than_cast(store: GalleryStore, codes: object) -> None:
    with pytest.raises(InvalidQuery):
        store.search(codes, 10, 1)
    with pytest.raises(InvalidQuery):
        store.nearest(codes, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hamming_radius": -1},
        {"hamming_radius": 65},
        {"hamming_radius": 1.0},
        {"hamming_radius": True},
        {"hamming_radius": None},
        {"top_k": 0},
        {"top_k": -3},
        {"top_k": "5"},
        {"label": ""},
        {"label": "x" * 513},
        {"label": 3},
        {"nprobe": 0},
        {"ef_search": "many"},
    ],
)
def test_impossible_searches_are_refused(store: GalleryStore, tools, wrong: dict) -> None:
    with pytest.raises(InvalidQuery):
        store.search(tools.as_codes([CODE]), **{"hamming_radius": 10, "top_k": 1, **wrong})


def test_numbers_of_numpy_are_numbers(store: GalleryStore, tools) -> None:
    store.add([Item("a", "a", CODE)])
    (result,) = store.search(tools.as_codes([CODE]), np.int64(64), np.int32(1), nprobe=4, ef_search=16)
    assert type(result.matches[0].distance) is int


# Listing


def test_a_walk_gives_every_item_once_by_id(store: GalleryStore, tools, rng: random.Random) -> None:
    ids = [item.id for item in store.add(random_items(rng, 230))]
    for limit in (1, 7, 229, 230, 231):
        assert [item.id for item in tools.walk(store, limit)] == sorted(ids)
    labelled = [item.id for item in tools.walk(store, 7, "label 2")]
    assert labelled == sorted(item.id for item in tools.walk(store) if item.label == "label 2")
    assert store.list(limit=10, label="no such").items == []


def test_what_stays_throughout_a_walk_appears_exactly_once(store: GalleryStore, rng: random.Random) -> None:
    stay = {item.id for item in store.add(random_items(rng, 200))}
    others = [item.id for item in store.add(random_items(rng, 200))]
    seen, cursor, number = [], None, 0
    while True:
        page = store.list(cursor, limit=9)
        seen += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        # The item at the cursor goes, its neighbours are replaced, others come before and after it.
        if page.items[-1].id in others:
            store.remove([page.items[-1].id])
        some = rng.choice(sorted(stay))
        store.replace(Item(some, "replaced", rng.randbytes(8)))
        number += 1
        store.add([Item(f"{prefix}{number}", "new", CODE) for prefix in ("0", "item-5", "zz")])
    assert seen == sorted(set(seen))
    assert stay <= set(seen)


@pytest.mark.parametrize("cursor", ["*", "a b", "====", "é", "YQ\n", 5, b"YQ", "/w"])
def test_a_cursor_that_no_listing_gave_is_refused(store: GalleryStore, cursor: object) -> None:
    with pytest.raises(InvalidQuery):
        store.list(cursor)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": -1}, {"limit": "9"}, {"label": ""}])
def test_impossible_listings_are_refused(store: GalleryStore, wrong: dict) -> None:
    with pytest.raises(InvalidQuery):
        store.list(**wrong)


def test_unknown_ids_are_not_there(store: GalleryStore) -> None:
    store.add([Item("a", "a", CODE)])
    assert [store.get(item_id) for item_id in ("A", "a ", "", "é", "\udc00", "a\0", None)] == [None] * 7


def test_sources_are_found_and_walked_over(store: GalleryStore) -> None:
    store.add([Item(f"{n:05}", "x", CODE, {}, f"{n}.jpg" if n % 2 else None) for n in range(2500)])
    assert store.has_source("1.jpg")
    assert not store.has_source("2.jpg")
    assert list(store.sources()) == [(f"{n:05}", f"{n}.jpg") for n in range(1, 2500, 2)]
    store.add([Item("01000y", "y", CODE, {}, "y.jpg"), Item("z", "z", CODE)])
    assert list(store.sources("x")) == [(f"{n:05}", f"{n}.jpg") for n in range(1, 2500, 2)]
    assert list(store.sources("y")) == [("01000y", "y.jpg")]
    assert list(store.sources("z")) == []


# Opening


def test_stats_describe_the_index(store: GalleryStore) -> None:
    store.add([Item(None, "x", CODE)] * 10)
    stats = store.stats()
    assert (stats.method, stats.bits, stats.items, stats.model_fingerprint) == ("Flat", 64, 10, "m1")
    assert stats.bytes >= 10 * 16
    assert stats.rebuild_progress is None
    assert (store.bits, store.fingerprint, store.method) == (64, "m1", "Flat")
    assert store.background_error is None
    store.check_writable()


def test_everything_is_there_after_opening_again(open_store, tools, rng: random.Random) -> None:
    oracle = tools.Oracle()
    with open_store() as store:
        oracle.put(*store.add(random_items(rng, 100)))
    for bits, fingerprint in ((64, "m1"), (None, None), (64, None), (None, "m1")):
        with open_store(bits=bits, fingerprint=fingerprint) as store:
            assert (store.bits, store.fingerprint) == (64, "m1")
            oracle.check(store, [CODE, bytes(8)])


def test_codes_of_another_model_or_length_are_a_mismatch(open_store, folder) -> None:
    open_store().close()
    for bits, fingerprint in ((64, "m2"), (128, "m1"), (128, None), (None, "m2")):
        with pytest.raises(FingerprintMismatch) as caught:
            open_store(bits=bits, fingerprint=fingerprint)
        assert (caught.value.stored, caught.value.given) == ("m1", fingerprint)
        assert (caught.value.stored_bits, caught.value.given_bits) == (64, bits or 64)
    open_store().close()  # the refused ones left the folder free


def test_a_gallery_made_without_fingerprint_has_none(open_store) -> None:
    open_store(fingerprint=None).close()
    with open_store(bits=None, fingerprint=None) as store:
        assert store.fingerprint is None
    with pytest.raises(FingerprintMismatch):
        open_store(fingerprint="m1")


def test_a_gallery_that_is_not_there_is_not_found(open_store, folder) -> None:
    with pytest.raises(GalleryNotFound):
        open_store(bits=None)
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(GalleryNotFound):
        open_store(bits=None)
    assert list(folder.iterdir()) == []


def test_folders_above_are_made(open_store, tmp_path) -> None:
    with open_store(path=tmp_path / "a" / "b") as store:
        assert store.path == tmp_path / "a" / "b"


def test_a_file_is_no_folder(open_store, folder) -> None:
    folder.write_text("x")
    with pytest.raises(StorageUnavailable, match="not a folder"):
        open_store()


@pytest.mark.parametrize("bits", [0, -8, 12, 64.0, "64", True])
def test_impossible_lengths_of_codes_are_refused(open_store, folder, bits: object) -> None:
    with pytest.raises(InvalidQuery):
        open_store(bits=bits)
    assert not folder.exists()


def test_methods_are_named_in_any_case(folder) -> None:
    for method in ("Flat", "flat", "FLAT", "auto", "Auto", "ivf", "IVF", "hnsw32", "HNSW32"):
        with open_gallery(folder, 64, method) as store:
            assert store.method.casefold() == method.casefold()
    for method in ("LSH", "", 1):
        with pytest.raises(InvalidQuery, match="there is no index method"):
            open_gallery(folder, 64, method)
    with pytest.raises(InvalidQuery):
        open_gallery(folder, 64, threads=0)


def test_a_closed_store_says_so(store: GalleryStore, tools) -> None:
    store.add([Item("a", "a", CODE)])
    sources = store.sources()
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.add([Item(None, "a", CODE)]),
        lambda: store.add_each([Item(None, "a", CODE)]),
        lambda: store.replace(Item("a", "b", CODE)),
        lambda: store.remove(["a"]),
        lambda: store.remove_label("a"),
        lambda: store.search(tools.as_codes([CODE]), 1, 1),
        lambda: store.nearest(tools.as_codes([CODE]), 1),
        lambda: store.get("a"),
        store.list,
        lambda: store.has_source("a"),
        lambda: next(sources),
        lambda: len(store),
        store.stats,
        store.snapshot,
        store.rebuild,
        lambda: store.recode([], 64, "m2"),
        store.check_writable,
    ]
    for call in calls:
        with pytest.raises(GalleryClosed):
            call()
    assert store.bits == 64


def test_every_error_is_a_gallery_error() -> None:
    import index_store

    errors = [value for value in vars(index_store).values() if isinstance(value, type)]
    errors = [error for error in errors if issubclass(error, Exception)]
    assert len(errors) >= 14
    assert all(issubclass(error, GalleryError) for error in errors)
