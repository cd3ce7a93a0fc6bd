"""Logs of a service in its own process, as text and as JSON, from its start to its end."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.batching import WorkerPool
from service.logs import configure, hold_back
from service.request_context import CURRENT, RequestContext

TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
HOSTILE = "/nothing%0A2026-01-01%2000:00:00,000%20ERROR%20forged:%20line%1b[31m%E2%80%A8%C2%85end"


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """The lines on standard error since they were last asked for; the logging of the tests is put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []

    def lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield lines
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def use(url: str) -> None:
    """Ask a service this and that, some of it with malice."""
    with httpx.Client(base_url=url, timeout=30) as client:
        assert client.get("/gallery", headers={"X-Request-ID": "mine.1"}).headers["x-request-id"] == "mine.1"
        client.get("/livez")
        client.get(HOSTILE, headers={"User-Agent": b"agent \x85 \xe2\x80\xa8"})
        refused = client.post("/gallery", json={"code": "00", "label": "a\nb"}, headers={"X-Request-ID": "mine.2"})
        assert refused.status_code == 422
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        raw.recv(1000)


def events(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_every_line_of_a_json_log_is_an_event(
    start_service: Callable[..., Any], tmp_path: Path, noisy_detector: Path
) -> None:
    service = start_service(tmp_path, SHITU_LOG_FORMAT="json", SHITU_DETECTOR_DIR=str(noisy_detector))
    use(service.url)
    assert service.stop() == 0
    assert service.output == ""
    logged = events(service.log)
    for event in logged:
        assert TIME.fullmatch(event["time"])
        assert event["level"] in ("INFO", "WARNING")
        assert event["logger"]
        assert event["message"]
    by_logger = {event["logger"] for event in logged}
    assert {"shitu.serve", "shitu.service", "shitu.access", "uvicorn.error", "native"} <= by_logger
    assert not any(event.get("route") == "/livez" for event in logged)
    listing = next(event for event in logged if event.get("request_id") == "mine.1")
    assert (listing["method"], listing["route"], listing["status"]) == ("GET", "/gallery", 200)
    assert listing["client"] == "127.0.0.1"
    assert listing["bytes_out"] > 0
    assert listing["duration_ms"] > 0
    assert listing["user_agent"].startswith("python-httpx")
    enrolment = next(event for event in logged if event.get("request_id") == "mine.2")
    assert (enrolment["status"], enrolment["bytes_in"]) == (422, len(b'{"code":"00","label":"a\\nb"}'))
    hostile = next(event for event in logged if event.get("route") == "unmatched")
    assert hostile["path"].startswith("/nothing\n2026-01-01")


def test_what_a_client_sends_never_begins_a_line_of_a_text_log(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    service = start_service(tmp_path, SHITU_LOG_LEVEL="debug")
    use(service.url)
    assert service.stop() == 0
    text = "".join(service.log)
    assert [line for line in text.splitlines() if not TEXT_LINE.match(line)] == []
    assert "\x1b" not in text
    (hostile,) = [line for line in service.log if "forged" in line]
    assert "/nothing\\n2026-01-01 00:00:00,000 ERROR forged: line\\x1b[31m\\u2028\\x85end 404" in hostile
    assert any("shitu.access [mine.1]: GET /gallery 200 in " in line for line in service.log)
    assert any("GET /livez 200" in line and " DEBUG " in line for line in service.log)
    for loaded in ("512 bits", "no detector", "0 items"):
        assert loaded in text


def test_what_ends_a_start_is_an_event_of_a_json_log(start_service: Callable[..., Any], tmp_path: Path) -> None:
    service = start_service(tmp_path, ready=False, SHITU_LOG_FORMAT="json", SHITU_HASHER_DIR=str(tmp_path / "nowhere"))
    assert service.process.wait(60) == 1
    service.stop()
    last = events(service.log)[-1]
    assert last["level"] == "CRITICAL"
    assert "nowhere" in last["message"]


def test_work_on_threads_is_logged_under_its_request(written: Callable[[], list[str]]) -> None:
    configure("json", "info")
    log = logging.getLogger("anything")

    async def handle(name: str, pool: WorkerPool[None]) -> None:
        CURRENT.set(RequestContext(name, trace_id=name * 2))
        await asyncio.gather(*(pool.run(lambda _: log.info("of %s", name)) for _ in range(20)))

    async def scenario() -> None:
        pool = WorkerPool[None]("test", [None] * 3)
        await asyncio.gather(*(handle(name, pool) for name in ("a", "b", "c")))
        assert pool.close(10)

    asyncio.run(scenario())
    log.info("of nobody")
    logged = events(written())
    assert len(logged) == 61
    for event in logged[:-1]:
        assert event["message"] == f"of {event['request_id']}"
        assert event["trace_id"] == event["request_id"] * 2
    assert not {"request_id", "trace_id"} & logged[-1].keys()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_logged_before_the_format_is_known_comes_first_and_in_it(
    written: Callable[[], list[str]], log_format: Any
) -> None:
    hold_back()
    logging.getLogger("early").info("not severe enough")
    logging.getLogger("early").warning("said early")
    assert written() == []
    configure(log_format, "warning")
    logging.getLogger("late").error("said late")
    lines = written()
    assert len(lines) == 2
    if log_format == "json":
        assert [event["message"] for event in events(lines)] == ["said early", "said late"]
    else:
        assert [line.rsplit(" ", 2)[-2:] for line in lines] == [["said", "early"], ["said", "late"]]


@pytest.mark.filterwarnings("default")
def test_what_is_odd_in_pictures_is_not_logged(written: Callable[[], list[str]]) -> None:
    configure("text", "info")
    for module in ("PIL.TiffImagePlugin", "other"):
        warnings.warn_explicit(f"tag data of {module}", UserWarning, "file.py", 1, module)
    logged = "".join(written())
    assert "tag data of other" in logged
    assert "PIL" not in logged


@pytest.mark.filterwarnings("default")
def test_tracebacks_and_warnings_keep_to_the_format(written: Callable[[], list[str]]) -> None:
    for log_format in ("json", "text"):
        configure(log_format, "info")
        try:
            raise ValueError("first\n2026-01-01 00:00:00,000 ERROR forged")
        except ValueError:
            logging.getLogger("any").exception("it\nfailed")
        logging.getLogger("py.warnings").warning("some.py:1: UserWarning: careful\n  code\n")
    lines = written()
    json_lines, text_lines = lines[:2], lines[2:]
    failure, warning = events(json_lines)
    assert failure["message"] == "it\nfailed"
    assert failure["exception"].startswith("Traceback")
    assert failure["exception"].endswith("ERROR forged")
    assert "careful" in warning["message"]
    begun = [line for line in text_lines if TEXT_LINE.match(line)]
    assert len(begun) == 2
    assert begun[0].endswith("any: it\\nfailed")
    assert all(line.startswith("    ") for line in text_lines if line not in begun)


def test_a_library_that_repeats_itself_is_heard_once_a_minute(written: Callable[[], list[str]]) -> None:
    configure("json", "info")
    for number in range(5):
        logging.getLogger("opentelemetry.exporter").warning("nobody answers, try %d", number)
        logging.getLogger("shitu.service").warning("ours %d", number)
    messages = [event["message"] for event in events(written())]
    assert messages == ["nobody answers, try 0", *(f"ours {number}" for number in range(5))]
