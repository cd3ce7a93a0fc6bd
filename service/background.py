"""Background tasks with an owner: what dies is known, what runs is ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_LOG = logging.getLogger("shitu.background")


class Background:
    """The background tasks of one service. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Own nothing yet."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, str] = {}

    @property
    def failures(self) -> dict[str, str]:
        """What went wrong, by task; a task that is started again and ends well is forgiven."""
        return dict(self._failures)

    def is_running(self, name: str) -> bool:
        """Whether a task of this name is under way."""
        return name in self._tasks

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until it ends. No task of this name may be running."""
        if name in self._tasks:
            work.close()
            raise ValueError(f"background task {name} is running already")
        self._tasks[name] = asyncio.create_task(work, name=name)
        self._tasks[name].add_done_callback(lambda task: self._ended(name, task))

    async def stop(self) -> None:
        """Cancel what runs and wait for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._tasks[name]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._failures.pop(name, None)
            return
        _LOG.error("background task %s failed", name, exc_info=error)
        self._failures[name] = f"{type(error).__name__}: {error}"
