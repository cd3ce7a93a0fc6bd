"""Kept pictures: there as long as an item uses them, through failures and threads."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from service.pictures import KeptPictures


class Users:
    """The sources that items use, as the store would know them."""

    def __init__(self) -> None:
        self.sources: set[str] = set()

    def __call__(self, source: str) -> bool:
        return source in self.sources


def room(needed_bytes: int) -> None:
    """There is always room."""


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
def pictures(tmp_path: Path, users: Users) -> KeptPictures:
    return KeptPictures(tmp_path / "images", users, room)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "images").rglob("*") if path.is_file())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_picture_lies_under_its_digest(tmp_path: Path, pictures: KeptPictures, users: Users) -> None:
    with pictures.change() as change:
        source = change.keep(b"picture")
        users.sources.add(source)
    digest = sha256(b"picture")
    assert source == f"kept:{digest}"
    assert (tmp_path / "images" / digest[:2] / digest).read_bytes() == b"picture"
    assert pictures.read(source) == b"picture"


def test_it_is_on_disk_before_the_item_is_stored(tmp_path: Path, pictures: KeptPictures) -> None:
    with pictures.change() as change:
        change.keep(b"picture")
        assert files(tmp_path) == [sha256(b"picture")]


def test_it_goes_if_the_item_was_not_stored(tmp_path: Path, pictures: KeptPictures) -> None:
    with pytest.raises(RuntimeError), pictures.change() as change:
        change.keep(b"picture")
        raise RuntimeError("the disk is full")
    assert files(tmp_path) == []


def test_a_picture_that_cannot_be_removed_does_not_fail_the_change(
    tmp_path: Path, pictures: KeptPictures, caplog: pytest.LogCaptureFixture
) -> None:
    digest = sha256(b"picture")
    with pictures.change() as change:
        source = change.keep(b"picture")
        path = tmp_path / "images" / digest[:2] / digest
        path.unlink()
        path.mkdir()  # which unlink refuses
    assert f"{source} cannot be removed now" in caplog.text


def test_it_goes_with_the_last_item_that_uses_it(tmp_path: Path, pictures: KeptPictures, users: Users) -> None:
    with pictures.change() as change:
        source = change.keep(b"picture")
        users.sources.add(source)
    with pictures.change() as change:  # one of two items is removed
        change.touch(source)
    assert files(tmp_path) == [sha256(b"picture")]
    with pictures.change() as change:  # and the other
        change.touch(source)
        users.sources.remove(source)
    assert files(tmp_path) == []
    assert pictures.read(source) is None


def test_what_another_change_holds_stays(tmp_path: Path, pictures: KeptPictures, users: Users) -> None:
    with pictures.change() as adding:
        source = adding.keep(b"picture")
        with pictures.change() as removing:  # the last item that had the same picture goes meanwhile
            removing.touch(source)
        assert files(tmp_path) == [sha256(b"picture")]
        users.sources.add(source)
    assert files(tmp_path) == [sha256(b"picture")]


@pytest.mark.parametrize("source", [None, "file:a.jpg", "kept:../../etc/passwd", "kept:abc", "kept:" + "g" * 64])
def test_sources_of_others_are_left_alone(pictures: KeptPictures, source: str | None) -> None:
    with pictures.change() as change:
        change.touch(source)
    if source is not None:
        assert pictures.read(source) is None


def test_the_sweep_removes_what_a_crash_left(tmp_path: Path, pictures: KeptPictures, users: Users) -> None:
    with pictures.change() as change:
        users.sources |= {change.keep(b"used"), change.keep(b"orphan")}
    users.sources.remove(f"kept:{sha256(b'orphan')}")
    torn = tmp_path / "images" / sha256(b"used")[:2] / f"{sha256(b'used')}.123.tmp"
    torn.write_bytes(b"us")
    foreign = tmp_path / "images" / "notes.txt"
    foreign.write_text("not ours")

    pictures.remove_torn()
    assert sum(pictures.sweep(shard) for shard in pictures.shards()) == 1

    assert files(tmp_path) == sorted([sha256(b"used"), "notes.txt"])


def test_the_sweep_leaves_what_a_change_holds(tmp_path: Path, pictures: KeptPictures) -> None:
    with pictures.change() as change:
        change.keep(b"new")
        assert sum(pictures.sweep(shard) for shard in pictures.shards()) == 0
        assert files(tmp_path) == [sha256(b"new")]


def test_a_folder_that_is_not_there_needs_no_sweep(pictures: KeptPictures) -> None:
    pictures.remove_torn()
    assert pictures.sweep("00") == 0


def test_threads_that_add_and_remove_the_same_picture(tmp_path: Path) -> None:
    """A plain counter stands for the store: whenever an item exists, its picture must."""
    lock = threading.Lock()
    count = 0
    missing: list[str] = []
    pictures = KeptPictures(tmp_path / "images", lambda source: count > 0, room)
    path = tmp_path / "images" / sha256(b"same")[:2] / sha256(b"same")

    def work() -> None:
        nonlocal count
        for _ in range(60):
            with pictures.change() as change:
                source = change.keep(b"same")
                with lock:
                    count += 1
            if not path.exists():
                missing.append("after adding")
            with pictures.change() as change:
                change.touch(source)
                with lock:
                    count -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert files(tmp_path) == []
