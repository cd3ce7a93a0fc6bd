"""Downloads from a real server on a loopback port, which breaks off, changes its mind, and counts what it is asked."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.hub import ContentMismatch, DownloadError
from models.hub.download import download

from ..file_server import FileServer, serve

ROOT = Path(__file__).parents[3]
SIZE = 3_000_000
CONTENT = np.random.default_rng(0).bytes(SIZE)
OTHER = np.random.default_rng(1).bytes(SIZE - 1000)
FETCH = """
import sys
from pathlib import Path
from models.hub.download import download
download(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait before another attempt: the server is ready for it."""
    monkeypatch.setattr("models.hub.download._PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(CONTENT) as running:
        yield running


class Stop(Exception):
    """The user's Ctrl-C."""


def interrupt(server: FileServer, target: Path, after: int = 1_000_000) -> int:
    """Begin a download and stop it; gives the bytes that are kept."""

    def watch(received: int, _: int | None) -> None:
        if received >= after:
            raise Stop

    with pytest.raises(Stop):
        download(server.url, target, progress=watch)
    assert not target.exists()
    kept = target.with_name(f"{target.name}.part").stat().st_size
    assert after <= kept < SIZE
    return kept


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_comes_whole_with_its_folder_and_progress(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = download(server.url, tmp_path / "a" / "b" / "file", progress=lambda *told: seen.append(told))
    assert target.read_bytes() == CONTENT
    assert files(target.parent) == ["file"]
    assert [received for received, _ in seen] == sorted({received for received, _ in seen})
    assert seen[-1] == (SIZE, SIZE)


def test_what_is_there_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    for _ in range(3):
        download(server.url, tmp_path / "file")
    assert server.asked == [None]


def test_a_transfer_that_breaks_off_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [1_000_000, 500_000]
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1500000-"]


def test_the_next_call_goes_on_where_the_last_gave_up(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [1_000_000, 0, 40_000]
    with pytest.raises(DownloadError, match=r"weights\.pdparams broke off 3 times, with 1,040,000 bytes here"):
        download(server.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    seen: list[tuple[int, int | None]] = []
    assert download(server.url, tmp_path / "file", progress=lambda *told: seen.append(told)).read_bytes() == CONTENT
    assert server.asked[3:] == ["bytes=1040000-"]
    assert seen[0][0] > 1_040_000
    assert {total for _, total in seen} == {SIZE}
    assert files(tmp_path) == ["file"]


def test_what_brings_something_is_tried_on_and_on(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [0, 1_100_000, 0]
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert len(server.asked) == 4


def test_an_interrupted_download_goes_on(server: FileServer, tmp_path: Path) -> None:
    kept = interrupt(server, tmp_path / "file")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]


def test_a_time_of_change_serves_where_the_etag_is_weak(server: FileServer, tmp_path: Path) -> None:
    server.headers = {"ETag": 'W/"one"', "Last-Modified": "Tue, 01 Jun 2021 10:00:00 GMT"}
    kept = interrupt(server, tmp_path / "file")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]


def test_a_server_without_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    kept = interrupt(server, tmp_path / "file")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]


def test_without_a_way_to_tell_that_it_is_the_same_file_all_comes_again(server: FileServer, tmp_path: Path) -> None:
    server.headers = {}
    interrupt(server, tmp_path / "file")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, None]


@pytest.mark.parametrize("careful", [True, False])
def test_parts_of_different_files_are_not_put_together(server: FileServer, tmp_path: Path, careful: bool) -> None:
    interrupt(server, tmp_path / "file")
    server.content, server.headers, server.careful = OTHER, {"ETag": '"two"'}, careful
    assert download(server.url, tmp_path / "file").read_bytes() == OTHER


def test_a_part_of_another_address_is_not_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file")
    server.content = OTHER  # and the same ETag
    assert download(f"{server.url}?other", tmp_path / "file").read_bytes() == OTHER
    assert server.asked == [None, None]


def test_a_server_that_sends_another_range_is_asked_anew(server: FileServer, tmp_path: Path) -> None:
    kept = interrupt(server, tmp_path / "file")
    server.shift = 10
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-", None]


def test_a_call_that_ended_just_before_the_rename_is_completed(server: FileServer, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={SIZE}-"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT


def test_the_checksum_decides(server: FileServer, tmp_path: Path) -> None:
    right = hashlib.md5(CONTENT).hexdigest()
    damaged = bytearray(CONTENT)
    damaged[1234] ^= 1
    server.content = bytes(damaged)
    with pytest.raises(ContentMismatch, match=rf"{hashlib.md5(damaged).hexdigest()}, and {right} is right"):
        download(server.url, tmp_path / "file", md5=right)
    assert files(tmp_path) == []
    server.content = CONTENT
    assert download(server.url, tmp_path / "file", md5=right).read_bytes() == CONTENT


@pytest.mark.parametrize("broken_off", [False, True])
def test_the_checksum_that_the_server_gives_decides_too(server: FileServer, tmp_path: Path, broken_off: bool) -> None:
    digest = hashlib.md5(CONTENT)
    server.headers["Content-MD5"] = base64.b64encode(digest.digest()).decode()
    if broken_off:  # the whole file's checksum is kept for what comes later
        interrupt(server, tmp_path / "file")
        del server.headers["Content-MD5"]
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(ContentMismatch, match=rf"came with the MD5 checksum .*, and {digest.hexdigest()} is right"):
        download(server.url, tmp_path / "file")
    assert files(tmp_path) == []
    server.content = CONTENT
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT


def test_what_the_caller_cannot_use_is_not_kept(server: FileServer, tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        download(server.url, tmp_path / "file", verify=verify)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("status", "phrase"), [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503 Service")])
def test_a_refusal_is_told_with_the_address(server: FileServer, tmp_path: Path, status: int, phrase: str) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=rf"{server.url} answers {phrase}"):
        download(server.url, tmp_path / "file")
    assert files(tmp_path) == []
    assert len(server.asked) == 1


def test_without_a_network_the_address_is_told_soon(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/weights"
        started = time.monotonic()
        with pytest.raises(DownloadError, match=rf"cannot connect to {url}"):
            download(url, tmp_path / "file")
    assert time.monotonic() - started < 5
    with pytest.raises(DownloadError, match=r"cannot connect to http://no-such-host\.invalid/weights"):
        download("http://no-such-host.invalid/weights", tmp_path / "file")


def start(server: FileServer, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", FETCH, server.url, target], cwd=ROOT)


def test_of_two_processes_one_downloads(server: FileServer, tmp_path: Path) -> None:
    server.pause_s = 0.02  # about a second: both are under way together
    processes = [start(server, tmp_path / "file") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert server.asked == [None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_after_a_kill_another_process_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.pause_s = 0.05
    process = start(server, tmp_path / "file")
    part = tmp_path / "file.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 500_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    assert 500_000 < kept < SIZE
    server.pause_s = 0.0
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]


# What a server may not do


def test_the_sha256_decides(server: FileServer, tmp_path: Path) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()
    server.content = OTHER
    wrong = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(ContentMismatch, match=rf"{server.url} came with the SHA-256 checksum {wrong}, and {right} is"):
        download(server.url, tmp_path / "file", sha256=right)
    assert files(tmp_path) == []
    server.content = CONTENT
    assert download(server.url, tmp_path / "file", sha256=right).read_bytes() == CONTENT


def test_a_file_that_is_said_to_be_too_long_is_not_begun(server: FileServer, tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(DownloadError, match=rf"{server.url} is longer than the 2,999,999 bytes that are allowed"):
        download(server.url, tmp_path / "file", max_bytes=SIZE - 1, progress=lambda received, _: seen.append(received))
    assert (seen, files(tmp_path), server.asked) == ([], [], [None])
    assert download(server.url, tmp_path / "file", max_bytes=SIZE).read_bytes() == CONTENT


def test_a_body_without_an_end_is_cut(server: FileServer, tmp_path: Path) -> None:
    server.endless = True
    with pytest.raises(DownloadError, match="is longer than the 10,000,000 bytes"):
        download(server.url, tmp_path / "file", max_bytes=10_000_000)
    assert (files(tmp_path), server.asked) == ([], [None])


def test_a_web_page_in_place_of_the_file_is_told(server: FileServer, tmp_path: Path) -> None:
    kept = interrupt(server, tmp_path / "file")
    server.content, server.headers = b"<html>Please sign in</html>", {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match=rf"{server.url} answers with a web page .* sign in to the network"):
        download(server.url, tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size == kept  # for when the network is there
    server.content, server.headers = CONTENT, {"ETag": '"one"'}
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={kept}-"


def test_a_redirect_is_followed(server: FileServer, tmp_path: Path) -> None:
    server.redirect = server.url
    assert download(moved(server), tmp_path / "file").read_bytes() == CONTENT


def test_redirects_in_a_circle_end(server: FileServer, tmp_path: Path) -> None:
    server.redirect = "/moved"
    with pytest.raises(DownloadError, match="maximum allowed redirects"):
        download(moved(server), tmp_path / "file")


def test_a_redirect_may_not_lead_to_a_file(server: FileServer, tmp_path: Path) -> None:
    server.redirect = "file:///etc/hostname"
    with pytest.raises(DownloadError, match="no address of http or https"):
        download(moved(server), tmp_path / "file")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [openssl, *request, *names, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True
    )
    with path.open("ab") as stream:
        stream.write(path.with_suffix(".crt").read_bytes())
    return path


def test_a_redirect_may_not_leave_the_encryption(
    server: FileServer, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    with serve(CONTENT, certificate) as encrypted:
        assert download(encrypted.url, tmp_path / "direct").read_bytes() == CONTENT
        encrypted.redirect = encrypted.url
        assert download(moved(encrypted), tmp_path / "inside").read_bytes() == CONTENT
        encrypted.redirect = server.url
        with pytest.raises(DownloadError, match=rf"redirects to {server.url}, which is not encrypted: refused"):
            download(moved(encrypted), tmp_path / "outside")
    assert server.asked == []


def test_a_certificate_that_nobody_signed_is_refused(certificate: Path, tmp_path: Path) -> None:
    with serve(CONTENT, certificate) as encrypted, pytest.raises(DownloadError, match=r"cannot connect .*CERTIFICATE"):
        download(encrypted.url, tmp_path / "file")


def test_secrets_of_an_address_are_in_no_message_and_in_no_file(server: FileServer, tmp_path: Path) -> None:
    secret = f"{server.url.replace('//', '//user:hunter2@')}?signature=hunter2"
    interrupt(replace(server, url=secret), tmp_path / "file")
    assert all(b"hunter2" not in path.read_bytes() for path in tmp_path.iterdir())
    server.status = 403
    with pytest.raises(DownloadError) as caught:
        download(secret, tmp_path / "file")
    assert str(caught.value) == f"{server.url} answers 403 Forbidden"


def moved(server: FileServer) -> str:
    return server.url.replace("/models/", "/moved/")
