"""The token bucket and the requests under way, by a clock that the test sets."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RateLimited, TooManyRequests
from service.security.limits import CallerLimits, Callers, LimitOverrides


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def passes(callers: Callers, limits: CallerLimits, name: str = "a") -> bool:
    try:
        with callers.permit(name, limits):
            return True
    except RateLimited:
        return False


def test_a_burst_passes_at_once_and_then_the_rate() -> None:
    clock = Clock()
    callers = Callers(clock)
    limits = CallerLimits(rate=4, burst=3)
    assert [passes(callers, limits) for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        clock.now += 0.25
        assert [passes(callers, limits) for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [passes(callers, limits) for _ in range(4)] == [True, True, True, False]


def test_callers_have_buckets_of_their_own() -> None:
    callers = Callers(Clock())
    limits = CallerLimits(rate=1, burst=1)
    assert [passes(callers, limits, name) for name in ("a", "b", "a", "b")] == [True, True, False, False]


@given(
    rate=st.floats(0.001, 1000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 20), min_size=1, max_size=60),
)
def test_no_more_pass_than_burst_and_rate_allow_and_who_waits_as_told_passes(
    rate: float, burst: int, gaps: list[float]
) -> None:
    clock = Clock()
    callers = Callers(clock)
    limits = CallerLimits(rate, burst)
    start, passed = clock.now, 0
    for gap in gaps:
        clock.now += gap
        try:
            with callers.permit("a", limits):
                passed += 1
        except RateLimited as error:
            assert error.retry_after_s >= 1
            assert error.retry_after_s < 1 / rate + 1
            clock.now += error.retry_after_s
            assert passes(callers, limits)
            passed += 1
        assert passed <= burst + (clock.now - start) * rate + 1e-6


def test_requests_under_way_are_counted_and_a_refused_one_costs_no_token() -> None:
    callers = Callers(Clock())
    limits = CallerLimits(rate=1, burst=3, concurrent=2)
    with ExitStack() as permits:
        for _ in range(2):
            permits.enter_context(callers.permit("a", limits))
        for _ in range(5):
            with pytest.raises(TooManyRequests, match=r"^2 requests of a are under way"):
                permits.enter_context(callers.permit("a", limits))
        permits.enter_context(callers.permit("b", limits))
    assert [passes(callers, limits) for _ in range(2)] == [True, False]


def test_a_failed_request_gives_its_permit_back() -> None:
    callers = Callers(Clock())
    limits = CallerLimits(concurrent=1)
    with pytest.raises(OSError, match="broken"), callers.permit("a", limits):
        raise OSError("broken")
    assert passes(callers, limits)


def test_new_limits_of_a_caller_hold_at_once() -> None:
    clock = Clock()
    callers = Callers(clock)
    with callers.permit("a", CallerLimits()):
        with pytest.raises(TooManyRequests):
            callers.permit("a", CallerLimits(concurrent=1)).__enter__()
        assert [passes(callers, CallerLimits(rate=1, burst=2)) for _ in range(3)] == [True, True, False]
        assert passes(callers, CallerLimits())


@pytest.mark.parametrize(
    ("own", "holds"),
    [
        (LimitOverrides(), CallerLimits(10, 30, 4)),
        (LimitOverrides(rate=1), CallerLimits(1, 2, 4)),
        (LimitOverrides(rate=0.1), CallerLimits(0.1, 1, 4)),
        (LimitOverrides(burst=5), CallerLimits(10, 5, 4)),
        (LimitOverrides(rate=math.inf), CallerLimits(math.inf, math.inf, 4)),
        (LimitOverrides(concurrent=9), CallerLimits(10, 30, 9)),
    ],
)
def test_a_keys_own_limits_go_first(own: LimitOverrides, holds: CallerLimits) -> None:
    assert CallerLimits(10, 30, 4).overridden(own) == holds
