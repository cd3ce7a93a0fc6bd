"""Running the service in this process."""

from __future__ import annotations

import errno
import logging
import math
import signal
import socket
from collections.abc import Callable, MutableMapping
from typing import Any

import uvicorn

from service.settings import Settings

from .access import CommandError

_LOG = logging.getLogger("shitu.serve")
_Message = MutableMapping[str, Any]


def configure_logging() -> None:
    """Log to standard error; called before the settings are read, since what they ignore goes into the log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells of every instruction set it tries


def serve(settings: Settings, announce: Callable[[str], None], *, adopt: bool = False) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted, and return.

    Args:
        settings: of the service.
        announce: called with the address, such as ``http://127.0.0.1:8000``, once requests are answered.
        adopt: the loaded model made the codes of a gallery of unknown model; see ``open_gallery``.

    Raises:
        CommandError: the address cannot be used.
        ServiceError, GalleryError, ModelError: the service cannot start; the text says what to do.
    """
    logging.getLogger().setLevel(settings.log_level.upper())
    listener = _bind(settings.host, settings.port)
    address = _address(listener)
    _LOG.info("data folder %s; this one process owns it, so there is one worker", settings.data_dir.absolute())

    from service.app import create_app
    from service.connections import http_options, make_room

    make_room(settings.max_connections)
    # A signal ends the service in good order, and that is success: uvicorn would raise it again at the end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _already_obeyed)
    app = create_app(settings, adopt=adopt)
    application = _FailureKeeper(app)
    config = uvicorn.Config(
        application,
        lifespan="on",
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        **http_options(settings, app.state.metrics),
    )
    try:
        _Server(config, lambda: announce(address)).run(sockets=[listener])
    except SystemExit:
        if application.failure is None:
            raise
    finally:
        listener.close()
    if application.failure is not None:
        raise application.failure


class _Server(uvicorn.Server):
    """A server that says when it is up."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready()


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


def _already_obeyed(number: int, frame: object) -> None:
    _LOG.info("stopped by %s", signal.Signals(number).name)


def _bind(host: str, port: int) -> socket.socket:
    """Take the address before the models are loaded, which is what fails most often and most cheaply."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise CommandError(f"host {host!r} is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: "another process listens there; choose another port with --port (0: any free one)",
            errno.EACCES: "ports below 1024 need privileges; choose another with --port",
            errno.EADDRNOTAVAIL: "this machine does not have that address; 0.0.0.0 means all it has",
        }
        reason = reasons.get(error.errno or 0, error.strerror)
        raise CommandError(f"cannot listen on {host} port {port}: {reason}") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
