"""The application: routes, errors and the lifespan put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from . import openapi, problems, runtime
from .metrics import Metrics
from .middleware import LingeringClose, RequestObserver
from .routes import routers
from .settings import Settings

_DESCRIPTION = """\
Recognizes what is in a picture by comparing binary codes: enrol pictures with labels, then search them.

Every parameter of a `POST` or `PUT` is a form field (beside a picture) or a JSON member. Errors are problem
documents (RFC 9457) with a stable `code`.
"""
_LINGER_S = 10.0


def create_app(settings: Settings, *, adopt: bool = False) -> FastAPI:
    """Make the application; models and gallery are opened when its lifespan begins.

    ``adopt`` is the caller's word that the model of the settings made the codes of a gallery of unknown model.
    The lifespan raises StartupError if it cannot start; its text says what to do.
    """
    metrics = Metrics()
    app = FastAPI(
        title="shitu-hash",
        version=version("shitu-hash"),
        description=_DESCRIPTION,
        lifespan=_lifespan(settings, metrics, adopt),
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.metrics = metrics
    problems.install(app)
    for router in routers():
        app.include_router(router)
    openapi.install(app)
    app.add_middleware(RequestObserver, metrics=metrics)
    app.add_middleware(LingeringClose, linger_s=_LINGER_S)
    return app


def _lifespan(
    settings: Settings, metrics: Metrics, adopt: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = await runtime.start(settings, metrics, adopt=adopt)
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
