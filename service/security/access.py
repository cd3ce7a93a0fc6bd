"""What a caller needs for each route, declared beside the route: ``@needs(Access.SEARCH)``.

A route that declares nothing is not in the :class:`RouteTable`, and nobody reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, get_args

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope as AsgiScope

Scope = Literal["search", "gallery", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ATTRIBUTE = "__shitu_access__"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


class Access(Enum):
    """What a caller needs."""

    OPEN = "nothing"
    PROBE = "nothing, unless probes are closed; then any key"
    METRICS = "nothing, unless metrics are closed; then any key"
    ANY_KEY = "any key"
    SEARCH = "a key with the scope search"
    GALLERY = "a key with the scope gallery"
    ADMIN = "a key with the scope admin"

    @property
    def scope(self) -> Scope | None:
        """The scope that a key must have; None: any will do."""
        scopes: dict[Access, Scope] = {Access.SEARCH: "search", Access.GALLERY: "gallery", Access.ADMIN: "admin"}
        return scopes.get(self)

    @property
    def is_counted(self) -> bool:
        """Whether such requests count towards the limits of their caller; probes never fail for a busy one."""
        return self not in (Access.OPEN, Access.PROBE, Access.METRICS)


def needs(access: Access) -> Callable[[_Endpoint], _Endpoint]:
    """Declare what the callers of an endpoint need."""

    def declare(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _ATTRIBUTE, access)
        return endpoint

    return declare


@dataclass(frozen=True)
class Declared:
    """A route and what it needs."""

    route: Route
    access: Access


class RouteTable:
    """The routes that can be reached: those that declare what they need."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Take the routes in the order in which the application tries them."""
        self._routes = tuple((route, _declared(route)) for route in routes)

    @property
    def declared(self) -> tuple[Declared, ...]:
        """The routes that declare something."""
        return tuple(declared for _, declared in self._routes if declared is not None)

    def find(self, scope: AsgiScope) -> Declared | HTTPException:
        """Give the route of a request, or why there is none: 404, or 405 if its path has other methods."""
        allowed: set[str] = set()
        for route, declared in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                # The application would take this one, whatever a later one declares.
                return declared or HTTPException(404)
            if match is Match.PARTIAL and declared is not None:
                allowed |= declared.route.methods or set()
        if allowed:
            return HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        return HTTPException(404)


def _declared(route: BaseRoute) -> Declared | None:
    if not isinstance(route, Route):
        return None
    access = getattr(route.endpoint, "__dict__", {}).get(_ATTRIBUTE)
    return None if access is None else Declared(route, access)
