"""The end of a service in its own process: signals, the delay before it, and what becomes of requests under way."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from index_store import open_gallery
from service.drain import Drain
from service.request_context import CURRENT, RequestContext

from .conftest import slow_upload

Start = Callable[..., Any]


def labels(folder: Path) -> list[str]:
    with open_gallery(folder) as store:
        return [item.label for item in store.list().items]


def position(log: list[str], *texts: str) -> list[int]:
    """Where in the log each text comes first."""
    return [next(number for number, line in enumerate(log) if text in line) for text in texts]


def test_a_leaving_service_is_not_ready_and_still_serves_until_a_second_signal(
    start_service: Start, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    service = start_service(tmp_path, SHITU_DRAIN_DELAY_S="3000")
    upload, rest = slow_upload(service.port, "in flight", photo_files["coffee"])
    service.wait_until_under_way()
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert client.get("/readyz").status_code == 200
        assert "connection" not in client.get("/livez").headers
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_line("stopped by SIGTERM")
        for _ in range(3):  # new connections, since each answer ends its own
            unready = client.get("/readyz")
            assert (unready.status_code, unready.json()["code"]) == (503, "shutting_down")
            assert unready.headers["connection"] == "close"
            assert client.post("/search", files={"image": photo_files["rocket"]}).status_code == 200
        assert client.post("/gallery", json={"code": "00" * 64, "label": "late"}).status_code == 201
        service.process.send_signal(signal.SIGINT)
        service.wait_for_line("the delay is cut short")
        service.wait_for_line("no new connections")
        service.wait_for_line("Shutting down")
        service.wait_until_closed()
    assert service.process.poll() is None
    upload.send(rest)
    answer = upload.getresponse()
    assert answer.status == 201
    assert answer.getheader("connection") == "close"
    upload.close()
    assert service.wait() == 0, service.log
    said = ("stopped by SIGTERM: not ready any more", "SIGINT again", "no new connections", "shitu.service: stopped")
    steps = position(service.log, *said)
    assert steps == sorted(steps)
    assert "Traceback" not in "".join(service.log)
    assert "FatalError" not in "".join(service.log)  # of Paddle's own handlers
    assert "shitu.serve [" not in "".join(service.log)  # it is no request's doing
    assert sorted(labels(tmp_path)) == ["in flight", "late"]


def test_the_delay_ends_by_itself() -> None:
    steps: list[str] = []

    async def scenario() -> None:
        closed = asyncio.Event()

        def close() -> None:
            steps.append("closed")
            closed.set()

        drain = Drain(0.2, leave=lambda: steps.append("leaving"), close=close, give_up=lambda: steps.append("given up"))
        drain.obey(signal.SIGINT)
        assert steps == ["leaving"]
        await asyncio.wait_for(closed.wait(), 60)

    asyncio.run(scenario())
    assert steps == ["leaving", "closed"]


def test_a_stop_belongs_to_no_request_though_one_runs_when_the_signal_comes() -> None:
    requests: list[RequestContext | None] = []

    async def scenario() -> None:
        closed = asyncio.Event()

        def note() -> None:
            requests.append(CURRENT.get())

        def close() -> None:
            note()
            closed.set()

        CURRENT.set(RequestContext("under way"))
        Drain(0.01, leave=note, close=close, give_up=note).obey(signal.SIGTERM)
        await asyncio.wait_for(closed.wait(), 60)

    asyncio.run(scenario())
    assert requests == [None, None]


def test_a_second_signal_gives_up_what_is_under_way(
    start_service: Start, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    service = start_service(tmp_path, SHITU_DRAIN_TIMEOUT_S="3000")
    large = {"code": "00" * 64, "label": "before", "metadata": {"text": "x" * 60_000}}
    httpx.post(f"{service.url}/gallery/batch", json={"items": [large] * 100}, timeout=60).raise_for_status()
    with socket.socket() as idler:  # takes nothing of its answer, which is more than what the system keeps for it
        idler.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idler.settimeout(60)
        idler.connect(("127.0.0.1", service.port))
        idler.sendall(b"GET /gallery?limit=100 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idler.recv(12) == b"HTTP/1.1 200"
        upload, _ = slow_upload(service.port, "never done", photo_files["coffee"])
        service.wait_until_under_way()
        service.process.send_signal(signal.SIGINT)
        service.wait_for_line("no new connections")
        service.wait_for_line("Waiting for connections to close")
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        answer = upload.getresponse()
        assert answer.status == 503
        assert answer.getheader("content-type") == "application/problem+json"
        assert b"shutting_down" in answer.read()
        upload.close()
        assert service.process.wait(50) == 0  # without the second signal the idler is cut off after a minute
    service.wait()
    assert "Traceback" not in "".join(service.log)
    assert any("requests under way are given up" in line for line in service.log)
    assert labels(tmp_path) == ["before"] * 100


def test_a_signal_before_the_start_is_over_ends_it_in_good_order(start_service: Start, tmp_path: Path) -> None:
    service = start_service(tmp_path, ready=False)
    service.wait_for_line("Started server process")
    assert service.stop() == 0, service.log
    assert any("before the start was over" in line for line in service.log)
    assert service.output == ""  # it did not say that it was ready
    assert "Traceback" not in "".join(service.log)
    assert labels(tmp_path) == []


def test_a_request_that_never_ends_does_not_hold_up_the_stop(
    start_service: Start, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    service = start_service(tmp_path, SHITU_DRAIN_TIMEOUT_S="1")
    upload, _ = slow_upload(service.port, "never", photo_files["coffee"])
    service.wait_until_under_way()
    assert service.stop() == 0
    assert "Traceback" not in "".join(service.log)
    answer = upload.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (503, "application/problem+json")
    upload.close()
    assert labels(tmp_path) == []
