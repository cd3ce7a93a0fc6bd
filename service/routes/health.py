"""Probes, a summary for people, and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from index_store import GalleryError

from .. import openapi
from ..errors import NotReady, Problem, ProblemType
from ..problems import problem_response, request_id_of
from ..readiness import Failure, fatal
from ..runtime import Runtime, running_in
from ..schemas import HealthAnswer, StatusAnswer
from ..security.access import Access, needs
from .common import json_response, runtime_of
from .index import index_answer

router = APIRouter(tags=["operation"])

_DISK_TIMEOUT_S = 2.0
_TITLE = "The service is not ready"


@router.get(
    "/livez",
    summary="Is the process alive?",
    response_class=Response,
    responses=openapi.answers(StatusAnswer, description="It answers", example={"status": "alive"}),
)
@needs(Access.PROBE)
async def livez() -> Response:
    """Answer as long as the event loop runs: restart the process when this fails."""
    return json_response(StatusAnswer(status="alive"))


@router.get(
    "/readyz",
    summary="Can it serve requests now?",
    response_class=Response,
    responses=openapi.answers(
        StatusAnswer,
        503,
        description="Models, storage and background tasks work; an empty gallery is ready",
        example={"status": "ready", "checks": {"models": "ok", "storage": "ok", "background": "ok", "disk": "ok"}},
    ),
)
@needs(Access.PROBE)
async def readyz(request: Request) -> Response:
    """Code a canary picture and write to the data folder: send no traffic while this fails."""
    runtime = runtime_of(request)
    failures = await _failures(runtime)
    checks = _checks(failures)
    first = next(fatal(failures), None)
    if first is None:
        return json_response(StatusAnswer(status="ready", checks=checks))
    problem = Problem(ProblemType(503, first.code, _TITLE), first.detail, {"checks": checks})
    return problem_response(problem, request_id_of(request))


@router.get(
    "/health",
    summary="A summary for people",
    response_class=Response,
    responses=openapi.answers(HealthAnswer, 503, description="What runs here and how it is"),
)
@needs(Access.ANY_KEY)
async def health(request: Request) -> Response:
    """Tell version, models, index, limits and the state of every check."""
    runtime = runtime_of(request)
    failures = await _failures(runtime)
    settings = runtime.settings
    answer = HealthAnswer(
        status="not_ready" if any(fatal(failures)) else "ready",
        checks=_checks(failures),
        version=version("shitu-hash"),
        uptime_s=round(time.time() - runtime.started_at, 1),
        requests_under_way=runtime.requests_under_way,
        hasher=runtime.model.hasher,
        detector=runtime.model.detector,
        model_fingerprint=runtime.model.fingerprint,
        hamming_radius=runtime.model.hamming_radius,
        index=await index_answer(runtime),
        limits={
            "max_upload_bytes": settings.max_upload_bytes,
            "max_pixels": settings.max_pixels,
            "max_batch_images": settings.max_batch_images,
            "max_batch_codes": settings.max_batch_codes,
            "max_batch_bytes": settings.max_batch_bytes,
            "max_metadata_bytes": settings.max_metadata_bytes,
            "max_concurrent_requests": settings.max_concurrent_requests,
        },
    )
    return json_response(answer)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus's text format", "content": {"text/plain": {}}}},
)
@needs(Access.METRICS)
async def metrics(request: Request) -> Response:
    """Give counts and durations of requests and stages, the gallery's size, and top-1 distances."""
    runtime = running_in(request.app)
    if runtime is not None:
        await _measure_disk(runtime)
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _measure_disk(runtime: Runtime) -> None:
    """Ask on a thread how much room there is: a network disk may not answer, and the other metrics are to be seen."""
    with suppress(asyncio.TimeoutError, GalleryError, NotReady):
        free = runtime.storage.run(lambda _: runtime.store.free_bytes(), urgent=True)
        runtime.metrics.note_free_bytes(await asyncio.wait_for(free, _DISK_TIMEOUT_S))


async def _failures(runtime: Runtime) -> Mapping[str, Failure | None]:
    if runtime.stopping:
        return {"service": Failure("shutting_down", "the service is stopping")}
    model = Failure("model_mismatch", str(runtime.mismatch)) if runtime.mismatch is not None else None
    return {"model_match": model, **await runtime.readiness.check()}


def _checks(failures: Mapping[str, Failure | None]) -> dict[str, str]:
    return {name: "ok" if failure is None else failure.detail for name, failure in failures.items()}
