"""Items and their pictures change together, also when others change them at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index_store import DiskFull, DuplicateCode, GalleryStore, InvalidItem, Item, ItemExists, ItemNotFound, open_gallery
from service.enrolment import Draft, Enroller
from service.pictures import KeptPictures
from service.timing import StageTimes

CODE = bytes(8)
OTHER = b"\xff" * 8


class Meddling:
    """A store, but somebody else acts right after the first look at an item."""

    def __init__(self, store: GalleryStore, act: Callable[[], object]) -> None:
        self._store = store
        self._act: Callable[[], object] | None = act

    def get(self, item_id: str) -> Item | None:
        item = self._store.get(item_id)
        act, self._act = self._act, None
        if act is not None:
            act()
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GalleryStore]:
    with open_gallery(tmp_path / "gallery", 64, fingerprint="test") as store:
        yield store


@pytest.fixture
def pictures(tmp_path: Path, store: GalleryStore) -> KeptPictures:
    return KeptPictures(tmp_path / "images", store.has_source, store.check_room)


@pytest.fixture
def enroller(store: GalleryStore, pictures: KeptPictures) -> Enroller:
    return Enroller(store, pictures)


def kept(tmp_path: Path) -> set[bytes]:
    return {path.read_bytes() for path in (tmp_path / "images").rglob("*") if path.is_file()}


def picture_of(store: GalleryStore, pictures: KeptPictures, item_id: str) -> bytes | None:
    item = store.get(item_id)
    assert item is not None
    return pictures.read(item.source) if item.source is not None else None


def test_each_draft_has_its_outcome(tmp_path: Path, store: GalleryStore, enroller: Enroller) -> None:
    store.add([Item("taken", "x", CODE)])
    times = StageTimes()
    outcomes = enroller.add(
        [
            Draft("a", "x", {}, OTHER, b"A"),
            Draft("taken", "x", {}, OTHER, b"B"),
            Draft("b", "", {}, OTHER, b"C"),
            Draft("c", "x", {}, CODE, b"D"),
        ],
        "reject",
        times,
    )
    assert [type(outcome) for outcome in outcomes] == [Item, ItemExists, InvalidItem, DuplicateCode]
    assert kept(tmp_path) == {b"A"}
    assert set(times.seconds) == {"persist"}


def test_no_room_for_the_items_leaves_no_picture(tmp_path: Path, store: GalleryStore, pictures: KeptPictures) -> None:
    class Full(Meddling):
        def add_each(self, *_: object) -> None:
            raise DiskFull("no room left")

    full: Any = Full(store, lambda: None)
    with pytest.raises(DiskFull):
        Enroller(full, pictures).add([Draft("a", "x", {}, CODE, b"A")], "add", StageTimes())
    assert kept(tmp_path) == set()


def test_a_new_picture_takes_the_place_of_the_old(tmp_path: Path, enroller: Enroller) -> None:
    enroller.add([Draft("a", "x", {}, CODE, b"A")], "add", StageTimes())
    item = enroller.replace(Draft("a", "y", {}, OTHER, b"B"), StageTimes())
    assert (item.label, item.code) == ("y", OTHER)
    assert kept(tmp_path) == {b"B"}


def test_the_picture_stays_with_an_equal_code_only(
    tmp_path: Path, store: GalleryStore, pictures: KeptPictures, enroller: Enroller
) -> None:
    enroller.add([Draft("a", "x", {}, CODE, b"A")], "add", StageTimes())
    enroller.replace(Draft("a", "renamed", {}, CODE), StageTimes())
    assert picture_of(store, pictures, "a") == b"A"
    enroller.replace(Draft("a", "renamed", {}, OTHER), StageTimes())
    assert picture_of(store, pictures, "a") is None
    assert kept(tmp_path) == set()


def test_replacing_nobody_keeps_nothing(tmp_path: Path, enroller: Enroller) -> None:
    with pytest.raises(ItemNotFound):
        enroller.replace(Draft("a", "x", {}, CODE, b"A"), StageTimes())
    assert kept(tmp_path) == set()


def test_a_picture_that_goes_while_its_item_is_renamed_is_not_referred_to(
    tmp_path: Path, store: GalleryStore, pictures: KeptPictures, enroller: Enroller
) -> None:
    enroller.add([Draft("a", "x", {}, CODE, b"A")], "add", StageTimes())
    meddling: Any = Meddling(store, lambda: enroller.replace(Draft("a", "theirs", {}, OTHER, b"B"), StageTimes()))
    Enroller(meddling, pictures).replace(Draft("a", "ours", {}, CODE), StageTimes())
    item = store.get("a")
    assert item is not None
    assert (item.label, item.source) == ("ours", None)
    assert kept(tmp_path) == set()


def test_an_item_that_goes_while_it_is_replaced(
    tmp_path: Path, store: GalleryStore, pictures: KeptPictures, enroller: Enroller
) -> None:
    enroller.add([Draft("a", "x", {}, CODE, b"A")], "add", StageTimes())
    meddling: Any = Meddling(store, lambda: enroller.remove(["a"]))
    with pytest.raises(ItemNotFound):
        Enroller(meddling, pictures).replace(Draft("a", "ours", {}, OTHER, b"B"), StageTimes())
    assert len(store) == 0
    assert kept(tmp_path) == set()


def test_a_label_goes_without_a_look_at_items_that_have_no_picture(store: GalleryStore, pictures: KeptPictures) -> None:
    class Unlisted(Meddling):
        def list(self, *_: object) -> None:
            raise AssertionError("every item was read")

    store.add([Item(None, "x", CODE)] * 3)
    unlisted: Any = Unlisted(store, lambda: None)
    assert Enroller(unlisted, pictures).remove_label("x") == 3


def test_a_label_goes_with_its_pictures(tmp_path: Path, enroller: Enroller) -> None:
    drafts = [
        Draft(None, "x", {}, CODE, b"same"),
        Draft(None, "x", {}, CODE, b"X"),
        Draft(None, "y", {}, CODE, b"same"),
    ]
    enroller.add(drafts, "add", StageTimes())
    assert enroller.remove_label("x") == 2
    assert kept(tmp_path) == {b"same"}
    assert enroller.remove_label("x") == 0
