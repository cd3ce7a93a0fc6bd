"""Whole pulls: from a real server into a real folder, again, at once, interrupted, and onto a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.hub import (
    ArchiveInvalid,
    ContentMismatch,
    DownloadError,
    KnownFile,
    PullRecord,
    PullRequest,
    RecordInvalid,
    TargetTaken,
    pull,
)
from models.hub.record import RECORD_NAME

from ..file_server import FileServer, serve
from .archives import MODEL, tar

ROOT = Path(__file__).parents[3]
LARGE = MODEL | {"inference.pdiparams": np.random.default_rng(0).bytes(3_000_000)}
CHANGED = MODEL | {"inference.pdiparams": b"other parameters"}
PULL = """
import os, sys, time
from pathlib import Path
from models.hub import PullRequest, pull
def verify(folder):
    if sys.argv[3:]:
        Path(sys.argv[3]).touch()
        time.sleep(60)
print(pull(PullRequest("mine", "hasher", sys.argv[1], Path(sys.argv[2])), verify=verify).is_new)
"""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.hub.download._PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(tar()) as running:
        yield running


@pytest.fixture
def request_(server: FileServer, tmp_path: Path) -> PullRequest:
    return PullRequest("mine", "hasher", server.url, tmp_path / "cache" / "mine")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != RECORD_NAME}


def around(request: PullRequest) -> set[str]:
    """What lies beside the model folder, without the lock, which stays."""
    return {path.name for path in request.folder.parent.iterdir()} - {f".{request.folder.name}.lock"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# What comes of a pull


def test_the_folder_has_the_files_and_their_record(request_: PullRequest, server: FileServer) -> None:
    pulled = pull(request_)
    assert (pulled.is_new, pulled.left_out) == (True, ())
    assert files(request_.folder) == MODEL
    assert around(request_) == {"mine"}
    record = PullRecord.read(request_.folder)
    assert record == pulled.record
    assert record.archive == KnownFile(len(server.content), sha256(server.content))
    assert record.files == {name: KnownFile(len(content), sha256(content)) for name, content in MODEL.items()}
    assert (record.name, record.kind, record.source) == ("mine", "hasher", server.url)
    assert record.compare(request_.folder) == []


def test_a_local_archive_is_left_as_it_is(request_: PullRequest, tmp_path: Path) -> None:
    archive = tmp_path / "here.tar"
    archive.write_bytes(tar())
    request = replace(request_, source=archive)
    assert pull(request).record.source == str(archive)
    assert files(request.folder) == MODEL
    assert archive.read_bytes() == tar()
    with pytest.raises(ContentMismatch, match=rf"{archive} has the SHA-256 .*, and {'0' * 64} was demanded"):
        pull(replace(request, folder=tmp_path / "other", sha256="0" * 64))
    assert archive.exists()


def test_an_empty_folder_is_filled(request_: PullRequest) -> None:
    request_.folder.mkdir(parents=True)
    assert pull(request_).is_new
    assert files(request_.folder) == MODEL


def test_secrets_of_an_address_are_not_recorded(request_: PullRequest, server: FileServer) -> None:
    secret = f"{server.url.replace('//', '//user:hunter2@')}?signature=hunter2"
    pull(replace(request_, source=secret))
    assert "hunter2" not in (request_.folder / RECORD_NAME).read_text("utf-8")


# Again


def test_what_is_there_and_intact_is_not_fetched_again(request_: PullRequest, server: FileServer) -> None:
    first = pull(request_)
    (request_.folder / "inference.extra.yml").write_text("of the user")
    again = pull(request_)
    assert (again.is_new, again.record) == (False, first.record)
    assert server.asked == [None]
    assert (request_.folder / "inference.extra.yml").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "inference.pdmodel").unlink(), "inference.pdmodel is missing"),
        (lambda folder: (folder / "inference.pdmodel").write_bytes(b"x"), "inference.pdmodel has 1 bytes, and 300 are"),
        (lambda folder: (folder / "inference.pdmodel").write_bytes(b"x" * 300), "inference.pdmodel has the SHA-256"),
    ],
)
def test_what_is_damaged_is_told_and_replaced_by_force(
    request_: PullRequest, damage: Callable[[Path], object], said: str
) -> None:
    pull(request_)
    damage(request_.folder)
    with pytest.raises(TargetTaken, match=rf"is there already, but {said}.*--force replaces it"):
        pull(request_)
    assert pull(request_, force=True).is_new
    assert files(request_.folder) == MODEL
    assert around(request_) == {"mine"}


def test_another_source_or_checksum_is_not_taken_for_the_same(request_: PullRequest, server: FileServer) -> None:
    pull(request_)
    with pytest.raises(TargetTaken, match=rf"it came from {server.url}, not from http://elsewhere/x.tar"):
        pull(replace(request_, source="http://elsewhere/x.tar"))
    with pytest.raises(TargetTaken, match=rf"its archive had the SHA-256 {sha256(tar())}, not {'0' * 64}"):
        pull(replace(request_, sha256="0" * 64))
    assert not pull(replace(request_, sha256=sha256(tar()))).is_new


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("record", [None, "{}", "[]", "{", '{"format": 2}', '{"name": "my web app"}'])
def test_a_folder_of_something_else_is_never_touched(request_: PullRequest, record: str | None, force: bool) -> None:
    request_.folder.mkdir(parents=True)
    (request_.folder / "thesis.txt").write_text("three years of work")
    if record is not None:
        (request_.folder / RECORD_NAME).write_text(record)
    with pytest.raises(TargetTaken, match="or choose another folder"):
        pull(request_, force=force)
    assert (request_.folder / "thesis.txt").read_text() == "three years of work"
    assert around(request_) == {"mine"}


def test_a_file_in_the_way_is_not_touched(request_: PullRequest) -> None:
    request_.folder.parent.mkdir(parents=True)
    request_.folder.write_text("a file")
    with pytest.raises(TargetTaken):
        pull(request_, force=True)
    assert request_.folder.read_text() == "a file"


def test_a_record_may_not_point_out_of_its_folder(request_: PullRequest) -> None:
    pull(request_)
    path = request_.folder / RECORD_NAME
    content = json.loads(path.read_text("utf-8"))
    content["files"]["../../../etc/passwd"] = content["files"].pop("inference.yml")
    path.write_text(json.dumps(content))
    with pytest.raises(RecordInvalid, match="no record of a pull"):
        PullRecord.read(request_.folder)


# What is not right leaves nothing


def test_files_that_are_not_what_is_known_are_not_kept(request_: PullRequest, server: FileServer) -> None:
    known = {"inference.pdmodel": KnownFile(300, sha256(MODEL["inference.pdmodel"])), "absent.yml": KnownFile(1)}
    with pytest.raises(ContentMismatch, match=rf"{server.url} is not the mine that this .*: absent.yml is missing\."):
        pull(replace(request_, files=known))
    assert around(request_) == set()
    known.pop("absent.yml")
    server.content = tar(MODEL | {"inference.pdmodel": b"x" * 300})
    with pytest.raises(ContentMismatch, match=r"inference\.pdmodel has the SHA-256"):
        pull(replace(request_, files=known))
    assert around(request_) == set()
    server.content = tar()
    assert pull(replace(request_, files=known)).is_new


def test_a_page_for_an_archive_is_not_kept_whatever_it_is_called(request_: PullRequest, server: FileServer) -> None:
    server.content, server.headers = b"<html>sign in</html>", {"Content-Type": "application/x-tar"}
    with pytest.raises(ArchiveInvalid, match=rf"{server.url} is a web page"):
        pull(request_)
    assert around(request_) == set()


@pytest.mark.parametrize(("status", "error"), [(404, DownloadError), (200, ArchiveInvalid)])
def test_a_failed_pull_leaves_an_earlier_one_alone(
    request_: PullRequest, server: FileServer, status: int, error: type[Exception]
) -> None:
    pull(request_)
    server.content, server.status = tar({}), status
    with pytest.raises(error):
        pull(request_, force=True)
    assert files(request_.folder) == MODEL
    assert around(request_) == {"mine"}


def test_what_fails_its_trial_is_not_kept_but_not_fetched_again(request_: PullRequest, server: FileServer) -> None:
    def fail(folder: Path) -> None:
        assert files(folder) == MODEL
        raise ValueError("no features")

    with pytest.raises(ValueError, match="no features"):
        pull(request_, verify=fail)
    assert around(request_) == {".mine.pull"}
    assert pull(request_).is_new
    assert server.asked == [None]
    assert around(request_) == {"mine"}


def test_by_force_the_archive_is_fetched_anew(request_: PullRequest, server: FileServer) -> None:
    test_what_fails_its_trial_is_not_kept_but_not_fetched_again(request_, server)
    server.content, server.headers = tar(CHANGED), {"ETag": '"two"'}
    pull(request_, force=True)
    assert files(request_.folder) == CHANGED


# Interruptions


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", PULL, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def test_of_two_processes_one_pulls(request_: PullRequest, server: FileServer) -> None:
    server.content, server.pause_s = tar(LARGE), 0.01
    processes = [start(request_.source, request_.folder) for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in processes) == ["False", "True"]
    assert server.asked == [None]
    assert files(request_.folder) == LARGE


def test_after_a_kill_in_the_download_the_next_pull_goes_on(request_: PullRequest, server: FileServer) -> None:
    server.content, server.pause_s = tar(LARGE), 0.1
    work = request_.folder.parent / ".mine.pull"
    process = start(request_.source, request_.folder)
    wait_for(lambda: any(path.stat().st_size > 500_000 for path in work.glob("*.part")), process)
    kill(process)
    assert not request_.folder.exists()
    server.pause_s = 0.0
    assert pull(request_).is_new
    assert files(request_.folder) == LARGE
    assert server.asked[0] is None
    assert str(server.asked[1]).startswith("bytes=")
    assert around(request_) == {"mine"}


def test_after_a_kill_before_the_rename_the_next_pull_cleans_up(
    request_: PullRequest, server: FileServer, tmp_path: Path
) -> None:
    process = start(request_.source, request_.folder, tmp_path / "unpacked")
    wait_for((tmp_path / "unpacked").exists, process)
    kill(process)
    assert around(request_) == {".mine.pull"}
    assert pull(request_).is_new
    assert server.asked == [None]
    assert around(request_) == {"mine"}


def test_after_a_kill_in_the_replacement_the_earlier_pull_is_back(request_: PullRequest) -> None:
    """Between two renames the folder is away."""
    pull(request_)
    (request_.folder.parent / ".mine.pull").mkdir()
    request_.folder.rename(request_.folder.parent / ".mine.pull" / "before")
    assert not pull(request_).is_new
    assert files(request_.folder) == MODEL
    assert around(request_) == {"mine"}


def test_a_connection_that_breaks_off_is_taken_up_again(request_: PullRequest, server: FileServer) -> None:
    server.content, server.breaks = tar(LARGE), [1_000_000, 1_500_000]
    pull(request_)
    assert server.asked == [None, "bytes=1000000-", "bytes=2500000-"]
    assert files(request_.folder) == LARGE


def test_a_full_disk_leaves_no_model_and_another_try_goes_on(
    request_: PullRequest, server: FileServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        server.content = tar(LARGE)  # 3 MB, and unpacked again as much
        request = replace(request_, folder=disk / "mine")
        with pytest.raises(OSError, match="No space left") as caught:
            pull(request)
        assert caught.value.errno == errno.ENOSPC
        assert around(request) == {".mine.pull"}
        assert not (disk / ".mine.pull" / "made").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert pull(request).is_new
        assert server.asked == [None]
        assert files(request.folder) == LARGE
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_folder_is_open_to_those_whom_the_umask_lets_in(request_: PullRequest) -> None:
    pull(request_)
    umask = os.umask(0)
    os.umask(umask)
    assert request_.folder.stat().st_mode & 0o777 == 0o777 & ~umask
