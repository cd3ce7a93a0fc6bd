"""How long the stages of a request take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .request_context import CURRENT


class StageTimes:
    """Seconds by stage: decode, detect, hash, search, draw, persist. Used by one thread at a time."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage, whether it succeeds or not, and to the trace of the request."""
        start, start_ns = time.perf_counter(), time.time_ns()
        error: str | None = None
        try:
            yield
        except BaseException as caught:
            error = type(caught).__name__
            raise
        finally:
            seconds = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            request = CURRENT.get()
            if request is not None and request.stages is not None:
                request.stages.record_stage(stage, start_ns, start_ns + int(seconds * 1e9), error)

    def add(self, other: StageTimes) -> None:
        """Add what another one measured."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
