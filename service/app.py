"""The application: routes, errors and the lifespan put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from . import openapi, problems, runtime
from .metrics import Metrics
from .middleware import LingeringClose, RequestObserver
from .routes import routers
from .security.access import Access, RouteTable
from .security.cors import Cors
from .security.gate import Gate
from .security.headers import SecurityHeaders
from .security.valid_keys import ValidKeys
from .settings import Settings
from .tracing import Tracing

_LOG = logging.getLogger("shitu.service")
_DESCRIPTION = """\
Recognizes what is in a picture by comparing binary codes: enrol pictures with labels, then search them.

Every parameter of a `POST` or `PUT` is a form field (beside a picture) or a JSON member. Errors are problem
documents (RFC 9457) with a stable `code`.
"""
_LINGER_S = 10.0
_KEY_WATCH = "API key watch"
_LEAST_FLUSH_S, _MOST_FLUSH_S = 1.0, 5.0  # for the last traces


def create_app(settings: Settings, *, adopt: bool = False) -> FastAPI:
    """Make the application; models and gallery are opened when its lifespan begins.

    ``adopt`` is the caller's word that the model of the settings made the codes of a gallery of unknown model.
    The lifespan raises StartupError if it cannot start; its text says what to do.
    """
    metrics = Metrics()
    keys = ValidKeys(settings.key_sources)
    own_version = version("shitu-hash")
    tracing = Tracing(settings.otlp_endpoint, own_version) if settings.otlp_endpoint is not None else None
    app = FastAPI(
        title="shitu-hash",
        version=own_version,
        description=_DESCRIPTION,
        lifespan=_lifespan(settings, metrics, keys, tracing, adopt),
        redirect_slashes=False,
        openapi_url=None,  # ours declare what they need, as every route does
        docs_url=None,
        redoc_url=None,
    )
    app.state.metrics = metrics
    app.state.keys = keys
    problems.install(app)
    for router in routers():
        app.include_router(router)
    table = RouteTable(route for router in routers() for route in router.routes)
    openapi.install(app, table.declared)
    # From the inside out.
    app.add_middleware(
        Gate,
        table=table,
        keys=keys,
        limits=settings.caller_limits,
        open_access=_open_access(settings),
        metrics=metrics,
    )
    if settings.cors_origins:
        app.add_middleware(Cors, origins=settings.cors_origins)
    app.add_middleware(RequestObserver, metrics=metrics, tracing=tracing, is_leaving=lambda: _is_leaving(app))
    app.add_middleware(SecurityHeaders)
    app.add_middleware(LingeringClose, linger_s=_LINGER_S)
    return app


def _open_access(settings: Settings) -> frozenset[Access]:
    """Give what needs no key."""
    optional = {Access.PROBE: settings.open_probes, Access.METRICS: settings.open_metrics}
    return frozenset({Access.OPEN, *(access for access, is_open in optional.items() if is_open)})


def _is_leaving(app: FastAPI) -> bool:
    running = runtime.running_in(app)
    return running is not None and running.stopping


def _lifespan(
    settings: Settings, metrics: Metrics, keys: ValidKeys, tracing: Tracing | None, adopt: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keys.load(settings.host)
        async with _traced(tracing, settings.drain_timeout_s):
            running = await runtime.start(settings, metrics, adopt=adopt)
            running.background.start(_KEY_WATCH, keys.watch())
            metrics.describe(
                {
                    "version": app.version,
                    "hasher": running.model.hasher,
                    "detector": running.model.detector or "none",
                    "model_fingerprint": running.model.fingerprint,
                    "bits": str(running.model.bits),
                },
                index=running.store.stats,
                under_way=lambda: running.requests_under_way,
                ready=lambda: running.was_ready,
            )
            app.state.runtime = running
            try:
                yield
            finally:
                await running.stop()

    return lifespan


@asynccontextmanager
async def _traced(tracing: Tracing | None, flush_s: float) -> AsyncIterator[None]:
    """Collect traces inside, and send the last ones at the end."""
    if tracing is None:
        yield
        return
    tracing.start()
    try:
        yield
    finally:
        flush_s = min(max(_LEAST_FLUSH_S, flush_s), _MOST_FLUSH_S)
        if not await asyncio.to_thread(tracing.stop, flush_s):
            _LOG.warning("the last traces were not taken by the collector within %.0f s", flush_s)
