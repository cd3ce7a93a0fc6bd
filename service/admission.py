"""How many requests may be under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import NotReady, TooManyRequests


class Admission:
    """Permits for requests, given out before their bodies are read. Belongs to the event loop's thread."""

    def __init__(self, limit: int, kind: str = "requests", retry_after_s: int = 1) -> None:
        """Give out at most ``limit`` permits at a time; who gets none may ask again after ``retry_after_s``."""
        self._limit = limit
        self._kind = kind
        self._retry_after_s = retry_after_s
        self._under_way = 0
        self._stopped = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def under_way(self) -> int:
        """How many requests hold a permit."""
        return self._under_way

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Hold a permit inside.

        Raises:
            TooManyRequests: all permits are out.
            NotReady: admission has stopped.
        """
        if self._stopped:
            raise NotReady("the service is stopping and takes no further requests", "shutting_down")
        if self._under_way >= self._limit:
            raise TooManyRequests(f"{self._limit} {self._kind}", self._retry_after_s)
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    def stop(self) -> None:
        """Give out no further permits."""
        self._stopped = True

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every permit is back; tell whether that was in time."""
        if self._under_way == 0:
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True
