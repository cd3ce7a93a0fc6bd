"""What one caller may use: requests a second by a token bucket, and requests at the same time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import RateLimited, TooManyRequests

_BURST_S = 2.0
_TOLERANCE = 1e-9  # of a token: who waits exactly as long as told must not fail for the rounding of a sum
_CONCURRENT_RETRY_AFTER_S = 1


def default_burst(rate: float) -> float:
    """Give the burst that goes with a rate: two seconds' worth, at least one request."""
    return max(1.0, math.ceil(_BURST_S * rate)) if math.isfinite(rate) else math.inf


@dataclass(frozen=True)
class LimitOverrides:
    """Limits that a key's line gives; None: it says nothing; infinite: none."""

    rate: float | None = None
    burst: float | None = None
    concurrent: float | None = None


@dataclass(frozen=True)
class CallerLimits:
    """Limits of one caller; infinite: none.

    Attributes:
        rate: requests a second, in the long run.
        burst: requests at once after a quiet time.
        concurrent: requests under way at the same time.
    """

    rate: float = math.inf
    burst: float = math.inf
    concurrent: float = math.inf

    @classmethod
    def of(cls, rate: float | None, burst: float | None, concurrent: float | None) -> CallerLimits:
        """Fill in what is not given: no limit, and the burst that goes with the rate."""
        rate = math.inf if rate is None else rate
        return cls(
            rate, default_burst(rate) if burst is None else burst, math.inf if concurrent is None else concurrent
        )

    def overridden(self, by: LimitOverrides) -> CallerLimits:
        """Put a key's own limits first. A burst belongs to its rate: one of all keys does not go with a key's rate."""
        rate = self.rate if by.rate is None else by.rate
        burst = by.burst
        if burst is None:
            burst = self.burst if by.rate is None else default_burst(rate)
        return CallerLimits(rate, burst, self.concurrent if by.concurrent is None else by.concurrent)


@dataclass
class _Use:
    tokens: float
    updated: float
    under_way: int = 0


class Callers:
    """What every caller uses now. Belongs to the event loop's thread.

    There is one record a name, so there are as few as there are keys.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds."""
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def permit(self, name: str, limits: CallerLimits) -> Iterator[None]:
        """Hold one of the caller's permits inside; taking it costs a token of the bucket.

        The limits may be others than the time before: what is under way and what was spent still counts.

        Raises:
            TooManyRequests: as many as allowed are under way; no token was taken.
            RateLimited: the bucket is empty; it has a token after ``retry_after_s``.
        """
        now = self._clock()
        use = self._uses.setdefault(name, _Use(limits.burst, now))
        if use.under_way >= limits.concurrent:
            raise TooManyRequests(f"{limits.concurrent:.0f} requests of {name}", _CONCURRENT_RETRY_AFTER_S)
        self._take_token(name, use, limits, now)
        use.under_way += 1
        try:
            yield
        finally:
            use.under_way -= 1

    def _take_token(self, name: str, use: _Use, limits: CallerLimits, now: float) -> None:
        if math.isinf(limits.rate):
            return
        use.tokens = min(limits.burst, use.tokens + (now - use.updated) * limits.rate)
        use.updated = now
        if use.tokens < 1 - _TOLERANCE:
            wait_s = max(1, math.ceil((1 - use.tokens) / limits.rate - _TOLERANCE))
            raise RateLimited(f"{name} may send {limits.rate:g} requests a second", wait_s)
        use.tokens -= 1
