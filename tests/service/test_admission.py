"""Admission: permits, refusals, draining."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.admission import Admission
from service.errors import NotReady, TooManyRequests


def test_no_more_than_the_limit_are_under_way() -> None:
    admission = Admission(2)
    with ExitStack() as held:
        held.enter_context(admission.permit())
        held.enter_context(admission.permit())
        with pytest.raises(TooManyRequests) as caught, admission.permit():
            pass
        assert caught.value.retry_after_s >= 1
        assert "2 requests are under way" in str(caught.value)
        assert admission.under_way == 2
    assert admission.under_way == 0
    with admission.permit():
        pass


def test_a_permit_comes_back_after_an_error() -> None:
    admission = Admission(1)
    with pytest.raises(ZeroDivisionError), admission.permit():
        raise ZeroDivisionError
    assert admission.under_way == 0


def test_nothing_is_admitted_after_the_stop_and_what_is_under_way_is_waited_for() -> None:
    async def scenario() -> None:
        admission = Admission(2)
        with admission.permit():
            admission.stop()
            with pytest.raises(NotReady), admission.permit():
                pass
            assert not await admission.drained(0.01)
            waiting = asyncio.create_task(admission.drained(5))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await waiting

    asyncio.run(scenario())


def test_without_requests_it_is_drained_at_once() -> None:
    assert asyncio.run(Admission(1).drained(0))
