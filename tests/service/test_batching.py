"""Worker threads."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.batching import WorkerPool
from service.errors import NotReady


def test_jobs_run_with_the_resource_of_their_thread() -> None:
    async def scenario() -> list[tuple[str, str]]:
        pool = WorkerPool("test", ["a", "b"])
        meeting = threading.Barrier(2)

        def job(resource: str) -> tuple[str, str]:
            meeting.wait(5)
            return resource, threading.current_thread().name

        results = await asyncio.gather(pool.run(job), pool.run(job))
        assert await asyncio.to_thread(pool.close, 5)
        return results

    results = asyncio.run(scenario())
    assert sorted(results) == [("a", "test-0"), ("b", "test-1")]


def test_an_urgent_job_goes_before_all_that_wait() -> None:
    async def scenario() -> list[str]:
        pool = WorkerPool("test", [None])
        begun, go = threading.Event(), threading.Event()
        done: list[str] = []

        def block(_: None) -> None:
            begun.set()
            go.wait(30)

        running = asyncio.create_task(pool.run(block))
        await asyncio.to_thread(begun.wait, 30)
        waiting = [asyncio.create_task(pool.run(lambda _, name=name: done.append(name))) for name in ("a", "b")]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(pool.run(lambda _: done.append("urgent"), urgent=True)))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(running, *waiting)
        assert await asyncio.to_thread(pool.close, 5)
        return done

    assert asyncio.run(scenario()) == ["urgent", "a", "b"]


def test_an_error_reaches_its_caller_and_the_thread_goes_on() -> None:
    async def scenario() -> None:
        pool = WorkerPool("test", [1])
        for error in (ValueError, MemoryError):

            def fail(_: int, error: type[Exception] = error) -> None:
                raise error("from the job")

            with pytest.raises(error, match="from the job"):
                await pool.run(fail)
        assert await pool.run(lambda resource: resource + 1) == 2
        assert pool.alive
        assert await asyncio.to_thread(pool.close, 5)

    asyncio.run(scenario())


def test_a_job_whose_caller_has_gone_is_skipped() -> None:
    async def scenario() -> list[str]:
        pool = WorkerPool("test", [None])
        begun, free = threading.Event(), threading.Event()
        done: list[str] = []

        def slow(_: None) -> None:
            begun.set()
            free.wait(5)
            done.append("slow")

        first = asyncio.create_task(pool.run(slow))
        await asyncio.to_thread(begun.wait, 5)
        second = asyncio.create_task(pool.run(lambda _: done.append("cancelled")))
        third = asyncio.create_task(pool.run(lambda _: done.append("third")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(first, third)
        assert await asyncio.to_thread(pool.close, 5)
        return done

    assert asyncio.run(scenario()) == ["slow", "third"]


def test_closing_finishes_what_waits_and_takes_nothing_new() -> None:
    async def scenario() -> None:
        pool = WorkerPool("test", [None])
        done: list[int] = []

        def job(number: int) -> None:
            time.sleep(0.01)
            done.append(number)

        tasks = [asyncio.create_task(pool.run(lambda _, number=number: job(number))) for number in range(5)]
        await asyncio.sleep(0)
        assert await asyncio.to_thread(pool.close, 5)
        await asyncio.gather(*tasks)
        assert done == [0, 1, 2, 3, 4]
        assert not pool.alive
        with pytest.raises(NotReady):
            await pool.run(lambda _: None)

    asyncio.run(scenario())


def test_closing_waits_no_longer_than_told() -> None:
    async def scenario() -> None:
        pool = WorkerPool("test", [None])
        free = threading.Event()
        stuck = asyncio.create_task(pool.run(lambda _: free.wait(10)))
        await asyncio.sleep(0)
        start = time.monotonic()
        assert not await asyncio.to_thread(pool.close, 0.1)
        assert time.monotonic() - start < 5
        free.set()
        assert await stuck

    asyncio.run(scenario())
