"""``shitu search --draw`` and ``--boxes-only``, in a folder and over a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Draw, Server, Shitu


@pytest.fixture(scope="module")
def seeing_server(tmp_path_factory: pytest.TempPathFactory, detector_dir: Path) -> Iterator[str]:
    """Give the address of a server with a detector."""
    server = Server("--data-dir", tmp_path_factory.mktemp("served"), "--detector-dir", detector_dir)
    yield server.url()
    assert server.stop() == 0


@pytest.fixture
def ways(
    tmp_path: Path, detector_dir: Path, seeing_server: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[str]]:
    """Options for a folder and for a server, with the same detector and both without items of this test."""
    monkeypatch.setenv("SHITU_DETECTOR_DIR", str(detector_dir))
    return {"folder": ["--data-dir", str(tmp_path / "data")], "server": ["--server", seeing_server]}


def test_folder_and_server_draw_the_same(shitu: Shitu, draw: Draw, tmp_path: Path, ways: dict[str, list[str]]) -> None:
    picture = draw(f"{tmp_path}/a.png", 1)
    drawn = {}
    for name, where in ways.items():
        shitu.ok("gallery", "add", picture, "--label", "农夫山泉", "--id", "same", *where)
        plain = shitu.ok("search", picture, "--radius", 0, *where).out
        for suffix in (".png", ".jpg", ".JPEG"):
            target = tmp_path / f"{name}{suffix}"
            assert shitu.ok("search", picture, "--radius", 0, *where, "--draw", target).out == plain
            with Image.open(target) as image:
                assert image.format == ("PNG" if suffix == ".png" else "JPEG")
                assert image.size == (160, 200)
            drawn[name, suffix] = target.read_bytes()
        shitu.ok("gallery", "remove", "same", *where)
    for suffix in (".png", ".jpg", ".JPEG"):
        assert drawn["folder", suffix] == drawn["server", suffix]
    with Image.open(tmp_path / "folder.png") as image, Image.open(picture) as original:
        assert not np.array_equal(np.asarray(image), np.asarray(original.convert("RGB")))
    assert sorted(path.suffix for path in tmp_path.glob("folder.*")) == [".JPEG", ".jpg", ".png"]


def test_json_can_be_had_beside_the_drawing(
    shitu: Shitu, draw: Draw, tmp_path: Path, ways: dict[str, list[str]]
) -> None:
    picture = draw(f"{tmp_path}/a.png", 2)
    target = tmp_path / "out.png"
    target.write_bytes(b"an older drawing")
    shitu.ok("gallery", "add", picture, "--label", "x", *ways["folder"])
    assert shitu.ok("search", picture, *ways["folder"], "--draw", target, "--json").json["objects"]
    with Image.open(target) as image:
        image.load()


@pytest.mark.parametrize("target", ["out.gif", "out", "png", ".png", "out.png.txt"])
def test_other_formats_are_refused_before_anything_is_searched(shitu: Shitu, tmp_path: Path, target: str) -> None:
    answer = shitu("search", tmp_path / "none.jpg", "--draw", tmp_path / target)
    assert answer.code == 2
    assert ".png or .jpg" in " ".join(answer.err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("query", [["--code", "00"], ["--item", "x"]])
def test_a_code_has_nothing_to_draw_on(shitu: Shitu, tmp_path: Path, query: list[str]) -> None:
    answer = shitu("search", *query, "--draw", tmp_path / "out.png")
    assert answer.code == 2
    assert "IMAGE" in answer.err


def test_a_place_that_cannot_be_written_is_told(
    shitu: Shitu, draw: Draw, tmp_path: Path, ways: dict[str, list[str]]
) -> None:
    picture = draw(f"{tmp_path}/a.png", 3)
    shitu.ok("gallery", "add", picture, "--label", "x", *ways["folder"])
    (tmp_path / "folder.png").mkdir()
    for target in (tmp_path / "none" / "out.png", picture / "out.png", tmp_path / "folder.png", Path("/proc/out.png")):
        answer = shitu("search", picture, *ways["folder"], "--draw", target)
        assert answer.code == 1
        (line,) = answer.err.splitlines()
        assert line.startswith(f"shitu: {target} cannot be written: ")
        assert "object 1" in answer.out  # what was found is told all the same
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_whole_picture_can_be_left_out(
    shitu: Shitu, draw: Draw, tmp_path: Path, ways: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = draw(f"{tmp_path}/a.png", 4)
    for where in ways.values():
        shitu.ok("gallery", "add", picture, "--label", "x", "--id", "whole", *where)

        def wholes(*options: str, where: list[str] = where) -> list[bool]:
            answer = shitu.ok("search", picture, "--radius", 0, *options, *where, "--json").json
            return sorted(found["is_whole_image"] for found in answer["objects"])

        assert wholes() == wholes("--whole-image") == [False] * 3 + [True]
        assert wholes("--boxes-only") == [False] * 3
        assert wholes("--boxes-only", "--whole") == [True]
        shitu.ok("gallery", "remove", "whole", *where)
    shitu.ok("gallery", "add", picture, "--label", "x", *ways["folder"])
    monkeypatch.setenv("SHITU_WHOLE_IMAGE", "false")
    answer = shitu.ok("search", picture, *ways["folder"], "--json").json
    assert not any(found["is_whole_image"] for found in answer["objects"])
