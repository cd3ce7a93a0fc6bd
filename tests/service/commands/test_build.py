"""``shitu gallery build``: PP-ShiTu lists into a folder and over a server, again and again, with faults."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Draw, Shitu

DRINK = Path(__file__).parents[4] / "shared" / "data" / "drink" / "gallery"

Write = Callable[..., Path]


@pytest.fixture(params=["folder", "server"])
def where(request: pytest.FixtureRequest, tmp_path: Path, shitu: Shitu) -> list[str]:
    """Options for an empty gallery: a new folder, or a server's."""
    if request.param == "folder":
        return ["--data-dir", str(tmp_path / "data")]
    url = request.getfixturevalue("empty_server")
    ids = [item["id"] for item in shitu.ok("gallery", "list", "--server", url, "--json").json_lines]
    if ids:
        shitu.ok("gallery", "remove", *ids, "--server", url)
    return ["--server", url]


@pytest.fixture
def root(tmp_path: Path, draw: Draw) -> Path:
    """A folder of pictures 0/0.jpg ... 4/1.jpg."""
    for number in range(5):
        for view in range(2):
            draw(f"{tmp_path}/pictures/{number}/{view}.jpg", 10 * number + view)
    return tmp_path / "pictures"


@pytest.fixture
def write(tmp_path: Path, root: Path) -> Write:
    """Write a list and a PP-ShiTu configuration for it, and give the configuration's path."""

    def write_config(lines: list[str], operation: str = "new", delimiter: str = "\\t", extra: str = "") -> Path:
        data_file = tmp_path / "list.txt"
        data_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        config = tmp_path / "build.yaml"
        config.write_text(
            "Global:\n  use_gpu: False\n  enable_mkldnn: True\n"
            "IndexProcess:\n"
            f"  index_method: Flat\n  image_root: '{root}'\n  index_dir: '{tmp_path}/data'\n"
            f"  data_file: '{data_file}'\n  index_operation: {operation}\n"
            f'  delimiter: "{delimiter}"\n  dist_type: hamming\n  batch_size: 4\n{extra}',
            encoding="utf-8",
        )
        return config

    return write_config


def labels(shitu: Shitu, where: list[str]) -> list[str]:
    return sorted(item["label"] for item in shitu.ok("gallery", "list", *where, "--json").json_lines)


def files(folder: Path) -> dict[str, int]:
    """Sizes of the files in a data folder, which change as soon as a process works on it."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def read_all(master: int) -> Iterator[str]:
    """Read a terminal until the process at its other end closes it."""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:
            chunk = b""
        if not chunk:
            os.close(master)
            return
        yield chunk.decode(errors="replace")


LINES = [f"{number}/{view}.jpg\tproduct {number} 无糖/x_{view}…" for number in range(5) for view in range(2)]
LABELS = sorted(line.split("\t")[1] for line in LINES)


def test_a_list_becomes_a_gallery_with_its_labels_whole(
    shitu: Shitu, write: Write, root: Path, where: list[str]
) -> None:
    report = shitu.ok("gallery", "build", write(LINES), *where, "--json").json
    assert (report["listed"], report["added"], report["items"]) == (10, 10, 10)
    assert report["troubles"] == []
    assert labels(shitu, where) == LABELS
    found = shitu.ok("search", root / "3" / "1.jpg", "--whole", "--radius", 0, *where, "--json").json
    assert found["objects"][0]["matches"][0]["label"] == "product 3 无糖/x_1…"


@pytest.mark.parametrize("operation", ["new", "append"])
def test_building_again_doubles_nothing(shitu: Shitu, write: Write, where: list[str], operation: str) -> None:
    config = write(LINES, operation)
    shitu.ok("gallery", "build", config, *where)
    first = shitu.ok("gallery", "list", *where, "--json").json_lines
    report = shitu.ok("gallery", "build", config, *where, "--json").json
    assert (report["added"], report["removed"], report["items"]) == (0, 0, 10)
    assert report["unchanged"] + report["replaced"] == 10
    again = shitu.ok("gallery", "list", *where, "--json").json_lines
    assert [(item["id"], item["label"], item["code"]) for item in again] == [
        (item["id"], item["label"], item["code"]) for item in first
    ]


def test_append_adds_what_is_missing_and_takes_over_new_labels(shitu: Shitu, write: Write, where: list[str]) -> None:
    shitu.ok("gallery", "build", write(LINES[:4]), *where)
    renamed = [LINES[0].replace("product 0", "renamed"), *LINES[1:6]]
    report = shitu.ok("gallery", "build", write(renamed, "append"), *where, "--json").json
    assert (report["added"], report["replaced"], report["unchanged"]) == (2, 1, 3)
    assert labels(shitu, where) == sorted(line.split("\t")[1] for line in renamed)


def test_append_looks_at_pictures_again_only_when_asked(
    shitu: Shitu, write: Write, root: Path, where: list[str]
) -> None:
    config = write(LINES[:2], "append")
    shitu.ok("gallery", "build", config, *where)
    before = {item["label"]: item["code"] for item in shitu.ok("gallery", "list", *where, "--json").json_lines}
    shutil.copy(root / "4" / "0.jpg", root / "0" / "0.jpg")
    assert shitu.ok("gallery", "build", config, *where, "--json").json["unchanged"] == 2
    report = shitu.ok("gallery", "build", config, "--refresh", *where, "--json").json
    assert report["replaced"] >= 1
    after = {item["label"]: item["code"] for item in shitu.ok("gallery", "list", *where, "--json").json_lines}
    assert [label for label in before if before[label] != after[label]] == [LINES[0].split("\t")[1]]


def test_new_takes_away_what_the_list_does_not_name(
    shitu: Shitu, write: Write, draw: Draw, tmp_path: Path, where: list[str]
) -> None:
    shitu.ok("gallery", "build", write(LINES), *where)
    shitu.ok("gallery", "add", draw(f"{tmp_path}/by-hand.png", 99), "--label", "by hand", *where)
    report = shitu.ok("gallery", "build", write(LINES[2:5]), *where, "--json").json
    assert (report["added"], report["removed"], report["items"]) == (0, 8, 3)
    assert labels(shitu, where) == sorted(line.split("\t")[1] for line in LINES[2:5])


def test_remove_takes_away_what_the_list_names(shitu: Shitu, write: Write, where: list[str]) -> None:
    shitu.ok("gallery", "build", write(LINES), *where)
    report = shitu.ok(
        "gallery", "build", write(["0/0.jpg", "./0/1.jpg\twhatever", "9/9.jpg"], "remove"), *where, "--json"
    )
    assert (report.json["removed"], report.json["items"]) == (2, 8)
    assert [(trouble["line"], trouble["reason"]) for trouble in report.json["troubles"]] == [
        (3, "is not in the gallery")
    ]


def test_an_operation_on_the_command_line_goes_first(shitu: Shitu, write: Write, where: list[str]) -> None:
    config = write(LINES[:3])
    shitu.ok("gallery", "build", config, *where)
    assert shitu.ok("gallery", "build", config, "--operation", "remove", *where, "--json").json["removed"] == 3
    assert labels(shitu, where) == []


def test_pictures_that_cannot_be_used_are_reported_and_the_rest_goes_in(
    shitu: Shitu, write: Write, root: Path, where: list[str]
) -> None:
    (root / "0" / "0.jpg").unlink()
    (root / "0" / "1.jpg").write_text("no picture")
    (root / "1" / "0.jpg").write_bytes((root / "1" / "1.jpg").read_bytes()[:900])
    config = write([*LINES, "no-label.jpg", "../pictures/2/0.jpg\tanother label"])
    answer = shitu.ok("gallery", "build", config, *where)
    assert "8 added" in answer.out
    told = answer.err.splitlines()
    assert told[0] == "4 of the list's lines could not be used:"
    for line, path in ((1, "0/0.jpg"), (2, "0/1.jpg"), (3, "1/0.jpg"), (11, "no-label.jpg")):
        assert sum(text.startswith(f"  line {line}: {path}: ") for text in told) == 1, told
    assert shitu("gallery", "build", config, "--strict", *where).code == 1


def test_a_build_that_fails_altogether_leaves_the_old_gallery(
    shitu: Shitu, write: Write, root: Path, where: list[str]
) -> None:
    config = write(LINES)
    shitu.ok("gallery", "build", config, *where)
    root.rename(root.with_name("unmounted"))
    no_root = shitu("gallery", "build", config, *where)
    assert no_root.code == 1
    assert "image root" in no_root.err
    root.mkdir()
    nothing_there = shitu("gallery", "build", config, *where, "--json")
    assert nothing_there.code == 1
    assert len(nothing_there.json["troubles"]) == 10
    assert labels(shitu, where) == LABELS
    assert shitu("gallery", "build", write([]), *where).code == 1
    assert labels(shitu, where) == LABELS


def test_a_build_that_is_killed_leaves_the_old_gallery_and_can_be_run_again(
    shitu: Shitu, draw: Draw, write: Write, tmp_path: Path
) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    shitu.ok("gallery", "build", write(LINES), *where)
    more = [f"more/{number}.jpg\tmore {number}" for number in range(60)]
    for number in range(60):
        draw(f"{tmp_path}/pictures/more/{number}.jpg", 1000 + number)
    config = write([*LINES[:2], *more])
    finished = sorted(line.split("\t")[1] for line in [*LINES[:2], *more])
    for delay_s in (0.05, 0.2):
        command = [sys.executable, "-m", "service.cli", "gallery", "build", str(config), *where]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            before = files(tmp_path / "data")
            while files(tmp_path / "data") == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(delay_s)
            process.kill()
        present = labels(shitu, where)
        assert set(present) >= set(LABELS) or present == finished
    shitu.ok("gallery", "build", config, *where)
    assert labels(shitu, where) == finished


def test_a_label_that_no_item_may_have_is_reported(shitu: Shitu, write: Write, where: list[str]) -> None:
    shitu.ok("gallery", "build", write(LINES[:2]), *where)
    config = write([f"0/0.jpg\t{'x' * 600}", LINES[1], f"1/0.jpg\t{'y' * 600}"], "append")
    report = shitu.ok("gallery", "build", config, *where, "--json").json
    assert [trouble["line"] for trouble in report["troubles"]] == [1, 3]
    assert labels(shitu, where) == sorted(line.split("\t")[1] for line in LINES[:2])


def test_a_strict_new_build_takes_nothing_away_when_a_picture_fails(
    shitu: Shitu, write: Write, root: Path, where: list[str]
) -> None:
    shitu.ok("gallery", "build", write(LINES), *where)
    (root / "0" / "0.jpg").unlink()
    assert shitu("gallery", "build", write(LINES[:3]), "--strict", *where).code == 1
    assert labels(shitu, where) == LABELS


def test_a_blank_as_delimiter_keeps_blanks_in_labels(shitu: Shitu, write: Write, where: list[str]) -> None:
    shitu.ok("gallery", "build", write(["0/0.jpg Green tea 500 ml", "1/0.jpg Cola"], delimiter=" "), *where)
    assert labels(shitu, where) == ["Cola", "Green tea 500 ml"]


def test_a_configuration_without_a_list_or_with_mistakes_is_told(shitu: Shitu, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("IndexProcess:\n  image_root: .\n")
    answer = shitu("gallery", "build", config, "--data-dir", tmp_path / "data")
    assert answer.code == 1
    assert "IndexProcess.data_file is missing" in answer.err
    config.write_text("IndexProcess:\n  dist_type: IP\n  return_kk: 5\n")
    answer = shitu("gallery", "build", config, "--data-dir", tmp_path / "data")
    assert answer.code == 2
    assert f"{config}:2: IndexProcess.dist_type" in answer.err
    assert f"{config}:3: IndexProcess.return_kk" in answer.err
    assert not (tmp_path / "data").exists()


def test_the_index_dir_of_the_configuration_is_the_data_folder(shitu: Shitu, write: Write, tmp_path: Path) -> None:
    config = write(LINES[:2])
    shitu.ok("gallery", "build", config)
    assert labels(shitu, ["--data-dir", str(tmp_path / "data")]) == LABELS[:2]
    assert labels(shitu, ["--config", str(config)]) == LABELS[:2]


def test_a_terminal_sees_a_progress_bar_and_a_pipe_does_not(write: Write, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "gallery", "build", str(write(LINES)), "-d", str(tmp_path / "data")]
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        seen = "".join(read_all(master))
        assert process.stdout is not None
        assert process.stdout.read().startswith("new: 10 listed; 10 added")
    assert "pictures" in seen
    assert "10/10" in seen
    piped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert piped.stderr == ""


def test_the_drink_gallery_builds_from_its_own_list(shitu: Shitu, tmp_path: Path, where: list[str]) -> None:
    listing = DRINK / "drink_label_all.txt"
    if not listing.is_file():
        pytest.skip(f"the drink gallery is not in {DRINK}")
    lines = listing.read_text(encoding="utf-8").splitlines()[::53]
    data_file = tmp_path / "some.txt"
    data_file.write_text("\n".join(lines), encoding="utf-8")
    config = tmp_path / "drink.yaml"
    config.write_text(
        f'IndexProcess:\n  image_root: "{DRINK}"\n  data_file: "{data_file}"\n  index_operation: new\n'
        '  delimiter: "\\t"\n  dist_type: hamming\n'
    )
    report = shitu.ok("gallery", "build", config, *where, "--json").json
    present = [line.split("\t") for line in lines if (DRINK / line.split("\t")[0]).is_file()]
    assert report["added"] == len(present) > 15
    assert len(report["troubles"]) == len(lines) - len(present)
    assert labels(shitu, where) == sorted(label for _, label in present)
    path, label = present[3]
    found = shitu.ok("search", DRINK / path, "--whole", "--radius", 0, *where, "--json").json
    assert found["objects"][0]["matches"][0]["label"] == label
