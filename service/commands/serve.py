"""Running the service in this process."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
import uvicorn
import uvicorn.server

from service.drain import Drain
from service.listener import bind, url_of
from service.logs import configure, log_native_output
from service.settings import Settings

from .failures import FAILED, explain

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOG = logging.getLogger("shitu.serve")
_LAST_ANSWERS_S = 1.0  # for those who are told that they were given up
_Message = MutableMapping[str, Any]


def announce(settings: Settings) -> Callable[[str], None]:
    """Give what tells the address of a service that is up: a line for people, or one of the log for machines."""
    if settings.log_format == "json":
        return lambda address: _LOG.info("shitu is ready at %s", address)
    return lambda address: print(f"shitu is ready at {address} (try {address}/docs)", flush=True)


def serve(settings: Settings, on_ready: Callable[[str], None], *, adopt: bool = False) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted, and return.

    Args:
        settings: of the service.
        on_ready: called with the address, such as ``http://127.0.0.1:8000``, once requests are answered.
        adopt: the loaded model made the codes of a gallery of unknown model; see ``open_gallery``.

    Raises:
        ServiceError, GalleryError, ModelError: the service cannot start; the text says what to do.
    """
    configure(settings.log_format, settings.log_level)
    if settings.log_format == "json":
        log_native_output()
    listener = bind(settings.host, settings.port)  # before the models are loaded: it fails most often, and cheaply
    address = url_of(*listener.getsockname()[:2])
    _LOG.info("data folder %s; this one process owns it, so there is one worker", settings.data_dir.absolute())

    from service.app import create_app
    from service.connections import http_options, make_room

    make_room(settings.max_connections)
    app = create_app(settings, adopt=adopt)
    signal.signal(signal.SIGHUP, lambda *_: app.state.keys.reload_soon())  # its default would end the service
    application = _FailureKeeper(app)
    config = uvicorn.Config(
        application,
        lifespan="on",
        log_config=None,
        access_log=False,  # the application logs its requests
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        **http_options(settings, app.state.metrics),
    )
    try:
        _Server(config, settings.drain_delay_s, lambda: on_ready(address), lambda: _leave(app)).run(sockets=[listener])
    except SystemExit:
        if application.failure is None:
            raise
    finally:
        listener.close()
        for number in uvicorn.server.HANDLED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # all is done; a late one must not spoil the exit code
    if application.failure is not None:
        raise application.failure


class _Server(uvicorn.Server):
    """A server that says when it is up, and that signals end step by step; see ``Drain``."""

    def __init__(
        self, config: uvicorn.Config, drain_delay_s: float, on_ready: Callable[[], None], on_leaving: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._drain = Drain(drain_delay_s, leave=on_leaving, close=self._close, give_up=self._give_up)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.should_exit:
            _LOG.info("stopped by a signal that came before the start was over")
        else:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Nothing is captured, so uvicorn raises no signal again at the end: an end in good order is success.
        if self._loop is None:
            self.should_exit = True  # what is being loaded is loaded first
        else:
            self._loop.call_soon_threadsafe(self._drain.obey, sig)  # not here, in the middle of whatever runs

    def _close(self) -> None:
        self.should_exit = True

    def _give_up(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()
        asyncio.get_running_loop().call_later(_LAST_ANSWERS_S, self._cut_off)

    def _cut_off(self) -> None:
        """End connections whose clients do not take their answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@contextmanager
def failures_in_log(settings: Settings) -> Iterator[None]:
    """Where the log is for machines, let what ends the service stand in it, instead of text on standard error.

    Raises:
        typer.Exit: the block failed, and the log says so.
    """
    try:
        yield
    except Exception as error:
        if settings.log_format != "json":
            raise
        message, code = explain(error) or (None, FAILED)
        if message is None:
            _LOG.critical("the service ended by a fault of its own", exc_info=error)
        else:
            _LOG.critical(message)
        raise typer.Exit(code) from None


def _leave(app: FastAPI) -> None:
    app.state.runtime.leave()


class _FailureKeeper:
    """Passes everything to an application and keeps the exception that ended its lifespan.

    Starlette puts a whole traceback into the lifespan's failure message, which uvicorn logs; the errors raised on
    purpose are one clear line, for the command line to print.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self.failure: BaseException | None = None

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._application(scope, receive, send)
            return

        async def without_traceback(message: _Message) -> None:
            failed = message["type"].endswith(".failed")
            await send({"type": message["type"]} if failed else message)

        try:
            await self._application(scope, receive, without_traceback)
        except BaseException as error:
            self.failure = error
            raise
