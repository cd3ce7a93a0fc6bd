"""What signals do to a running service: the steps of its end, each of which a further signal cuts short.

::

    serving --signal--> leaving (not ready, still serving) --delay over, or signal--> closed (no new connections)
                                                              --signal--> requests under way are given up

Orchestrators take a while to notice that a service is not ready and to send its requests elsewhere; the delay is for
them. What is done with the data at the end is done whichever way that came.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextvars import Context
from enum import Enum, auto

_LOG = logging.getLogger("shitu.serve")


class _Stage(Enum):
    SERVING = auto()
    LEAVING = auto()
    CLOSED = auto()
    GIVEN_UP = auto()


class Drain:
    """The end of one service. Belongs to the event loop's thread."""

    def __init__(
        self, delay_s: float, *, leave: Callable[[], None], close: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        """Do nothing yet.

        Args:
            delay_s: from the first signal until the service takes no further connections.
            leave: makes the service say that it is not ready.
            close: has it take no further connections and finish what is under way.
            give_up: ends what is under way.
        """
        self._delay_s = delay_s
        self._leave = leave
        self._close = close
        self._give_up = give_up
        self._stage = _Stage.SERVING
        self._timer: asyncio.TimerHandle | None = None

    def obey(self, number: int) -> None:
        """Take the step that a signal asks for, outside of the request that may run when the signal comes."""
        Context().run(self._step, number)

    def _step(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stage is _Stage.SERVING:
            self._begin(name)
        elif self._stage is _Stage.LEAVING:
            _LOG.warning("%s again: the delay is cut short", name)
            self._no_new_connections()
        elif self._stage is _Stage.CLOSED:
            _LOG.warning("%s again: requests under way are given up", name)
            self._stage = _Stage.GIVEN_UP
            self._give_up()

    def _begin(self, name: str) -> None:
        self._stage = _Stage.LEAVING
        self._leave()
        if self._delay_s > 0:
            _LOG.info("stopped by %s: not ready any more; requests are still taken for %g s", name, self._delay_s)
            self._timer = asyncio.get_running_loop().call_later(self._delay_s, self._no_new_connections)
        else:
            _LOG.info("stopped by %s", name)
            self._no_new_connections()

    def _no_new_connections(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stage = _Stage.CLOSED
        _LOG.info("no new connections; requests under way are finished")
        self._close()
