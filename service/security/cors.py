"""Which pages of other origins may use the service from a browser (CORS)."""

from __future__ import annotations

import logging
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..problems import answer_to

_LOG = logging.getLogger("shitu.service")
_METHODS = ("GET", "POST", "PUT", "DELETE")
_SENT = ("Authorization", "Content-Type", "X-Request-ID")
_SEEN = ("X-Request-ID", "Retry-After", "WWW-Authenticate")


class Cors(CORSMiddleware):
    """Starlette's, with our methods and headers and with problem documents.

    A key is a header that a page sets itself, not one of the browser's credentials (cookies), so these are never
    allowed.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        """Wrap an application for pages of ``origins``; ``*``: of any."""
        if "*" in origins:
            _LOG.warning("pages of any origin may use the service from a browser: cors_origins is *")
        super().__init__(app, origins, _METHODS, _SENT, expose_headers=_SEEN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; a preflight comes without a key and is answered here."""
        try:
            await super().__call__(scope, receive, send)
        except HTTPException as error:
            answer = answer_to(Request(scope), error)
            await answer(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight. Raises HTTPException."""
        response = super().preflight_response(request_headers)
        if response.status_code != 200:
            raise HTTPException(response.status_code, bytes(response.body).decode())
        return response
