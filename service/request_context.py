"""Which request the running code works for: known wherever its work goes, on the event loop and on threads."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

SHOWN_CHARACTERS = 200
"""Of a path, a method or a name that a client sent, in a line of the log or in a trace."""


class StageRecorder(Protocol):
    """Takes down the stages of one request; threads may share it."""

    def record_stage(self, stage: str, start_ns: int, end_ns: int, error: str | None) -> None:
        """Note a stage from one moment to another (nanoseconds since 1970); ``error`` names what ended it."""


@dataclass(frozen=True)
class RequestContext:
    """One request.

    Attributes:
        request_id: the id of ``X-Request-ID``.
        trace_id: 32 hexadecimal digits (W3C Trace Context); None where the request is not traced.
        stages: takes down the request's stages; None where it is not traced.
    """

    request_id: str
    trace_id: str | None = None
    stages: StageRecorder | None = None


CURRENT: ContextVar[RequestContext | None] = ContextVar("shitu_request", default=None)
"""The request of the running code; None outside of requests."""
