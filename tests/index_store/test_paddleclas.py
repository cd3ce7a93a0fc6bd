"""PaddleClas's galleries: index files of every kind that Faiss writes, read without it, and the way back."""

from __future__ import annotations

import os
import pickle
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from index_store import (
    DiskFull,
    ExportExists,
    ForeignGallery,
    InvalidQuery,
    Item,
    open_gallery,
    read_paddleclas,
    write_paddleclas,
)
from index_store.binary_index_file import read_binary_index

COUNT, CODE_SIZE = 120, 8
BITS = CODE_SIZE * 8
IDS = np.arange(COUNT, dtype=np.int64)
OTHER_IDS = IDS[::-1] * 7 - 400  # descending, some of them negative


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (COUNT, CODE_SIZE), dtype=np.uint8)


def factory(description: str, codes: np.ndarray) -> Any:
    index = faiss.index_binary_factory(BITS, description)
    if "IVF" in description:
        index.cp.min_points_per_centroid = 1
        index.train(codes)
    return index


def built(description: str) -> Callable[[np.ndarray], Any]:
    def build(codes: np.ndarray) -> Any:
        index = factory(description, codes)
        index.add(codes)
        return index

    return build


def mapped(wrapper: str, description: str) -> Callable[[np.ndarray], Any]:
    def build(codes: np.ndarray) -> Any:
        index = getattr(faiss, wrapper)(factory(description, codes))
        index.add_with_ids(codes, OTHER_IDS)
        return index

    return build


def with_direct_map(codes: np.ndarray) -> Any:
    index = built("BIVF6")(codes)
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return index


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "Flat": built("BFlat"),
    "IVF": built("BIVF6"),
    "HNSW": built("BHNSW32"),
    "IVF with a graph as quantizer": built("BIVF6_HNSW32"),
    "IVF with a direct map": with_direct_map,
    "IDMap of Flat": mapped("IndexBinaryIDMap", "BFlat"),
    "IDMap2 of Flat": mapped("IndexBinaryIDMap2", "BFlat"),
    "IDMap2 of IVF": mapped("IndexBinaryIDMap2", "BIVF6"),
    "IDMap of HNSW": mapped("IndexBinaryIDMap", "BHNSW32"),
}


def index_bytes(kind: str, codes: np.ndarray) -> bytes:
    return faiss.serialize_index_binary(KINDS[kind](codes)).tobytes()


def save(folder: Path, index: Any, id_map: Any) -> Path:
    folder.mkdir(exist_ok=True)
    faiss.write_index_binary(index, str(folder / "vector.index"))
    (folder / "id_map.pkl").write_bytes(pickle.dumps(id_map))
    return folder


def put(folder: Path, index: bytes, id_map: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vector.index").write_bytes(index)
    (folder / "id_map.pkl").write_bytes(id_map)
    return folder


# Reading


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_texts_of_every_kind_are_read_in_the_order_of_the_index(
    folder: Path, codes: np.ndarray, kind: str
) -> None:
    ids = OTHER_IDS if kind.startswith("IDMap") else IDS
    id_map = {number: f"{number}.jpg\tlabel {number} 饮料" for number in ids}
    gallery = read_paddleclas(save(folder, KINDS[kind](codes), dict(sorted(id_map.items()))))
    assert gallery.bits == BITS
    assert gallery.codes.dtype == np.uint8
    np.testing.assert_array_equal(gallery.codes, codes)
    assert gallery.texts == list(id_map.values())


def test_an_ivf_index_most_of_whose_lists_are_empty_is_read(folder: Path, codes: np.ndarray) -> None:
    index = factory("BIVF60", codes)
    index.add(codes[:10])
    assert b"sprs" in faiss.serialize_index_binary(index).tobytes()
    gallery = read_paddleclas(save(folder, index, {number: f"text {number}" for number in range(10)}))
    np.testing.assert_array_equal(gallery.codes, codes[:10])
    assert gallery.texts == [f"text {number}" for number in range(10)]


def test_an_ivf_index_that_lost_vectors_is_read_by_the_ids_that_are_left(folder: Path, codes: np.ndarray) -> None:
    index = built("BIVF6")(codes)
    index.remove_ids(IDS[10:20])
    left = np.delete(IDS, np.s_[10:20])
    gallery = read_paddleclas(save(folder, index, {number: f"text {number}" for number in left}))
    np.testing.assert_array_equal(gallery.codes, codes[left])
    assert gallery.texts == [f"text {number}" for number in left]


@pytest.mark.parametrize("description", ["BFlat", "BIVF6", "BHNSW32"])
def test_an_empty_index_is_an_empty_gallery(folder: Path, codes: np.ndarray, description: str) -> None:
    gallery = read_paddleclas(save(folder, factory(description, codes), {}))
    assert (gallery.codes.shape, gallery.texts) == ((0, CODE_SIZE), [])


# Indexes that are not read


def test_an_index_of_float_features_is_refused_by_name(folder: Path) -> None:
    flat = faiss.IndexFlatIP(16)
    for index in (flat, faiss.IndexIDMap2(flat), faiss.index_factory(16, "HNSW32")):
        folder.mkdir(exist_ok=True)
        faiss.write_index(index, str(folder / "vector.index"))
        (folder / "id_map.pkl").write_bytes(pickle.dumps({}))
        with pytest.raises(ForeignGallery, match=r"vector\.index: it holds float features"):
            read_paddleclas(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cut short"),
        (b"PK\x03\x04" + bytes(400), "no Faiss index"),
        (b"IBHh" + bytes(400), "kind that is not imported"),
        (b"IBxF" + bytes(400), "makes no sense"),
    ],
)
def test_a_file_of_something_else_is_refused(folder: Path, content: bytes, says: str) -> None:
    with pytest.raises(ForeignGallery, match=says):
        read_paddleclas(put(folder, content, pickle.dumps({})))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_refused(folder: Path, codes: np.ndarray, kind: str) -> None:
    whole = index_bytes(kind, codes)
    folder.mkdir()
    path = folder / "vector.index"
    for length in {*range(0, 300, 11), *range(300, len(whole), len(whole) // 10), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ForeignGallery):
            read_binary_index(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ForeignGallery, match="follow the index"):
        read_binary_index(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_leaves_a_whole_index(
    folder: Path, codes: np.ndarray, kind: str, rng: random.Random
) -> None:
    whole = index_bytes(kind, codes)
    folder.mkdir()
    path = folder / "vector.index"
    for _ in range(40):
        damaged = bytearray(whole)
        place = rng.randrange(min(len(whole), 500) - 8)
        damaged[place : place + 8] = rng.choice([rng.randbytes(8), b"\xff" * 8, struct.pack("<Q", 1 << 40)])
        path.write_bytes(damaged)
        try:
            vectors = read_binary_index(path)
        except ForeignGallery:
            continue
        assert vectors.codes.size <= len(whole)
        assert vectors.ids.shape == (len(vectors.codes),)


@pytest.mark.parametrize("count", [1 << 40, 1 << 62, -1])
def test_a_header_that_promises_more_than_the_file_has_costs_no_memory(
    folder: Path, codes: np.ndarray, count: int
) -> None:
    whole = bytearray(index_bytes("Flat", codes))
    struct.pack_into("<q", whole, 12, count)
    struct.pack_into("<Q", whole, 25, max(count, 0) * CODE_SIZE % (1 << 64))
    with pytest.raises(ForeignGallery):
        read_paddleclas(put(folder, whole, pickle.dumps({})))


# Two files that do not belong together


@pytest.mark.parametrize(
    ("id_map", "says"),
    [
        (dict.fromkeys(range(COUNT - 1), "x"), "1 of the index's 120 vectors have no entry"),
        (dict.fromkeys(range(COUNT + 1), "x"), "more ids than the index has vectors"),
        (dict.fromkeys(range(1, COUNT + 1), "x"), r"ids 0\)"),
        ({}, r"120 of the index's 120 vectors have no entry \(ids 0, 1, 2, ...\)"),
    ],
)
def test_ids_that_do_not_match_the_vectors_are_refused(
    folder: Path, codes: np.ndarray, id_map: dict[int, str], says: str
) -> None:
    with pytest.raises(ForeignGallery, match=says):
        read_paddleclas(save(folder, built("BFlat")(codes), id_map))


def test_an_index_with_an_id_twice_is_refused(folder: Path, codes: np.ndarray) -> None:
    index = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(BITS))
    index.add_with_ids(codes[:3], np.array([0, 1, 1]))
    with pytest.raises(ForeignGallery, match="twice"):
        read_paddleclas(save(folder, index, {0: "a", 1: "b"}))


@pytest.mark.parametrize("name", ["vector.index", "id_map.pkl"])
def test_a_missing_file_or_one_that_is_none_is_refused(folder: Path, codes: np.ndarray, name: str) -> None:
    save(folder, built("BFlat")(codes[:1]), {0: "a"})
    (folder / name).unlink()
    with pytest.raises(ForeignGallery, match=rf"{name} cannot be read \(No such file"):
        read_paddleclas(folder)
    os.mkfifo(folder / name)
    with pytest.raises(ForeignGallery, match="is no file"):
        read_paddleclas(folder)


def test_an_id_map_larger_than_its_vectors_warrant_is_refused_unread(folder: Path, codes: np.ndarray) -> None:
    save(folder, built("BFlat")(codes[:2]), {0: "a", 1: "b" * 200_000})
    with pytest.raises(ForeignGallery, match="larger than"):
        read_paddleclas(folder)


# Writing


@pytest.mark.parametrize("method", ["Flat", "IVF", "HNSW32"])
def test_faiss_and_pickle_read_what_is_written(folder: Path, codes: np.ndarray, method: str) -> None:
    texts = [f"{number}.jpg\tlabel {number} 饮料" for number in range(COUNT)]
    told: list[tuple[int, int]] = []
    items = zip(map(bytes, codes), texts, strict=True)
    target = folder / "new" / "index"
    write_paddleclas(target, items, COUNT, BITS, method=method, progress=lambda *done: told.append(done))
    assert told == [(COUNT, COUNT)]
    assert sorted(path.name for path in target.iterdir()) == ["id_map.pkl", "vector.index"]
    index = faiss.read_index_binary(str(target / "vector.index"))
    with (target / "id_map.pkl").open("rb") as file:
        id_map = pickle.load(file)
    assert id_map == dict(enumerate(texts))
    assert {type(key) for key in id_map} == {int}
    distances, found = index.search(codes, 1)
    assert (distances[:, 0] == 0).all()
    if method != "HNSW32":  # a graph may miss one
        assert found[:, 0].tolist() == IDS.tolist()
    gallery = read_paddleclas(target)
    np.testing.assert_array_equal(gallery.codes, codes)
    assert gallery.texts == texts


def test_the_reference_gallery_comes_back_byte_for_byte(folder: Path, shared: Path) -> None:
    source = shared / "parity" / "paddleclas_index"
    gallery = read_paddleclas(source)
    np.testing.assert_array_equal(gallery.codes, np.load(source / "codes.npy"))
    write_paddleclas(folder, zip(map(bytes, gallery.codes), gallery.texts, strict=True), 200, 512)
    assert (folder / "vector.index").read_bytes() == (source / "vector.index").read_bytes()
    with (folder / "id_map.pkl").open("rb") as ours, (source / "id_map.pkl").open("rb") as theirs:
        assert pickle.load(ours) == pickle.load(theirs)


def test_what_is_there_is_overwritten_only_on_demand(folder: Path, codes: np.ndarray) -> None:
    write_paddleclas(folder, [(bytes(codes[0]), "old")], 1, BITS)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for missing, content in before.items():
        missing.unlink()
        with pytest.raises(ExportExists, match="exists"):
            write_paddleclas(folder, [(bytes(codes[1]), "new")], 1, BITS)
        missing.write_bytes(content)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    write_paddleclas(folder, [(bytes(codes[1]), "new")], 1, BITS, overwrite=True)
    assert read_paddleclas(folder).texts == ["new"]


def test_a_full_disk_leaves_the_old_export(folder: Path, codes: np.ndarray) -> None:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        write_paddleclas(folder, [(bytes(codes[0]), "old")], 1, BITS)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        many = ((bytes(CODE_SIZE), "new") for _ in range(10_000))
        with pytest.raises(DiskFull):
            write_paddleclas(folder, many, 10_000, BITS, overwrite=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("method", "count"), [("PQ", 1), ("IVF", 0)])
def test_a_method_that_cannot_be_is_refused_and_writes_nothing(folder: Path, method: str, count: int) -> None:
    with pytest.raises(InvalidQuery):
        write_paddleclas(folder, [(bytes(CODE_SIZE), "x")] * count, count, BITS, method=method)
    assert not folder.exists()


# The order of a gallery's items


def test_items_are_walked_in_the_order_of_storage(folder: Path, rng: random.Random) -> None:
    with open_gallery(folder, BITS) as store:
        names = [f"n{number}" for number in range(2_500)]
        rng.shuffle(names)
        for start in range(0, len(names), 900):
            store.add([Item(name, "x", rng.randbytes(CODE_SIZE)) for name in names[start : start + 900]])
        replaced = store.replace(Item(names[0], "y", bytes(CODE_SIZE)))
        store.remove(names[1:3])
        walked = list(store.in_order())
    assert [item.id for item in walked] == [*names[3:], names[0]]
    assert walked[-1] == replaced
