"""How many requests may be under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import NotReady, TooManyRequests

_RETRY_AFTER_S = 1


class Admission:
    """Permits for requests, given out before their bodies are read. Belongs to the event loop's thread."""

    def __init__(self, limit: int) -> None:
        """Give out at most ``limit`` permits at a time."""
        self._limit = limit
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
            raise TooManyRequests(self._limit, _RETRY_AFTER_S)
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
