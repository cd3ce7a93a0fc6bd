"""What surrounds every request: an id, metrics, a last net for errors, and an end for bodies nobody reads."""

from __future__ import annotations

import logging
import re
import time
import uuid

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import internal_problem, problem_response

_LOG = logging.getLogger("shitu.errors")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNMATCHED = "unmatched"
_CLIENT_GONE = 499  # nginx's number for a client that did not wait


class RequestObserver:
    """Gives every request an id (``X-Request-ID``, the client's own if usable), counts it, and catches the rest."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            _LOG.info("request %s: the client went away", request_id)
        except Exception:
            _LOG.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            if status:
                raise  # the answer has begun; all that is left is to cut the connection
            await problem_response(internal_problem(), request_id)(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", _UNMATCHED)
            self._metrics.count_request(scope["method"], route, status or _CLIENT_GONE, time.perf_counter() - start)


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
            with anyio.move_on_after(self._linger_s):
                while unread:
                    await receive_and_note()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_and_note, send_and_linger)
