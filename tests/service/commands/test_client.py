"""The commands' client of a server: busy servers, large batches, and what is no such server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from service.commands.access import Enrolment, ServerRefusal
from service.commands.client import RemoteGallery

from .conftest import Draw, Server


def test_a_busy_server_is_asked_again(start_server: Callable[..., Server], draw: Draw, tmp_path: Path) -> None:
    server = start_server(
        "--data-dir", tmp_path / "data", "--detector-dir", "", environment={"SHITU_MAX_CONCURRENT_REQUESTS": "1"}
    )
    url = server.url()
    picture = draw(f"{tmp_path}/a.png", 1).read_bytes()
    together = threading.Barrier(4)

    def enrol(number: int) -> str:
        with closing(RemoteGallery(url)) as gallery:
            together.wait()
            return str(gallery.add(Enrolment(picture, "busy", f"busy-{number}"))["id"])

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(enrol, range(4))) == [f"busy-{number}" for number in range(4)]
    metrics = httpx.get(f"{url}/metrics").text
    assert any('status="429"' in line for line in metrics.splitlines())


def test_batches_that_a_server_finds_too_large_are_halved(
    start_server: Callable[..., Server], draw: Draw, tmp_path: Path
) -> None:
    pictures = [draw(f"{tmp_path}/{number}.bmp", number).read_bytes() for number in range(5)]
    assert min(map(len, pictures)) > 90_000
    server = start_server(
        *("--data-dir", tmp_path / "data", "--detector-dir", ""), environment={"SHITU_MAX_BATCH_IMAGES": "2"}
    )
    small = start_server(
        *("--data-dir", tmp_path / "small", "--detector-dir", ""),
        environment={"SHITU_MAX_BATCH_BYTES": "300000", "SHITU_MAX_UPLOAD_BYTES": "200000"},
    )
    for url in (server.url(), small.url()):
        with closing(RemoteGallery(url)) as gallery:
            enrolments = [Enrolment(picture, "x", f"n{number}") for number, picture in enumerate(pictures)]
            outcomes = gallery.enrol(enrolments, frozenset())
            assert [outcome.item and outcome.item["id"] for outcome in outcomes] == [
                f"n{number}" for number in range(5)
            ]


def test_a_server_of_another_kind_is_told(tmp_path: Path) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            with closing(RemoteGallery(url)) as gallery, pytest.raises(ServerRefusal, match="is it one"):
                gallery.info()
        finally:
            server.shutdown()
            thread.join()
