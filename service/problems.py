"""Problem documents (RFC 9457) as answers."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import index_store

from .access_log import method_and_path
from .errors import (
    INTERNAL,
    FieldProblem,
    InvalidFields,
    NotReady,
    Problem,
    ProblemType,
    ServiceError,
    TooMuch,
    problem_of,
)
from .schemas import ProblemAnswer

MEDIA_TYPE = "application/problem+json"

_LOG = logging.getLogger("shitu.errors")


def problem_answer(problem: Problem, request_id: str) -> ProblemAnswer:
    """Make the document of a problem."""
    return ProblemAnswer(
        type=f"urn:shitu-hash:problem:{problem.kind.code}",
        title=problem.kind.title,
        status=problem.kind.status,
        detail=problem.detail,
        code=problem.kind.code,
        request_id=request_id,
        **problem.extensions,
    )


def problem_response(problem: Problem, request_id: str) -> Response:
    """Make the HTTP answer of a problem."""
    body = problem_answer(problem, request_id).model_dump_json(exclude_unset=True)
    return Response(body, problem.kind.status, dict(problem.headers), MEDIA_TYPE)


def internal_problem() -> Problem:
    """Give the problem for what nobody foresaw: it says nothing of the inside."""
    return Problem(INTERNAL, "an unexpected error; the service's log has it under this request_id", {})


def install(app: FastAPI) -> None:
    """Have every error of an application answered with a problem document."""
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ServiceError, _known_error)
    app.add_exception_handler(index_store.GalleryError, _known_error)


def request_id_of(request: Request) -> str:
    """Give the id that the request came with or was given."""
    request_id: str = request.state.request_id
    return request_id


def answer_to(request: Request, error: ServiceError | HTTPException) -> Response:
    """Make the answer of an error that was raised outside of the routes, where no handler sees it."""
    return _answer_to_http(request, error) if isinstance(error, HTTPException) else _answer_to_known(request, error)


async def _known_error(request: Request, error: Exception) -> Response:
    return _answer_to_known(request, error)


def _answer_to_known(request: Request, error: Exception) -> Response:
    request_id = request_id_of(request)
    problem = problem_of(error)
    if problem is None:
        _LOG.error("%s failed", method_and_path(request.scope), exc_info=error)
        problem = internal_problem()
    elif problem.kind.status >= 500:
        _LOG.warning("%s: %s", problem.kind.code, error)
    if isinstance(error, TooMuch | NotReady):
        request.app.state.metrics.count_rejected(problem.kind.code)
    return problem_response(problem, request_id)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _answer_to_http(request, error)


def _answer_to_http(request: Request, error: HTTPException) -> Response:
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "_").replace("-", "_")
    detail = str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        detail = f"there is nothing at {request.scope['path'][:200]}; see /docs for what there is"
    if error.status_code == 405:
        detail = f"{request.method[:20]} is not among the methods of {request.scope['path'][:200]}"
    kind = ProblemType(error.status_code, code, title)
    return problem_response(Problem(kind, detail, {}, headers), request_id_of(request))


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = []
    for detail in error.errors()[:100]:
        field = ".".join(str(part)[:100] for part in detail["loc"][1:]) or "query"
        extra = detail["type"] == "extra_forbidden"
        problems.append(FieldProblem(field, "is not a field of this request" if extra else detail["msg"]))
    return _answer_to_known(request, InvalidFields(problems))
