"""Galleries of another model: what is refused, ``gallery rehash``, and building over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Draw, Server, Shitu


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """A configuration with which the same folder of weights makes other codes."""
    config = tmp_path / "other.yaml"
    config.write_text(
        "RecPreProcess:\n  transform_ops:\n    - ResizeImage:\n        size: 224\n"
        "    - NormalizeImage:\n        scale: 1.0/255.0\n"
        "        mean: [0.3, 0.5, 0.5]\n        std: [0.2, 0.25, 0.3]\n"
        "        order: ''\n    - ToCHWImage:\n"
    )
    return config


def codes(shitu: Shitu, folder: Path) -> dict[str, str]:
    listed = shitu.ok("gallery", "list", "--data-dir", folder, "--json").json_lines
    return {item["id"]: item["code"] for item in listed}


def fingerprint(shitu: Shitu, folder: Path) -> str:
    return str(shitu.ok("gallery", "info", "--data-dir", folder, "--json").json["model_fingerprint"])


def enrol(shitu: Shitu, draw: Draw, tmp_path: Path, folder: Path, count: int = 3) -> list[Path]:
    pictures = [draw(f"{tmp_path}/{number}.png", number) for number in range(count)]
    for number, picture in enumerate(pictures):
        shitu.ok("gallery", "add", picture, "--label", f"n{number}", "--id", f"n{number}", "--data-dir", folder)
    return pictures


def test_another_model_may_list_but_neither_search_nor_enrol(
    shitu: Shitu, draw: Draw, tmp_path: Path, other_model: Path
) -> None:
    folder = tmp_path / "data"
    (picture, *_) = enrol(shitu, draw, tmp_path, folder)
    other = ["--data-dir", str(folder), "--config", str(other_model)]
    assert len(shitu.ok("gallery", "list", *other, "--json").json_lines) == 3
    for command in (["search", picture], ["gallery", "add", picture, "--label", "x"]):
        answer = shitu(*command, *other)
        assert answer.code == 1
        assert "rehash" in answer.err
    assert len(codes(shitu, folder)) == 3


def test_kept_pictures_are_hashed_again(
    shitu: Shitu, draw: Draw, tmp_path: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fresh = tmp_path / "data", tmp_path / "fresh"
    monkeypatch.setenv("SHITU_KEEP_IMAGES", "1")
    pictures = enrol(shitu, draw, tmp_path, folder)
    before, old = codes(shitu, folder), fingerprint(shitu, folder)
    report = shitu.ok("gallery", "rehash", "--data-dir", folder, "--config", other_model, "--json").json
    assert report == {"items": 3, "rehashed": 3, "dropped": 0, "changed": True, "lost": []}
    after = codes(shitu, folder)
    assert after.keys() == before.keys()
    assert fingerprint(shitu, folder) != old
    for number, picture in enumerate(pictures):
        shitu.ok(
            *("gallery", "add", picture, "--label", "x", "--id", f"n{number}"),
            *("--data-dir", fresh, "--config", other_model),
        )
    assert after == codes(shitu, fresh)
    found = shitu.ok("search", pictures[1], "--whole", "--radius", 0, "-d", folder, "-c", other_model, "--json").json
    assert found["objects"][0]["matches"][0]["id"] == "n1"


def test_pictures_that_a_server_kept_are_hashed_again(
    shitu: Shitu,
    draw: Draw,
    tmp_path: Path,
    other_model: Path,
    start_server: Callable[..., Server],
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", folder, "--detector-dir", "", "--keep-images")
    url = server.url()
    shitu.ok("gallery", "add", draw(f"{tmp_path}/a.png", 1), "--label", "a", "--server", url)
    locked = shitu("gallery", "rehash", "--data-dir", folder, "--config", other_model)
    assert locked.code == 1
    server.stop()
    assert shitu.ok("gallery", "rehash", "-d", folder, "-c", other_model, "--json").json["rehashed"] == 1


def test_lost_pictures_stop_a_rehash_unless_they_may_be_dropped(
    shitu: Shitu, draw: Draw, tmp_path: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    enrol(shitu, draw, tmp_path, folder, 2)
    monkeypatch.setenv("SHITU_KEEP_IMAGES", "1")
    shitu.ok("gallery", "add", draw(f"{tmp_path}/k.png", 7), "--label", "kept", "--id", "kept", "--data-dir", folder)
    before, old = codes(shitu, folder), fingerprint(shitu, folder)
    answer = shitu("gallery", "rehash", "--data-dir", folder, "--config", other_model)
    assert answer.code == 1
    assert "nothing was changed" in answer.out
    assert "n0 (n0): its picture was not kept" in answer.err
    assert "--drop-missing" in answer.err
    assert (codes(shitu, folder), fingerprint(shitu, folder)) == (before, old)
    report = shitu.ok("gallery", "rehash", "--drop-missing", "-d", folder, "-c", other_model, "--json").json
    assert (report["rehashed"], report["dropped"], len(report["lost"])) == (1, 2, 2)
    assert list(codes(shitu, folder)) == ["kept"]


def build_config(tmp_path: Path, root: Path, lines: list[str], tail: str = "") -> Path:
    listing, config = tmp_path / "list.txt", tmp_path / "build.yaml"
    listing.write_text("\n".join(lines))
    config.write_text(
        f"IndexProcess:\n  image_root: '{root}'\n  data_file: '{listing}'\n  index_operation: new\n{tail}"
    )
    return config


def test_pictures_of_a_list_are_found_again_under_the_image_root(
    shitu: Shitu, draw: Draw, tmp_path: Path, other_model: Path
) -> None:
    folder, root = tmp_path / "data", tmp_path / "root"
    for number in range(3):
        draw(f"{root}/{number}/茶 {number}.png", number)
    lines = [f"{number}/茶 {number}.png\tlabel {number}" for number in range(3)]
    shitu.ok("gallery", "build", build_config(tmp_path, root, lines), "--data-dir", folder)
    moved = root.rename(tmp_path / "moved")
    options = ["--data-dir", str(folder), "--config", str(other_model)]
    unknown_root = shitu("gallery", "rehash", *options)
    assert unknown_root.code == 1
    assert "--image-root" in unknown_root.err
    (moved / "2" / "茶 2.png").rename(moved / "gone.png")
    missing = shitu("gallery", "rehash", *options, "--image-root", moved, "--json")
    assert missing.code == 1
    (lost,) = missing.json["lost"]
    assert lost["label"] == "label 2"
    (moved / "2" / "茶 2.png").write_text("torn")
    torn = shitu("gallery", "rehash", *options, "--image-root", moved, "--json")
    assert (torn.code, torn.json["changed"], len(torn.json["lost"])) == (1, False, 1)
    draw(f"{moved}/2/茶 2.png", 2)
    assert shitu.ok("gallery", "rehash", *options, "--image-root", moved, "--json").json["rehashed"] == 3


def test_a_new_build_takes_over_a_gallery_of_another_model(
    shitu: Shitu, draw: Draw, tmp_path: Path, other_model: Path
) -> None:
    folder, root = tmp_path / "data", tmp_path / "root"
    for number in range(4):
        draw(f"{root}/{number}.png", number)
    lines = [f"{number}.png\tlabel {number}" for number in range(4)]
    shitu.ok("gallery", "build", build_config(tmp_path, root, lines[:3]), "--data-dir", folder)
    old = fingerprint(shitu, folder)
    config = build_config(tmp_path, root, [lines[0], "1.png\trenamed", lines[3]], other_model.read_text())
    refused = shitu("gallery", "build", config, "--operation", "append", "--data-dir", folder)
    assert refused.code == 1
    assert "rehash" in refused.err
    assert fingerprint(shitu, folder) == old

    root.rename(tmp_path / "away")
    root.mkdir()
    assert shitu("gallery", "build", config, "--data-dir", folder).code == 1
    assert (fingerprint(shitu, folder), len(codes(shitu, folder))) == (old, 3)

    root.rmdir()
    (tmp_path / "away").rename(root)
    report = shitu.ok("gallery", "build", config, "--data-dir", folder, "--json").json
    assert (report["items"], report["troubles"]) == (3, [])
    assert fingerprint(shitu, folder) != old
    fresh = tmp_path / "fresh"
    shitu.ok("gallery", "build", config, "--data-dir", fresh)
    assert codes(shitu, folder) == codes(shitu, fresh)
    listed = shitu.ok("gallery", "list", "--data-dir", folder, "--json").json_lines
    assert sorted(item["label"] for item in listed) == ["label 0", "label 3", "renamed"]
