"""Threads that do the blocking work, so that the event loop never does.

Jobs wait in one queue a pool, first come first served but for urgent ones. Each thread owns one resource (a predictor
must not be shared), and a job runs with the resource of its thread and in the context of its caller, so that what it
logs and traces belongs to the caller's request.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .errors import NotReady

Resource = TypeVar("Resource")
Result = TypeVar("Result")


_URGENT, _USUAL, _END = range(3)


@dataclass(frozen=True, order=True)
class _Job(Generic[Resource]):
    priority: int
    number: int
    function: Callable[[Resource], Any] | None = field(compare=False)  # None: the thread ends
    context: contextvars.Context = field(compare=False, default_factory=contextvars.copy_context)
    future: Future[Any] = field(compare=False, default_factory=Future)


class WorkerPool(Generic[Resource]):
    """Threads with one resource each.

    How many jobs can wait is bounded by admission, not here.
    """

    def __init__(self, name: str, resources: Sequence[Resource]) -> None:
        """Start one thread a resource.

        Args:
            name: of the threads, for people.
            resources: one for each thread.
        """
        self._queue: queue.PriorityQueue[_Job[Resource]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closed = False
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(resource,), name=f"{name}-{index}", daemon=True)
            for index, resource in enumerate(resources)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every thread is there and takes jobs."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    async def run(self, function: Callable[[Resource], Result], *, urgent: bool = False) -> Result:
        """Run a function on one of the threads and return what it returns.

        A job whose caller is cancelled before it begins is skipped. An urgent one goes before all that wait.

        Raises:
            NotReady: the pool is closed; otherwise whatever the function raises.
        """
        job = _Job(_URGENT if urgent else _USUAL, next(self._numbers), function)
        with self._lock:  # a job behind the threads' end would wait for ever
            if self._closed:
                raise NotReady("the service is stopping", "shutting_down")
            self._queue.put(job)
        result: Result = await asyncio.wrap_future(job.future)
        return result

    def close(self, timeout_s: float) -> bool:
        """Finish what waits, then end the threads; tell whether they ended in time."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._queue.put(_Job(_END, next(self._numbers), None))
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, resource: Resource) -> None:
        while (job := self._queue.get()).function is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = job.context.run(job.function, resource)
            except BaseException as error:  # whatever it is, it belongs to the caller, who must not wait for ever
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
