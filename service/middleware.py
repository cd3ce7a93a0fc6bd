"""What surrounds every request: an id, metrics, a line in the log, a trace, a last net for errors, and an end for
bodies nobody reads."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access_log import PROBES, Exchange, log_request, method_and_path
from .errors import NotReady, Problem, problem_of
from .metrics import Metrics
from .problems import internal_problem, problem_response
from .request_context import CURRENT, RequestContext
from .tracing import RequestTrace, Tracing

_LOG = logging.getLogger("shitu.errors")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNMATCHED = "unmatched"
_CLIENT_GONE = 499  # nginx's number for a client that did not wait


class RequestObserver:
    """Gives every request an id (``X-Request-ID``, the client's own if usable), counts, logs and traces it, and
    catches the rest.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None, is_leaving: Callable[[], bool]) -> None:
        """Wrap an application.

        Args:
            app: what handles the requests.
            metrics: counts them.
            tracing: traces them, if any.
            is_leaving: tells whether the service will stop soon; then connections end with their next answer, so
                that clients go elsewhere before it does.
        """
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._is_leaving = is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        trace = self._begin_trace(scope, request_id)
        # Never reset: the task ends with the request, and what the server still says of it belongs to it.
        CURRENT.set(RequestContext(request_id, trace.trace_id if trace else None, trace))
        exchange = Exchange()
        error: str | None = None
        start = time.perf_counter()
        try:
            await self._handle(scope, receive, send, request_id, exchange)
        except BaseException as caught:
            error = type(caught).__name__
            raise
        finally:
            route = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - start
            status = exchange.status or _CLIENT_GONE
            self._metrics.count_request(scope["method"], route or _UNMATCHED, status, seconds)
            log_request(scope, route or _UNMATCHED, status, seconds, exchange)
            if trace is not None:
                trace.end(scope, route, exchange.status, error)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, request_id: str, exchange: Exchange) -> None:
        async def counted_receive() -> Message:
            message = await receive()
            exchange.bytes_in += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if self._is_leaving():
                    headers["Connection"] = "close"
            exchange.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, send_with_id)
        except ClientDisconnect:
            _LOG.info("the client went away")
        except asyncio.CancelledError:
            if exchange.status or not self._is_leaving():
                raise
            # The server ends and waits no longer; whoever waits is to hear that.
            _LOG.warning("%s is given up, because the service stops", method_and_path(scope))
            await problem_response(_stopping_problem(), request_id)(scope, receive, send_with_id)
        except Exception:
            _LOG.exception("%s failed", method_and_path(scope))
            if exchange.status:
                raise  # the answer has begun; all that is left is to cut the connection
            await problem_response(internal_problem(), request_id)(scope, receive, send_with_id)

    def _begin_trace(self, scope: Scope, request_id: str) -> RequestTrace | None:
        if self._tracing is None or scope["path"] in PROBES:
            return None
        return self._tracing.begin(scope, request_id)


def _stopping_problem() -> Problem:
    error = NotReady(
        "the service stopped before it could answer; look whether the request was carried out, or repeat it",
        "shutting_down",
    )
    return problem_of(error) or internal_problem()


class LingeringClose:
    """Reads on for a while when an answer was given before the body was read, and throws it away.

    Closing at once would reset the connection, and a client that is still sending would see that instead of the
    answer (nginx calls this ``lingering_close``). Nothing is kept of what comes, and not for longer than
    ``linger_s``.
    """

    def __init__(self, app: ASGIApp, linger_s: float) -> None:
        """Wrap an application."""
        self._app = app
        self._linger_s = linger_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        # A client that waits for "100 Continue" has not begun to send.
        unread = "expect" not in headers

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_and_linger(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (last and unread):
                await send(message)
                return
            await send({**message, "more_body": True})
            # The answer is out; a server that ends in the meantime need not be told that nobody read the rest.
            with suppress(asyncio.CancelledError), anyio.move_on_after(self._linger_s):
                while unread:
                    await receive_and_note()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_and_note, send_and_linger)
