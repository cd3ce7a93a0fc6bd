"""The end of a service in its own process: signals, the delay before it, and what becomes of requests under way."""

from __future__ import annotations

import asyncio
import http.client
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from index_store import open_gallery
from service.drain import Drain
from service.request_context import CURRENT, RequestContext

Start = Callable[..., Any]


def begin_enrolment(port: int, label: str, picture: bytes) -> tuple[http.client.HTTPConnection, bytes]:
    """Send half of an enrolment; give the other half."""
    head = (
        f'--x\r\nContent-Disposition: form-data; name="label"\r\n\r\n{label}\r\n'
        '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    )
    body = head.encode() + picture + b"\r\n--x--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/gallery")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    return connection, body[len(body) // 2 :]


def wait_until_under_way(url: str) -> None:
    deadline = time.monotonic() + 60
    while "shitu_requests_under_way 1.0" not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_closed(url: str) -> None:
    """Wait until new connections are refused; the log says so an instant before."""
    deadline = time.monotonic() + 60
    with suppress(httpx.ConnectError):
        while time.monotonic() < deadline:
            with suppress(httpx.ReadError, httpx.RemoteProtocolError):
                httpx.get(f"{url}/livez")
        pytest.fail("the service still takes connections")


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
    upload, rest = begin_enrolment(service.port, "in flight", photo_files["coffee"])
    wait_until_under_way(service.url)
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
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_line("the delay is cut short")
        service.wait_for_line("no new connections")
        service.wait_for_line("Shutting down")
        wait_until_closed(service.url)
    assert service.process.poll() is None
    upload.send(rest)
    answer = upload.getresponse()
    assert answer.status == 201
    assert answer.getheader("connection") == "close"
    upload.close()
    assert service.wait() == 0, service.log
    said = ("stopped by SIGTERM: not ready any more", "SIGTERM again", "no new connections", "shitu.service: stopped")
    steps = position(service.log, *said)
    assert steps == sorted(steps)
    assert "Traceback" not in "".join(service.log)
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
    httpx.post(f"{service.url}/gallery", json={"code": "00" * 64, "label": "before"})
    upload, _ = begin_enrolment(service.port, "never done", photo_files["coffee"])
    wait_until_under_way(service.url)
    service.process.send_signal(signal.SIGTERM)
    service.wait_for_line("no new connections")
    assert service.process.poll() is None
    service.process.send_signal(signal.SIGTERM)
    answer = upload.getresponse()
    assert answer.status == 503
    assert answer.getheader("content-type") == "application/problem+json"
    assert b"shutting_down" in answer.read()
    upload.close()
    assert service.wait() == 0, service.log
    assert "Traceback" not in "".join(service.log)
    assert any("requests under way are given up" in line for line in service.log)
    assert labels(tmp_path) == ["before"]
