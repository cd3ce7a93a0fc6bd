"""``shitu models``: real archives from a real server, into a cache, and from there into a running service."""

from __future__ import annotations

import hashlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.hub import CATALOGUE
from models.inference import STARTER_DETECTOR, STARTER_HASHER, Hasher, Manifest

from ...models.file_server import FileServer, serve
from ...models.hub.archives import MODEL, tar
from .conftest import Draw, Shitu

NOISE = MODEL | {"inference.pdiparams": np.random.default_rng(0).bytes(3_000_000)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that is not there yet."""
    folder = tmp_path / "cache" / "models"
    monkeypatch.setenv("SHITU_MODEL_CACHE_DIR", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(tar()) as running:
        yield running


def pack(folder: Path, **more: bytes) -> bytes:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return tar(files | more, folder=folder.name)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def states(shitu: Shitu, *options: str) -> dict[str, str]:
    return {line["name"]: line["state"] for line in shitu("models", "list", "--json", *options).json_lines}


# The official models, from their archives to answers


def test_the_official_models_are_pulled_and_served(
    shitu: Shitu,
    server: FileServer,
    official: Callable[[str], Path],
    start_server: Callable[..., Any],
    draw: Draw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packed as their publisher packs them, with parameters of our own: the real ones cannot be had here."""
    settings: dict[str, str] = {}
    for name, options in (("mainbody-detector", []), ("general-v1", ["--no-verify"])):  # the server tries it, too
        folder = official(CATALOGUE[name].folder)
        server.content = pack(folder, **{"inference.pdiparams.info": b"a pickle that nobody opens"})
        mirror = server.url.removesuffix("/models/weights.pdparams")
        pulled = shitu.ok("models", "pull", name, "--mirror", mirror, "--json", *options).json
        assert pulled["source"] == mirror + CATALOGUE[name].path
        assert (pulled["is_new"], pulled["left_out"]) == (True, [])
        words = shlex.split(pulled["next_step"])
        assert words[-2:] == ["shitu", "serve"]
        settings |= dict(word.split("=", 1) for word in words[:-2])
    assert settings == {
        "SHITU_DETECTOR_DIR": os.environ["SHITU_MODEL_CACHE_DIR"] + "/mainbody-detector",
        "SHITU_HASHER_DIR": os.environ["SHITU_MODEL_CACHE_DIR"] + "/general-v1",
        "SHITU_HAMMING_RADIUS": "152",
    }
    url = start_server("--data-dir", tmp_path / "data", environment=settings).url()
    picture = draw(str(tmp_path / "one.png"), 1)
    shitu.ok("gallery", "add", picture, "--label", "one", "--server", url)
    assert httpx.get(f"{url}/index").json()["bits"] == 512
    found = shitu.ok("search", picture, "--server", url, "--json").json["objects"]
    assert ("one", 0) in [(match["label"], match["distance"]) for each in found for match in each["matches"]]


def test_an_archive_on_this_machine_needs_no_network(
    shitu: Shitu, official: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    archive = tmp_path / "general.tar"
    archive.write_bytes(pack(official(CATALOGUE["general-v2"].folder)))
    answer = shitu.ok("models", "pull", "general-v2", "--from", archive)
    assert answer.out.startswith(
        f"general-v2 pulled: {cache}/general-v2\nA float model: a code is the signs of its 512"
    )
    assert answer.out.endswith(f"next: SHITU_HASHER_DIR={cache}/general-v2 shitu serve\n")
    assert answer.err == ""
    archive.unlink()
    archive.write_bytes(b"")
    again = shitu.ok("models", "pull", "general-v2", "--from", archive)
    assert again.out.startswith(f"general-v2 was there already and checks out: {cache}/general-v2\n")


def test_a_model_of_which_nothing_is_known_is_believed_and_said_to_be(
    shitu: Shitu, server: FileServer, cache: Path
) -> None:
    answer = shitu.ok("models", "pull", "general-v1-binary", "--mirror", server.url, "--no-verify")
    assert "Nothing is known of its files beforehand: the first pull is believed.\n" in answer.out
    assert answer.out.endswith(f"next: SHITU_HASHER_DIR={cache}/general-v1-binary shitu serve\n")
    assert states(shitu, "--check")["general-v1-binary"] == "pulled"


def test_another_file_under_an_official_name_is_refused(shitu: Shitu, server: FileServer, cache: Path) -> None:
    answer = shitu("models", "pull", "general-v1", "--mirror", server.url)
    assert answer.code == 1
    assert "is not the general-v1 that this version knows: inference.pdmodel has 300 bytes, and 533,226" in answer.err
    assert states(shitu)["general-v1"] == "not pulled"
    assert [path.name for path in cache.iterdir()] == [".general-v1.lock"]


# Models of one's own


def test_a_model_of_ones_own_is_pulled_by_its_address(
    shitu: Shitu, server: FileServer, cache: Path, tmp_path: Path
) -> None:
    server.content = pack(STARTER_HASHER, **{"train.log": b"..."})
    answer = shitu.ok("models", "pull", server.url, "--name", "mine", "--sha256", sha256(server.content).upper())
    assert f"mine pulled: {cache}/mine" in answer.out
    assert answer.err == "1 of the archive's files are not needed and were left out:\n  hasher/train.log\n"
    assert states(shitu)["mine"] == "pulled"
    card = shitu.ok("models", "show", "mine", "--json").json
    assert (card["kind"], card["source"], card["archive_sha256"]) == ("hasher", server.url, sha256(server.content))
    assert card["use"] == f"SHITU_HASHER_DIR={cache}/mine shitu serve"
    assert Hasher.load(cache / "mine").fingerprint == Manifest.read(STARTER_HASHER, "hasher").fingerprint


def test_a_path_names_an_archive_and_its_file_the_model(shitu: Shitu, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "shelf_detector.tar"
    archive.write_bytes(pack(STARTER_DETECTOR))
    answer = shitu.ok("models", "pull", archive, "--kind", "detector")
    assert answer.out.endswith(f"next: SHITU_DETECTOR_DIR={cache}/shelf_detector shitu serve\n")
    elsewhere = tmp_path / "with blank" / "model"
    answer = shitu.ok("models", "pull", archive, "--kind", "detector", "--to", elsewhere, "--no-verify")
    assert answer.out.endswith(f"next: SHITU_DETECTOR_DIR='{elsewhere}' shitu serve\n")
    assert {path.name for path in STARTER_DETECTOR.iterdir()} <= {path.name for path in elsewhere.iterdir()}


def test_a_model_of_the_wrong_kind_is_not_kept(shitu: Shitu, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "x.tar"
    archive.write_bytes(pack(STARTER_DETECTOR))
    answer = shitu("models", "pull", archive)
    assert answer.code == 1
    assert "the service cannot use x as a hasher: inference.yml: kind is 'detector'" in answer.err
    assert "--kind detector if it is one" in answer.err
    assert "x" not in states(shitu)


def test_what_paddle_cannot_load_is_kept_only_unverified(shitu: Shitu, server: FileServer) -> None:
    answer = shitu("models", "pull", server.url, "--name", "mine")
    assert (answer.code, "the service cannot use mine as a hasher" in answer.err) == (1, True)
    assert "mine" not in states(shitu)
    shitu.ok("models", "pull", server.url, "--name", "mine", "--no-verify")
    assert states(shitu)["mine"] == "pulled"
    assert server.asked == [None]


# Looking


def test_the_list_tells_what_is_here_and_what_could_be(shitu: Shitu) -> None:
    assert states(shitu) == {
        "starter-hasher": "bundled",
        "starter-detector": "bundled",
        **dict.fromkeys(CATALOGUE, "not pulled"),
    }
    table = shitu.ok("models", "list").out
    assert all(name in table for name in states(shitu))
    assert "34.2 MB" in table


@pytest.mark.parametrize("name", ["starter-hasher", "starter-detector", *CATALOGUE])
def test_every_model_has_a_card(shitu: Shitu, name: str) -> None:
    card = shitu.ok("models", "show", name, "--json").json
    assert card["licence"] == "Apache-2.0"
    assert card["use"].startswith(("shitu models pull ", "SHITU_HASHER_DIR=", "SHITU_DETECTOR_DIR="))
    people = shitu.ok("models", "show", name).out
    assert all(f"  {value}\n" in people for value in card.values() if isinstance(value, str))


def test_damage_is_found_by_checksum(shitu: Shitu, server: FileServer, cache: Path) -> None:
    shitu.ok("models", "pull", server.url, "--name", "mine", "--no-verify")
    shitu.ok("models", "list", "--check")
    damaged = cache / "mine" / "inference.pdiparams"
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    assert states(shitu)["mine"] == "pulled"  # the lengths alone do not tell
    answer = shitu("models", "list", "--check")
    assert answer.code == 1
    assert "shitu: mine: inference.pdiparams has the SHA-256" in answer.err
    assert "damaged" in answer.out


def test_a_record_that_was_written_anew_does_not_hide_another_graph(shitu: Shitu, tmp_path: Path, cache: Path) -> None:
    """The pull of a stranger's archive, moved to where an official model would be."""
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar())
    shitu.ok("models", "pull", archive, "--no-verify")
    (cache / "x").rename(cache / "general-v1")
    answer = shitu("models", "list", "--check")
    assert answer.code == 1
    assert "shitu: general-v1: inference.pdmodel has 300 bytes, and 533,226 are right" in answer.err


def test_folders_that_no_pull_made_are_passed_over(shitu: Shitu, cache: Path) -> None:
    (cache / "holiday pictures").mkdir(parents=True)
    (cache / "general-v1").mkdir()
    (cache / "general-v1" / "half.pdmodel").write_bytes(b"")
    assert "holiday pictures" not in states(shitu)
    assert states(shitu)["general-v1"] == "damaged"
    assert "has no manifest.json" in shitu.ok("models", "list").err


def test_by_default_the_cache_is_the_users(shitu: Shitu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHITU_MODEL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert (
        shitu.ok("models", "show", "general-v1", "--json").json["folder"]
        == f"{tmp_path}/xdg/shitu-hash/models/general-v1"
    )
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = shitu.ok("models", "show", "general-v1", "--json").json["folder"]
    assert folder == f"{tmp_path}/.cache/shitu-hash/models/general-v1"


# What is wrong is told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["general-1"], "no model is called general-1; did you mean general-v1?"),
        (["xyz"], "no model is called xyz; there are mainbody-detector, "),
        (["xyz", "--from", "x.tar"], "no model is called xyz"),
        (["starter-hasher"], "starter-hasher comes with the package: there is nothing to pull"),
        (["some/where.tar"], "there is no file some/where.tar"),
        (["ftp://example.org/x.tar"], "no address of http or https; a file that is here can be named by its path"),
        (["file:///etc/passwd"], "no address of http or https"),
        (["general-v1", "--from", "nowhere.tar"], "there is no file nowhere.tar"),
        (["general-v1", "--from", "."], "is a folder: a model folder is served as it is"),
        (["general-v1", "--mirror", "mirror"], "mirror is no address"),
    ],
)
def test_what_cannot_be_pulled_is_told(shitu: Shitu, arguments: list[str], said: str) -> None:
    answer = shitu("models", "pull", *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert said in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["general-v1", "--sha256", "123"],
        ["general-v1", "--name", "x"],
        ["general-v1", "--kind", "detector"],
        ["general-v1", "--from", "x.tar", "--mirror", "http://mirror"],
        ["http://127.0.0.1:1/x.tar", "--name", "general-v1"],
        ["http://127.0.0.1:1/x.tar", "--name", "starter-hasher"],
        ["http://127.0.0.1:1/x.tar", "--name", "../x"],
        ["http://127.0.0.1:1/", "--no-verify"],
    ],
)
def test_wrong_usage_exits_with_2(shitu: Shitu, arguments: list[str]) -> None:
    assert shitu("models", "pull", *arguments).code == 2


def test_an_unknown_name_has_no_card(shitu: Shitu) -> None:
    answer = shitu("models", "show", "starter-haser")
    assert (answer.code, answer.err) == (1, "shitu: no model is called starter-haser; did you mean starter-hasher?\n")


def test_without_a_network_the_way_without_one_is_told(shitu: Shitu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.hub.download._PAUSE_S", 0.0)
    answer = shitu("models", "pull", "general-v1", "--mirror", "http://no-such-host.invalid")
    assert answer.code == 1
    assert "cannot connect to http://no-such-host.invalid/dygraph/rec/models/inference/general_PPL" in answer.err
    assert answer.err.endswith(
        "without a network, copy the archive to this machine and name it: shitu models pull general-v1 --from FILE\n"
    )
    answer = shitu("models", "pull", "http://no-such-host.invalid/my_infer.tar", "--sha256", "0" * 64)
    assert answer.err.endswith("name it: shitu models pull FILE --name my_infer\n")


def test_http_is_warned_of_unless_a_checksum_is_demanded(shitu: Shitu, server: FileServer) -> None:
    options = ["--name", "mine", "--no-verify"]
    assert "http does not protect" in shitu.ok("models", "pull", server.url, *options).err
    assert shitu.ok("models", "pull", server.url, *options, "--sha256", sha256(server.content)).err == ""


def test_a_folder_that_cannot_be_made_is_told(shitu: Shitu, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = shitu("models", "pull", server.url, "--name", "x", "--to", tmp_path / "file" / "model", "--no-verify")
    assert answer.code == 1
    assert f"{tmp_path}/file/model cannot be made" in answer.err


# In a process of its own


def start(server: FileServer, **streams: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "service.cli", "models", "pull", server.url, "--name", "mine", "--no-verify"]
    return subprocess.Popen(command, text=True, **streams)


def test_ctrl_c_keeps_what_came_and_says_so(shitu: Shitu, server: FileServer, cache: Path) -> None:
    server.content, server.pause_s = tar(NOISE), 0.1
    process = start(server, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 500_000 for path in cache.glob(".mine.pull/*.part")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("stopped; what came of the download is kept, and the same command goes on from there\n")
    assert "Traceback" not in err
    server.pause_s = 0.0
    shitu.ok("models", "pull", server.url, "--name", "mine", "--no-verify")
    assert str(server.asked[-1]).startswith("bytes=")
    assert states(shitu, "--check")["mine"] == "pulled"


def test_at_a_terminal_a_bar_shows_how_far_it_is(server: FileServer) -> None:
    server.content, server.pause_s = tar(NOISE), 0.01
    ours, theirs = pty.openpty()
    process = start(server, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert "mine pulled" in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert b"MB" in shown
    assert b"MB/s" in shown


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys, service.cli as cli\n"
        "try: cli.app(['models', 'pull', '--help'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'paddle', 'faiss', 'cv2', 'numpy', 'httpx', 'yaml', 'PIL', 'models.hub'}\n"
        "sys.exit(f'imported {found}' if (found := heavy & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--mirror" in done.stdout
