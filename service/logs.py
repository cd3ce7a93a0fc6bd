"""Logs: one event a line on standard error, as text for people or as JSON for machines.

Every line that is logged while a request is handled names it (``request_id``, and ``trace_id`` where it is traced),
whichever thread and whichever library logs it. What a client sent can fill a line but never begin another one: in
text, control characters are escaped and tracebacks are indented.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import warnings
from datetime import datetime, timezone
from logging.handlers import MemoryHandler
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from .request_context import CURRENT

LogFormat = Literal["text", "json"]

_NATIVE = logging.getLogger("native")
_MOST_HELD_BACK = 10_000
_REPEATED_AFTER_S = 60.0
# Controls of ASCII and Latin-1, what ends a line in Unicode, and what turns the direction of writing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def hold_back() -> None:
    """Keep what is logged until :func:`configure` says how to write it; it is text if the process ends before."""
    _install(MemoryHandler(_MOST_HELD_BACK, logging.CRITICAL + 1, _stderr("text")), "INFO")


def configure(log_format: LogFormat, level: str) -> None:
    """Write what was held back, and what is logged from now on, to standard error.

    Args:
        log_format: text or json.
        level: the least severe level that is written: debug, info, warning or error.
    """
    root = logging.getLogger()
    held = [record for each in root.handlers if isinstance(each, MemoryHandler) for record in each.buffer]
    handler = _stderr(log_format)
    _install(handler, level.upper())
    for record in held:
        if record.levelno >= root.level:
            handler.handle(record)


def log_native_output() -> None:
    """Log what libraries write to standard output past Python, line by line, so that it does not stand in between.

    Standard error stays as it is: what a library has to say when it crashes would not get through a pipe.
    """
    source, sink = os.pipe()
    os.dup2(sink, 1)
    os.close(sink)
    threading.Thread(target=_log_lines, args=(source,), name="native output", daemon=True).start()


def _log_lines(source: int) -> None:
    with os.fdopen(source, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                _NATIVE.info(line.strip())


def printable(text: str) -> str:
    """Escape what could end a line or change how it looks."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _install(handler: logging.Handler, level: str) -> None:
    """Let everything be handled by one handler: our loggers, those of libraries, and Python's warnings."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, MemoryHandler):
            old.setTarget(None)  # it would write what it holds when it is closed
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    # Pillow has one for everything odd in a picture, thousands a file, and Python remembers each.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells of every instruction set it tries


def _stderr(log_format: LogFormat) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_name_request)
    handler.addFilter(_Throttle("opentelemetry"))
    return handler


def _name_request(record: logging.LogRecord) -> bool:
    """Add what is known of the request to a line; a handler calls it on the thread that logs."""
    request = CURRENT.get()
    if request is not None:
        record.request_id = request.request_id
        if request.trace_id is not None:
            record.trace_id = request.trace_id
    return True


class _Throttle(logging.Filter):
    """Lets one place of a library log once a minute: an exporter that reaches nobody says so for each try."""

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True  # another library's
        place, now = (record.pathname, record.lineno), time.monotonic()
        due = now - self._last.get(place, -_REPEATED_AFTER_S) >= _REPEATED_AFTER_S
        if due:
            self._last[place] = now
        return due


class _Text(logging.Formatter):
    """``time LEVEL logger [request id]: message``; tracebacks follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        request_id = getattr(record, "request_id", None)
        about = f" [{request_id}]" if request_id else ""
        message = printable(record.getMessage().rstrip("\n"))
        lines = [f"{self.formatTime(record)} {record.levelname:<7} {record.name}{about}: {message}"]
        if record.exc_info:
            lines += self.formatException(record.exc_info).split("\n")
        if record.stack_info:
            lines += self.formatStack(record.stack_info).split("\n")
        return "\n    ".join([lines[0], *map(printable, lines[1:])])


class _Json(JsonFormatter):
    """An object a line: time (RFC 3339, UTC), level, logger, message, what else the event tells, exception."""

    def __init__(self) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"},
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's message again, for terminals
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
