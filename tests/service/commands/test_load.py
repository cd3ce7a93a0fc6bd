"""``shitu gallery load``: codes that were made elsewhere, into a folder and over a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index_store import Item, open_gallery
from service.commands import bulk
from service.commands.bulk import FolderSink

from .conftest import Answer, Shitu

LABELS = ["cola", "ценник", "緑茶", "a\u2028b\u0085c", " blanks ", "x" * 512]


def codes(count: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, bits // 8), np.uint8)


class Files:
    """Writes the files of a load and runs it."""

    def __init__(self, shitu: Shitu, folder: Path) -> None:
        self.shitu = shitu
        self.folder = folder
        self.options: list[Any] = []

    def write(self, array: np.ndarray | bytes, **texts: str | bytes) -> None:
        if isinstance(array, bytes):
            (self.folder / "codes.npy").write_bytes(array)
        else:
            np.save(self.folder / "codes.npy", array)
        self.options = []
        for name, text in texts.items():
            path = self.folder / f"{name}.txt"
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            self.options += [f"--{name}", path]

    def __call__(self, *options: object) -> Answer:
        return self.shitu("gallery", "load", self.folder / "codes.npy", *self.options, *options)


@pytest.fixture
def files(shitu: Shitu, tmp_path: Path) -> Files:
    return Files(shitu, tmp_path)


def lines(values: Sequence[object]) -> str:
    return "".join(f"{value}\n" for value in values)


def test_a_new_folder_becomes_a_gallery_of_the_codes(files: Files, tmp_path: Path) -> None:
    array = codes(6)
    metadata = [{"n": n, "größe": "ü"} if n % 2 else {} for n in range(6)]
    files.write(
        array,
        labels="\ufeff" + "\r\n".join(LABELS),
        ids=lines([f"own:{n}" for n in range(6)]),
        metadata=lines([json.dumps(each) for each in metadata]),
    )
    done = files("--data-dir", tmp_path / "data", "--fingerprint", "my model")
    assert (done.code, done.err) == (0, "")
    assert done.out == "6 of 6 codes: 6 added, 0 unchanged, 0 returned, 0 refused; 6 items now\n"
    with open_gallery(tmp_path / "data", 64, fingerprint="my model") as store:
        assert [(item.id, item.label, item.code, item.metadata) for item in store.list().items] == [
            (f"own:{n}", LABELS[n], array[n].tobytes(), metadata[n]) for n in range(6)
        ]


def test_without_ids_and_model_both_are_made_up(files: Files, tmp_path: Path) -> None:
    files.write(codes(3), labels="a\nb\nc\n")
    done = files("--data-dir", tmp_path / "data", "--json")
    assert done.code == 0
    assert "--adopt" in done.err
    assert done.json == {
        "codes": 3,
        "done": 3,
        "added": 3,
        "unchanged": 0,
        "returned": 0,
        "refused": 0,
        "refusals": [],
        "items": 3,
        "model_fingerprint": "unknown",
    }
    with open_gallery(tmp_path / "data") as store:
        assert [item.label for item in store.list().items] == ["a", "b", "c"]  # made ids rise


def test_no_model_is_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", codes(2))
    (tmp_path / "labels.txt").write_text("a\nb\n")
    script = (
        "import sys, service.cli as cli\n"
        "try: cli.app(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "sys.exit('paddle was imported' if 'paddle' in sys.modules else 0)"
    )
    arguments = ["gallery", "load", "codes.npy", "--labels", "labels.txt", "--data-dir", "data"]
    environment = os.environ | {"PYTHONPATH": str(Path(bulk.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_an_existing_gallery_takes_codes_of_its_own_kind_only(files: Files, tmp_path: Path) -> None:
    with open_gallery(tmp_path / "data", 64, fingerprint="m1") as store:
        store.add([Item(None, "x", bytes(8))])
    files.write(codes(2), labels="a\nb")
    assert files("--data-dir", tmp_path / "data").code == 0
    assert files("--data-dir", tmp_path / "data", "--fingerprint", "m1").code == 0
    other = files("--data-dir", tmp_path / "data", "--fingerprint", "m2")
    assert other.code == 1
    assert "model m2" in other.err
    assert "model m1" in other.err
    files.write(codes(2, bits=128), labels="a\nb")
    longer = files("--data-dir", tmp_path / "data")
    assert longer.code == 1
    assert "128 bits" in longer.err
    with open_gallery(tmp_path / "data", 64, fingerprint="m1") as store:
        assert len(store) == 5


# Bad input


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones((3, 64), np.float32), "float32 (3, 64)"),
        (np.ones((3, 64), bool), "bool (3, 64)"),
        (np.ones((3, 8), np.int8), "int8 (3, 8)"),
        (np.ones(8, np.uint8), "uint8 (8,)"),
        (np.ones((3, 2, 4), np.uint8), "uint8 (3, 2, 4)"),
        (np.ones((3, 0), np.uint8), "uint8 (3, 0)"),
        (np.eye(3, 64, dtype=np.uint8), "one bit a byte"),
        (b"text", "no array of codes"),
        (b"", "no array of codes"),
    ],
)
def test_what_are_no_packed_codes_is_refused_with_the_recipe(
    files: Files, tmp_path: Path, array: np.ndarray | bytes, reason: str
) -> None:
    files.write(array, labels="a\nb\nc\n")
    refused = files("--data-dir", tmp_path / "data")
    assert refused.code == 1
    assert reason in refused.err
    assert "numpy.packbits(features > 0, axis=1)" in refused.err
    assert not (tmp_path / "data").exists()


def test_no_pickle_is_read(files: Files, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    np.save(tmp_path / "codes.npy", np.array([[Bomb()]], object), allow_pickle=True)
    data = (tmp_path / "codes.npy").read_bytes()
    files.write(data, labels="a\n")
    assert files("--data-dir", tmp_path / "data").code == 1
    np.savez(tmp_path / "many.npz", codes(1))
    files.write((tmp_path / "many.npz").read_bytes(), labels="a\n")
    assert "several arrays" in files("--data-dir", tmp_path / "data").err
    assert not (tmp_path / "exploded").exists()


def test_an_array_cut_short_or_empty_is_refused(files: Files, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", codes(3))
    files.write((tmp_path / "codes.npy").read_bytes()[:-1], labels="a\nb\nc\n")
    assert "no array of codes" in files("--data-dir", tmp_path / "data").err
    files.write(codes(0), labels="")
    assert files("--data-dir", tmp_path / "data").code == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("texts", "reasons"),
    [
        ({"labels": "a\nb\n"}, ["labels.txt has 2 lines for 3 codes"]),
        ({"labels": "a\nb\nc\nd\n"}, ["labels.txt has 4 lines for 3 codes"]),
        ({"labels": "a\n\nc\n"}, ["line 2: a label is a text of 1 to 512 characters"]),
        ({"labels": "a\nb\n" + "x" * 513}, ["line 3: a label is"]),
        ({"labels": "a\nb\n\0"}, ["line 3: a label must not contain the NUL"]),
        ({"labels": b"a\nb\n\xff\n"}, ["labels.txt is not UTF-8"]),
        ({"labels": "a\nb\nc\n", "ids": "1\n2\n"}, ["ids.txt has 2 lines for 3 codes"]),
        ({"labels": "a\nb\nc\n", "ids": "1\n2 2\nü\n"}, ["line 2: an id has", "line 3: an id has"]),
        ({"labels": "a\nb\nc\n", "ids": "1\n2\n1\n"}, ["line 3: the id '1' is that of line 1"]),
        ({"labels": "a\nb\nc\n", "metadata": "{}\n{}\n"}, ["metadata.txt has 2 lines"]),
        ({"labels": "a\nb\nc\n", "metadata": "{}\n[]\n{}\n"}, ["line 2: must be a JSON object"]),
        ({"labels": "a\nb\nc\n", "metadata": "{}\n\n{}\n"}, ["line 2: is not JSON"]),
        ({"labels": "a\nb\nc\n", "metadata": '{}\n{}\n{"a": NaN}\n'}, ["line 3: metadata must be a JSON object"]),
    ],
)
def test_lines_are_checked_before_anything_is_stored(
    files: Files, tmp_path: Path, texts: dict[str, str | bytes], reasons: list[str]
) -> None:
    files.write(codes(3), **texts)
    refused = files("--data-dir", tmp_path / "data")
    assert (refused.code, refused.out) == (1, "")
    for reason in reasons:
        assert reason in refused.err
    assert not (tmp_path / "data").exists()


def test_missing_files_are_told(files: Files, tmp_path: Path, shitu: Shitu) -> None:
    files.write(codes(1), labels="a\n")
    (tmp_path / "labels.txt").unlink()
    assert "labels.txt cannot be read" in files("--data-dir", tmp_path / "data").err
    missing = shitu("gallery", "load", tmp_path / "none.npy", "--labels", tmp_path / "labels.txt")
    assert "none.npy cannot be read" in missing.err


# Again, and on


def test_a_load_with_ids_can_be_repeated(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderSink, "batch_size", 4)
    array = codes(10)
    files.write(array, labels=lines(range(10)), ids=lines([f"n{n}" for n in range(10)]))
    assert files("--data-dir", tmp_path / "data").code == 0
    with open_gallery(tmp_path / "data") as store:
        store.remove(["n3", "n7"])
        store.replace(Item("n5", "another", array[5].tobytes()))
    again = files("--data-dir", tmp_path / "data", "--json")
    assert again.code == 1
    report = again.json
    assert [report[name] for name in ("added", "unchanged", "returned", "refused", "items")] == [2, 7, 0, 1, 10]
    assert report["refusals"] == [
        {"line": 6, "reason": "an item with id 'n5' exists: choose another id or replace the item"}
    ]
    shown = files("--data-dir", tmp_path / "data")
    assert "line 6: an item with id 'n5' exists" in shown.err


@pytest.mark.parametrize("where", ["folder", "server"])
def test_equal_codes_are_added_returned_or_rejected(
    files: Files, tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    if where == "server":
        url = request.getfixturevalue("empty_server")
        target = ["--server", url]
        bits = httpx.get(f"{url}/index").json()["bits"]
    else:
        target, bits = ["--data-dir", str(tmp_path / "data")], 64
    array = np.concatenate([codes(3, bits, seed=7), codes(1, bits, seed=7)])
    files.write(array, labels="a\nb\nc\nd\n")
    rejected = files(*target, "--on-duplicate", "reject", "--json")
    assert [rejected.json[name] for name in ("added", "returned", "refused")] == [3, 0, 1]
    assert rejected.json["refusals"][0]["line"] == 4
    assert "has an equal code" in rejected.json["refusals"][0]["reason"]
    returned = files(*target, "--on-duplicate", "return", "--json")
    assert (returned.code, returned.json["returned"]) == (0, 4)
    assert files(*target, "--json").json["added"] == 4


def test_a_server_is_loaded_in_batches_that_it_takes(
    files: Files, tmp_path: Path, empty_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = httpx.get(f"{empty_server}/index").json()["bits"]
    array = codes(2500, bits, seed=3)
    files.write(
        array,
        labels=lines(["batch"] * 2500),
        ids=lines([f"b{n}" for n in range(2500)]),
        metadata=lines([json.dumps({"n": n} if n % 3 else {}) for n in range(2500)]),
    )
    done = files("--server", empty_server, "--json")
    assert (done.code, done.json["added"]) == (0, 2500)
    item = httpx.get(f"{empty_server}/gallery/b2498").json()
    assert (item["label"], item["code"], item["metadata"]) == ("batch", array[2498].tobytes().hex(), {"n": 2498})
    httpx.put(f"{empty_server}/gallery/b7", json={"label": "other", "code": item["code"]})
    again = files("--server", empty_server, "--json")
    assert [again.json[name] for name in ("added", "unchanged", "refused")] == [0, 2499, 1]
    assert again.json["refusals"][0]["line"] == 8
    monkeypatch.setattr("service.commands.bulk.ServerSink.batch_size", 12_000)  # more than a server takes at once
    files.write(np.concatenate([array] * 5), labels=lines(["more"] * 12_500))
    assert files("--server", empty_server, "--json").json["added"] == 12_500
    wrong = files("--server", empty_server, "--fingerprint", "other")
    assert (wrong.code, "model other" in wrong.err) == (1, True)
    files.write(codes(2, bits + 64), labels="a\nb\n")
    assert f"{bits + 64} bits" in files("--server", empty_server).err


def test_parts_can_be_loaded(files: Files, tmp_path: Path) -> None:
    files.write(codes(10), labels=lines(range(10)))
    assert files("--data-dir", tmp_path / "data", "--skip", "7", "--json").json["added"] == 3
    with open_gallery(tmp_path / "data") as store:
        assert [item.label for item in store.list().items] == ["7", "8", "9"]
    assert files("--data-dir", tmp_path / "data", "--skip", "11").code == 2


@pytest.mark.parametrize("with_ids", [False, True])
def test_an_interrupted_load_says_how_to_go_on(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_ids: bool
) -> None:
    monkeypatch.setattr(FolderSink, "batch_size", 3)
    add = FolderSink.add

    def add_and_interrupt(self: FolderSink, items: Any, on_duplicate: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return add(self, items, on_duplicate)

    texts = {"labels": lines(range(8))} | ({"ids": lines([f"n{n}" for n in range(8)])} if with_ids else {})
    files.write(codes(8), **texts)
    with monkeypatch.context() as interrupting:
        interrupting.setattr(FolderSink, "add", add_and_interrupt)
        stopped = files("--data-dir", tmp_path / "data")
    assert stopped.code == 1
    assert "3 of 8 codes: 3 added" in stopped.out  # the batch under way was finished
    assert "stopped after 3 of 8 items" in stopped.err
    assert ("the same command" in stopped.err) == with_ids
    assert "--skip 3" in stopped.err
    done = files("--data-dir", tmp_path / "data", "--json", *(() if with_ids else ("--skip", "3")))
    assert (done.code, done.json["items"], done.json["unchanged"]) == (0, 8, 3 if with_ids else 0)


def test_a_gallery_that_fails_on_the_way_says_how_to_go_on(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHITU_MIN_FREE_BYTES", "0")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        files.write(codes(60_000, 512), labels=lines(["x" * 200] * 60_000))
        full = files("--data-dir", disk / "data")
        assert full.code == 1
        assert "no room left" in full.err
        assert "--skip" in full.err
        done = int(full.err.split("--skip ")[1])
        assert done % 10_000 == 0
        with open_gallery(disk / "data") as store:
            assert len(store) == done
    finally:
        time.sleep(0.05)
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
