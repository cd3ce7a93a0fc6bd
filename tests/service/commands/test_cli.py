"""The command line: help, exit codes, enrolling, searching, listing and removing in a folder and over a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Draw, Shitu


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(params=["folder", "server"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Options for an empty gallery: a new folder, or a server's."""
    if request.param == "folder":
        return ["--data-dir", str(tmp_path / "data")]
    return ["--server", request.getfixturevalue("empty_server")]


def test_help_and_version_need_no_heavy_library() -> None:
    code = (
        "import sys, service.cli as cli\n"
        "try: cli.app(['gallery', 'build', '--help'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'paddle', 'faiss', 'cv2', 'numpy', 'fastapi', 'uvicorn', 'httpx', 'yaml', 'PIL'}\n"
        "sys.exit(f'imported {found}' if (found := heavy & set(sys.modules)) else 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 5
    assert "image_root" in done.stdout


def test_the_installed_command_tells_its_version() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "shitu", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "shitu")


@pytest.mark.parametrize("command", [(), ("gallery",)])
def test_without_a_command_the_commands_are_listed(shitu: Shitu, command: tuple[str, ...]) -> None:
    answer = shitu(*command)
    assert "Commands" in answer.out + answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["gallery", "add", "a.jpg"],
        ["gallery", "add", "a.jpg", "b.jpg", "--label", "x", "--id", "one"],
        ["gallery", "add", "a.jpg", "--label", "x", "--metadata", "{"],
        ["gallery", "add", "a.jpg", "--label", "x", "--metadata", "[1]"],
        ["gallery", "add", "a.jpg", "--label", "x", "--on-duplicate", "maybe"],
        ["gallery", "remove"],
        ["gallery", "remove", "an-id", "--label", "x"],
        ["gallery", "list", "--server", "http://localhost:1", "--data-dir", "data"],
        ["search"],
        ["search", "a.jpg", "--item", "b"],
        ["search", "a.jpg", "--radius", "-1"],
        ["search", "a.jpg", "--top-k", "0"],
        ["serve", "--port", "70000"],
        ["fly"],
    ],
)
def test_wrong_usage_exits_with_2(shitu: Shitu, arguments: list[str]) -> None:
    answer = shitu(*arguments)
    assert answer.code == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_wrong_settings_exit_with_2_and_name_everything(
    shitu: Shitu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("Global:\n  use_gpo: True\n")
    monkeypatch.setenv("SHITU_HAMING_RADIUS", "3")
    answer = shitu("gallery", "list", "--config", config)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "shitu: SHITU_HAMING_RADIUS: is not a setting; did you mean SHITU_HAMMING_RADIUS?",
        f"shitu: {config}:2: Global.use_gpo: is not a key that this service knows; did you mean use_gpu?",
    ]


def test_a_picture_is_enrolled_found_listed_and_removed(
    shitu: Shitu, draw: Draw, tmp_path: Path, where: list[str]
) -> None:
    label = "茉莉 [bold]花茶[/]/原味_500ml…"
    pictures = [draw(f"{tmp_path}/{number}.png", number) for number in range(4)]
    for number, picture in enumerate(pictures):
        answer = shitu.ok(
            *("gallery", "add", picture, "--label", f"{label}{number}", "--id", f"tea-{number}", *where),
            *("--metadata", '{"sku": 7}', "--json"),
        )
        assert answer.json["id"] == f"tea-{number}"
        assert answer.json["metadata"] == {"sku": 7}

    found = shitu.ok("search", pictures[2], "--radius", 0, *where, "--json").json
    (recognised,) = found["objects"]
    assert recognised["is_whole_image"]
    assert [(match["id"], match["distance"]) for match in recognised["matches"]] == [("tea-2", 0)]
    assert found["index_items"] >= 4

    table = shitu.ok("search", pictures[2], "--radius", 0, *where).out
    assert f"{label}2" in table
    assert "tea-2" in table

    by_code = shitu.ok("search", "--code", recognised["code"], "--radius", 0, *where, "--json").json
    by_item = shitu.ok("search", "--item", "tea-2", "--radius", 0, *where, "--json").json
    assert by_code["objects"] == by_item["objects"]
    assert by_code["objects"][0]["bbox"] is None
    assert by_code["objects"][0]["matches"] == recognised["matches"]

    everything = shitu.ok("search", pictures[2], "--radius", 8, "--top-k", 1, "--label", "none", *where, "--json")
    assert everything.json["objects"][0]["matches"] == []

    listed = shitu.ok("gallery", "list", "--label", f"{label}1", *where, "--json").json_lines
    assert [item["id"] for item in listed] == ["tea-1"]
    assert f"{label}1" in shitu.ok("gallery", "list", *where).out
    assert len(shitu.ok("gallery", "list", "--limit", 2, *where, "--json").json_lines) == 2

    info = shitu.ok("gallery", "info", *where, "--json").json
    assert (info["method"], info["bits"]) == ("Flat", 4 * len(recognised["code"]))
    assert "items" in shitu.ok("gallery", "info", *where).out
    rebuilt = shitu.ok("gallery", "rebuild", "--method", "ivf", *where, "--json").json
    assert (rebuilt["method"], rebuilt["serving"], rebuilt["rebuild_progress"]) == ("IVF", "Flat", None)
    assert "until then" in rebuilt["reason"]
    assert shitu.ok("gallery", "info", *where, "--json").json["method"] == "IVF"
    assert "parameters         -" in shitu.ok("gallery", "info", *where).out
    assert "Flat was chosen" in shitu.ok("gallery", "rebuild", "--method", "Flat", *where).out
    by_effort = shitu.ok("search", "--item", "tea-2", "--nprobe", 3, "--ef-search", 9, "--radius", 0, *where, "--json")
    assert by_effort.json["objects"] == by_item["objects"]

    assert shitu.ok("gallery", "remove", "tea-0", "tea-2", "tea-0", *where, "--json").json == {"removed": 2}
    assert shitu.ok("gallery", "remove", "--label", f"{label}3", *where).out == "removed 1\n"
    assert shitu("gallery", "remove", "tea-0", *where).code == 1
    assert shitu("search", "--item", "tea-2", *where).code == 1
    assert shitu.ok("gallery", "remove", "tea-1", *where, "--json").json == {"removed": 1}
    assert shitu.ok("gallery", "list", *where, "--json").out == ""


def test_many_pictures_at_once_and_those_that_fail_are_named(
    shitu: Shitu, draw: Draw, tmp_path: Path, where: list[str]
) -> None:
    good = [draw(f"{tmp_path}/{number}.jpg", number) for number in (10, 11)]
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(good[0].read_bytes()[:700])
    answer = shitu(
        "gallery", "add", good[0], text, torn, tmp_path / "none.jpg", good[1], "--label", "x", *where, "--json"
    )
    assert answer.code == 1
    assert len(answer.json_lines) == 2
    for path in (text, torn, tmp_path / "none.jpg"):
        assert sum(line.startswith(f"shitu: {path}") for line in answer.err.splitlines()) == 1
    assert len(answer.err.splitlines()) == 3
    shitu.ok("gallery", "remove", "--label", "x", *where)


def test_duplicates_are_handled_as_asked(shitu: Shitu, draw: Draw, tmp_path: Path, where: list[str]) -> None:
    picture = draw(f"{tmp_path}/a.png", 20)
    first = shitu.ok("gallery", "add", picture, "--label", "dup", "--id", "dup-1", *where, "--json").json
    again = shitu("gallery", "add", picture, "--label", "dup", "--id", "dup-1", *where)
    assert again.code == 1
    assert "dup-1" in again.err
    returned = shitu.ok("gallery", "add", picture, "--label", "dup", "--on-duplicate", "return", *where, "--json").json
    assert returned == first
    rejected = shitu("gallery", "add", picture, "--label", "dup", "--on-duplicate", "reject", *where)
    assert rejected.code == 1
    shitu.ok("gallery", "add", picture, "--label", "dup", *where)
    assert shitu.ok("gallery", "remove", "--label", "dup", *where, "--json").json == {"removed": 2}


def test_folder_and_server_give_the_same_answers(shitu: Shitu, draw: Draw, tmp_path: Path, empty_server: str) -> None:
    ways = [["--data-dir", str(tmp_path / "data")], ["--server", empty_server]]
    for number in range(30, 36):
        picture = draw(f"{tmp_path}/{number}.png", number)
        for where in ways:
            shitu.ok("gallery", "add", picture, "--label", f"n{number}", "--id", f"n{number}", *where)
    query = draw(f"{tmp_path}/query.png", 33)
    answers = [shitu.ok("search", query, "--radius", 200, "--top-k", 3, *where, "--json").json for where in ways]
    for answer in answers:
        assert answer["objects"][0]["matches"][0]["id"] == "n33"
        del answer["timings_ms"]
    assert answers[0] == answers[1]
    listings = [shitu.ok("gallery", "list", *where, "--json").json_lines for where in ways]
    for listing in listings:
        for item in listing:
            del item["created_at"]
    assert listings[0] == listings[1]
    infos = [shitu.ok("gallery", "info", *where, "--json").json for where in ways]
    assert infos[0].keys() == infos[1].keys()
    for number in range(30, 36):
        shitu.ok("gallery", "remove", f"n{number}", *ways[1])


def test_the_default_radius_is_the_settings_then_the_models(
    shitu: Shitu, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    a, b = (draw(f"{tmp_path}/{number}.png", number) for number in (40, 41))
    first = shitu.ok("gallery", "add", a, "--label", "a", "--id", "a", *where, "--json").json
    shitu.ok("gallery", "add", b, "--label", "b", "--id", "b", *where)
    bits = 4 * len(first["code"])
    both = shitu.ok("search", "--item", "a", "--radius", bits, *where, "--json").json["objects"][0]["matches"]
    distance = both[1]["distance"]
    for radius, expected in ((distance, 2), (distance - 1, 1)):
        monkeypatch.setenv("SHITU_HAMMING_RADIUS", str(radius))
        found = shitu.ok("search", "--item", "a", *where, "--json").json["objects"][0]["matches"]
        assert len(found) == expected, (radius, found)
    assert shitu("search", "--item", "a", "--radius", bits + 1, *where).code == 1


def test_a_code_of_a_wrong_length_is_told(shitu: Shitu, draw: Draw, tmp_path: Path, where: list[str]) -> None:
    shitu.ok("gallery", "add", draw(f"{tmp_path}/a.png", 50), "--label", "len", *where)
    for code in ("00ff", "zz"):
        answer = shitu("search", "--code", code, *where)
        assert answer.code == 1
        assert "hexadecimal" in answer.err or "pattern" in answer.err
    shitu.ok("gallery", "remove", "--label", "len", *where)


def test_a_picture_comes_from_standard_input_too(draw: Draw, tmp_path: Path) -> None:
    picture = draw(f"{tmp_path}/a.png", 60)
    folder = str(tmp_path / "data")
    with picture.open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "gallery", "add", "-", "--label", "piped", "-d", folder, "--json"],
            stdin=stream,
            capture_output=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "piped"
    assert done.stderr == b""


def test_what_models_print_does_not_spoil_the_json(
    shitu: Shitu, draw: Draw, tmp_path: Path, noisy_detector: Path
) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    picture = draw(f"{tmp_path}/a.png", 90)
    shitu.ok("gallery", "add", picture, "--label", "x", *where)
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "search", picture, "--json", *where],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"SHITU_DETECTOR_DIR": str(noisy_detector)},
    )
    assert json.loads(done.stdout)["objects"][0]["is_whole_image"]
    assert "ReduceMean" in done.stderr  # Paddle still prints; without this the test would test nothing


@pytest.mark.parametrize("command", [["list"], ["info"], ["remove", "x"], ["rebuild"]])
def test_a_folder_without_a_gallery_is_told_and_not_made(shitu: Shitu, tmp_path: Path, command: list[str]) -> None:
    folder = tmp_path / "none"
    answer = shitu("gallery", *command, "--data-dir", folder)
    assert answer.code == 1
    assert answer.err.startswith(f"shitu: {folder} holds no gallery: make one with `shitu gallery add`")
    assert not folder.exists() or not any(folder.iterdir())


def test_a_server_that_is_not_there_is_told(shitu: Shitu) -> None:
    for url in ("http://127.0.0.1:9", "127.0.0.1:9"):
        answer = shitu("gallery", "list", "--server", url)
        assert (answer.code, answer.out) == (1, "")
        assert "no server answers at http://127.0.0.1:9" in answer.err
    for url in ("ftp://127.0.0.1", "http://[bad"):
        answer = shitu("gallery", "list", "--server", url)
        assert answer.code == 1
        assert len(answer.err.splitlines()) == 1


def test_the_server_option_needs_no_settings(shitu: Shitu, empty_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_TOP_K", "wrong")
    shitu.ok("gallery", "info", "--server", empty_server)


def test_a_models_folder_that_is_not_there_is_one_line(shitu: Shitu, draw: Draw, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(f"Global:\n  rec_inference_model_dir: {tmp_path}/nowhere\n")
    picture = draw(f"{tmp_path}/a.png", 70)
    answer = shitu("gallery", "add", picture, "-l", "x", "-c", config, "--data-dir", tmp_path / "data")
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert f"{tmp_path}/nowhere" in line


def test_a_reader_that_goes_away_ends_a_listing_quietly(shitu: Shitu, draw: Draw, tmp_path: Path) -> None:
    shitu.ok("gallery", "add", draw(f"{tmp_path}/a.png", 80), "--label", "x", "--data-dir", tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-m", "service.cli", "gallery", "list", "--data-dir", tmp_path / "data", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) in (0, 1)
        assert b"Traceback" not in process.stderr.read()
