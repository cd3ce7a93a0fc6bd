"""``/index``: what the search index is, and building it anew."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from index_store import GalleryClosed, GalleryStore, Method

from .. import answers, openapi
from ..bodies import BodyLimits, read_json
from ..errors import EmptyBody, RebuildUnderWay
from ..runtime import Runtime
from ..schemas import IndexAnswer, RebuildJson, parse_json
from ..security.access import Access, needs
from .common import json_response, no_query, runtime_of

router = APIRouter(tags=["index"])

_LOG = logging.getLogger("shitu.service")
_REBUILD = "index rebuild"
_MAX_BODY_BYTES = 64 * 2**10
_EXAMPLE = {
    "method": "auto",
    "serving": "IVF",
    "reason": "auto: with 200,000 items and more IVF is several times faster than comparing every code",
    "parameters": {"nlist": 4000, "nprobe": 200},
    "bits": 512,
    "items": 1000000,
    "recent_items": 1200,
    "bytes": 81920000,
    "model_fingerprint": "9f2c51ab",
    "rebuild_progress": None,
    "rebuild_error": None,
}


@router.get(
    "/index",
    summary="Describe the index",
    response_class=Response,
    dependencies=[Depends(no_query)],
    responses=openapi.answers(IndexAnswer, 422, 429, 503, description="The index", example=_EXAMPLE),
)
@needs(Access.ANY_KEY)
async def read_index(request: Request) -> Response:
    """Tell which kind of index serves and why, its size, the model of the codes, and how far a rebuild is."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        return json_response(await index_answer(runtime))


@router.post(
    "/index/rebuild",
    summary="Rebuild the index",
    status_code=202,
    response_class=Response,
    openapi_extra=openapi.body(json=RebuildJson, examples={"lists": {"method": "IVF"}}, required=False),
    responses=openapi.answers(
        IndexAnswer,
        *(400, 408, 409, 413, 415, 422, 429, 503, 507),
        status=202,
        description="Begun; `GET /index` tells how far it is. Searches use the old index until it is done",
        example={**_EXAMPLE, "rebuild_progress": 0.0},
    ),
)
@needs(Access.ADMIN)
async def rebuild_index(request: Request) -> Response:
    """Build the index anew from the catalog, by the method that is chosen from then on, while the old one serves."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        method = await _method(request, runtime)
        await runtime.storage.run(lambda _: _check_room(runtime.store))
        # Nothing is awaited between this and the start, so that of two requests one begins it.
        if runtime.background.is_running(_REBUILD):
            raise RebuildUnderWay("the index is being rebuilt already; GET /index tells how far it is")
        runtime.rebuild_error = None
        runtime.background.start(_REBUILD, _rebuild(runtime, method))
        answer = await index_answer(runtime)
        return json_response(answer, 202)


async def index_answer(runtime: Runtime) -> IndexAnswer:
    """Describe the index of a running service."""
    stats = await runtime.storage.run(lambda _: runtime.store.stats())
    running = runtime.background.is_running(_REBUILD)
    return answers.index_answer(
        stats,
        rebuild_progress=(stats.rebuild_progress or 0.0) if running else stats.rebuild_progress,
        rebuild_error=runtime.rebuild_error,
    )


def _check_room(store: GalleryStore) -> None:
    store.check_room(store.stats().bytes)


async def _method(request: Request, runtime: Runtime) -> Method | None:
    try:
        body = await read_json(request, BodyLimits.for_json(_MAX_BODY_BYTES))
    except EmptyBody:
        return None
    return parse_json(RebuildJson, body, runtime.context()).method


async def _rebuild(runtime: Runtime, method: Method | None) -> None:
    # A rebuild that fails leaves the old index serving, so the service stays ready and GET /index says what failed.
    try:
        await runtime.storage.run(lambda _: runtime.store.rebuild(method))
    except GalleryClosed:
        _LOG.info("the rebuild of the index ends with the service")
    except Exception as error:
        _LOG.exception("the rebuild of the index failed")
        runtime.rebuild_error = f"{type(error).__name__}: {error}"
