"""One line a request: who asked for what, and what came of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import Scope

from .request_context import SHOWN_CHARACTERS

_LOG = logging.getLogger("shitu.access")
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""What machines ask every few seconds: logged for debugging only, and not traced."""


@dataclass
class Exchange:
    """What has gone over the wire for one request.

    Attributes:
        status: of the answer; 0 while there is none.
        bytes_in: of the body that came.
        bytes_out: of the body that was sent.
    """

    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def log_request(scope: Scope, route: str, status: int, seconds: float, exchange: Exchange) -> None:
    """Log an ended request; those of probes and those without a valid key at level debug.

    Args:
        scope: of ASGI; ``state.api_key`` names the key that the request came with, if keys are in use.
        route: the template of the path.
        status: what to call the outcome, also where no answer began.
        seconds: from the request's head to the answer's end.
        exchange: what went over the wire.
    """
    # Whoever guesses keys must not fill the disk: the gate tells of them together.
    level = logging.DEBUG if route in PROBES or status == HTTPStatus.UNAUTHORIZED else logging.INFO
    if not _LOG.isEnabledFor(level):
        return
    client = scope.get("client")
    fields = {
        "method": scope["method"][:SHOWN_CHARACTERS],
        "route": route,
        "path": scope["path"][:SHOWN_CHARACTERS],
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "client": client[0] if client else None,
        "api_key": scope["state"].get("api_key"),
        "user_agent": Headers(scope=scope).get("user-agent", "")[:SHOWN_CHARACTERS],
    }
    known = {name: value for name, value in fields.items() if value not in (None, "")}
    _LOG.log(level, "%(method)s %(path)s %(status)d in %(duration_ms).1f ms" + _asked_by(known), known, extra=known)


def method_and_path(scope: Scope) -> str:
    """Give method and path of a request for a line of the log."""
    return f"{scope['method'][:SHOWN_CHARACTERS]} {scope['path'][:SHOWN_CHARACTERS]}"


def _asked_by(known: dict[str, object]) -> str:
    parts = [f" {word} %({name})s" for word, name in (("from", "client"), ("with key", "api_key")) if name in known]
    return "".join(parts)
