"""``GET /backup`` over HTTP: a whole backup beside searches and changes, and clients that go away or fall asleep."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index_store import Item, check_backup, open_gallery, restore_gallery
from service.routes import backup as route

REQUEST = b"GET /backup HTTP/1.1\r\nHost: localhost\r\n\r\n"


def items_of(path: Path, folder: Path) -> list[str]:
    """Labels of the items in a backup, in the order in which they were enrolled."""
    restore_gallery(path, folder)
    with open_gallery(folder) as store:
        return [item.label for item in store.list(limit=100_000).items]


def lent(server: Any) -> int:
    """How many connections to the catalog are in use."""
    return int(server.app.state.runtime.store._catalog._readers._lent)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def large(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service whose backup is larger than what sockets hold."""
    with serve(tmp_path_factory.mktemp("large")) as server:
        rng = np.random.default_rng(3)
        store = server.app.state.runtime.store
        store.add(
            [
                Item(None, f"label {n}", rng.bytes(server.bits // 8), {"noise": rng.bytes(6000).hex()})
                for n in range(1200)
            ]
        )
        yield server


@contextmanager
def sleeping_client(port: int) -> Iterator[socket.socket]:
    """A client that asks for a backup and reads no more than its first bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(REQUEST)
        assert connection.recv(12) == b"HTTP/1.1 200"
        yield connection


def test_a_backup_over_http_is_the_gallery(server: Any, photo_files: dict[str, bytes], tmp_path: Path) -> None:
    for name, picture in photo_files.items():
        server.enrol(picture, name, metadata='{"größe": 1}')
    answer = server.client.get("/backup")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert re.fullmatch(
        r'attachment; filename="shitu-gallery-\d{8}T\d{6}Z\.zip"', answer.headers["content-disposition"]
    )
    assert "content-length" not in answer.headers
    assert answer.headers["x-request-id"]
    (tmp_path / "gallery.zip").write_bytes(answer.content)
    info = check_backup(tmp_path / "gallery.zip")
    index = server.client.get("/index").json()
    assert (info.items, info.bits, info.model_fingerprint) == (
        index["items"],
        index["bits"],
        index["model_fingerprint"],
    )
    restore_gallery(tmp_path / "gallery.zip", tmp_path / "folder")
    with open_gallery(tmp_path / "folder") as store:
        for item in store.list(limit=1000).items:
            assert server.client.get(f"/gallery/{item.id}").json() == {
                "id": item.id,
                "label": item.label,
                "metadata": item.metadata,
                "code": item.code.hex(),
                "created_at": item.created_at,
            }


def test_parameters_are_refused(server: Any) -> None:
    answer = server.client.get("/backup", params={"format": "tar"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")


def test_a_gallery_of_another_model_can_be_backed_up(serve: Any, tmp_path: Path) -> None:
    with open_gallery(tmp_path / "data", 64, fingerprint="another-model") as store:
        store.add([Item(None, "x", bytes(8))])
    with serve(tmp_path / "data") as server:
        (tmp_path / "gallery.zip").write_bytes(server.client.get("/backup").content)
    assert check_backup(tmp_path / "gallery.zip").model_fingerprint == "another-model"


def test_backups_beside_enrolments_have_all_answered_before_and_none_begun_after(large: Any, tmp_path: Path) -> None:
    begun = answered = 0
    stop = threading.Event()
    rng = np.random.default_rng(4)
    before_all = large.count()

    def enrol() -> None:
        nonlocal begun, answered
        with httpx.Client(base_url=large.client.base_url) as client:
            while not stop.is_set():
                items = [{"code": rng.bytes(64).hex(), "label": f"new {begun}"} for _ in range(5)]
                begun += 1
                assert client.post("/gallery/batch", json={"items": items}).status_code == 200
                answered += 1

    thread = threading.Thread(target=enrol)
    thread.start()
    try:
        for number in range(3):
            wait_until(lambda number=number: answered >= 3 * (number + 1))
            least = answered
            with (
                large.client.stream("GET", "/backup") as answer,
                (tmp_path / f"{number}.zip").open("wb") as file,
            ):
                pieces = answer.iter_raw()
                file.write(next(pieces))
                most = begun
                wait_until(lambda most=most: answered > most)
                for piece in pieces:
                    file.write(piece)
            labels = items_of(tmp_path / f"{number}.zip", tmp_path / f"{number}")
            new = [label for label in labels if label.startswith("new")]
            batches = len(new) // 5
            assert least <= batches <= most
            assert new == [f"new {batch}" for batch in range(batches) for _ in range(5)]
            assert len(labels) == before_all + len(new)
    finally:
        stop.set()
        thread.join(30)


def test_a_client_that_goes_away_frees_the_catalog(large: Any) -> None:
    with sleeping_client(large.port):
        wait_until(lambda: lent(large) == 1)
        code = np.random.default_rng(9).bytes(large.bits // 8)
        item = large.enrol_code(code, "beside")  # nobody waits for the sleeper
        (found,) = large.search_json(code=code.hex(), hamming_radius=0)
        assert [match["id"] for match in found["matches"]] == [item["id"]]
        assert lent(large) == 1
    wait_until(lambda: lent(large) == 0)
    assert large.client.get("/health").json()["requests_under_way"] == 0


def test_a_client_that_takes_nothing_is_given_up(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_STALL_S", 0.3)
    with sleeping_client(large.port):
        wait_until(lambda: lent(large) == 1)
        wait_until(lambda: lent(large) == 0)


def test_more_backups_than_allowed_are_told_to_come_again(large: Any) -> None:
    with sleeping_client(large.port), sleeping_client(large.port):
        wait_until(lambda: lent(large) == 2)
        answer = large.client.get("/backup")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert int(answer.headers["retry-after"]) >= 1
        assert large.client.get("/gallery").status_code == 200
    wait_until(lambda: lent(large) == 0)
    assert large.client.get("/backup").status_code == 200


def test_a_service_stops_beside_a_backup_that_nobody_takes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with open_gallery(tmp_path / "data", 64) as store:
        store.add([Item(None, "x", rng.bytes(8), {"noise": rng.bytes(6000).hex()}) for _ in range(1000)])
    serve = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    arguments = [*serve, "--detector-dir", ""]
    environment = os.environ | {"SHITU_DRAIN_TIMEOUT_S": "1"}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+)", process.stdout.readline().partition("http")[2])
        assert found
        with sleeping_client(int(found[1])):
            begun = time.monotonic()
            process.terminate()
            assert process.wait(30) == 0
            assert time.monotonic() - begun < 20
    with open_gallery(tmp_path / "data") as store:
        assert len(store) == 1000
