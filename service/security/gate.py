"""What every request passes before its body is read: key, scope, limits of its caller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from ..errors import InsufficientScope, ServiceError, Unauthenticated
from ..metrics import Metrics
from ..problems import answer_to
from .access import Access, RouteTable
from .keys import ApiKey, is_key
from .limits import CallerLimits, Callers
from .valid_keys import ValidKeys

_LOG = logging.getLogger("shitu.keys")
_LOG_EVERY_S = 10.0
_EVERYBODY = "all callers together"


class Gate:
    """Lets a request through to its route if its key opens it (RFC 6750) and its caller is within its limits.

    What no route declares does not exist for anybody, and whoever has no key is not told even that. Without keys,
    everybody is one caller. The name of a key is put into the state of its request as ``api_key``, beside the
    ``request_id`` that is there already.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        table: RouteTable,
        keys: ValidKeys,
        limits: CallerLimits,
        open_access: frozenset[Access],
        metrics: Metrics,
    ) -> None:
        """Wrap an application.

        Args:
            app: what is wrapped.
            table: the routes that can be reached.
            keys: which keys are valid.
            limits: of every caller whose key has none of its own.
            open_access: what needs no key.
            metrics: count what is refused.
        """
        self._app = app
        self._table = table
        self._keys = keys
        self._limits = limits
        self._open = open_access
        self._metrics = metrics
        self._callers = Callers()
        self._refusals = RefusalLog()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with ExitStack() as permits:
            try:
                self._admit(scope, permits)
            except (ServiceError, HTTPException) as error:
                answer = answer_to(Request(scope), error)
                await answer(scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _admit(self, scope: AsgiScope, permits: ExitStack) -> None:
        found = self._table.find(scope)
        access = Access.ANY_KEY
        if not isinstance(found, HTTPException):
            access = found.access
            scope["route"] = found.route  # what is refused here is counted by its route, too
        name, limits = _EVERYBODY, self._limits
        if self._keys.required and access not in self._open:
            key = self._authorized(scope, access)
            name, limits = f"the key {key.name}", limits.overridden(key.limits)
        if access.is_counted:
            permits.enter_context(self._callers.permit(name, limits))
        if isinstance(found, HTTPException):
            raise found

    def _authorized(self, scope: AsgiScope, access: Access) -> ApiKey:
        try:
            key = self._authenticated(scope)
        except Unauthenticated as error:
            self._note_refusal(scope, error.reason)
            raise
        scope["state"]["api_key"] = key.name
        if not key.may(access.scope):
            self._note_refusal(scope, "scope")
            raise InsufficientScope(key.name, sorted(key.scopes), str(access.scope))
        return key

    def _authenticated(self, scope: AsgiScope) -> ApiKey:
        """Give the key that a request came with. Raises Unauthenticated."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self._keys.hint:
            raise Unauthenticated("unknown" if given else "missing", self._keys.hint)
        if not given:
            raise Unauthenticated("missing", "this needs an API key: send the header `Authorization: Bearer <key>`")
        scheme, _, key = given[0].decode("latin-1").partition(" ")
        key = key.strip()
        if len(given) > 1 or scheme.lower() != "bearer" or not is_key(key):
            raise Unauthenticated(
                "malformed", "what came is no key of this service: send one header `Authorization: Bearer shitu_...`"
            )
        stored = self._keys.find(key)
        if stored is None:
            raise Unauthenticated("unknown", "this API key is not valid here; it may have been revoked")
        return stored

    def _note_refusal(self, scope: AsgiScope, reason: str) -> None:
        self._metrics.count_authentication_failure(reason)
        client = scope.get("client")
        self._refusals.note(reason, client[0] if client else "an unknown address")


class RefusalLog:
    """Logs refused requests, but not each: guessing keys must not fill the disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds."""
        self._clock = clock
        self._next = clock()
        self._unsaid = 0

    def note(self, reason: str, client: str) -> None:
        """Note one; it is logged unless another one was a short time ago."""
        now = self._clock()
        if now < self._next:
            self._unsaid += 1
            return
        self._next = now + _LOG_EVERY_S
        more = f"; {self._unsaid} before it were not logged" if self._unsaid else ""
        self._unsaid = 0
        _LOG.warning("a request from %s was refused for its API key (%s)%s", client, reason, more)
