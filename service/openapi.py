"""The OpenAPI document: bodies and answers are described from the same models that validate them.

FastAPI cannot derive "a form or JSON on one path" from a signature, so routes say it with these helpers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from . import schemas
from .errors import INTERNAL, PROBLEMS, ProblemType
from .problems import MEDIA_TYPE
from .security.access import Access, Declared

PICTURE_BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
"""A PNG file of one pixel, for examples that can be tried as they are."""

_REF = "#/components/schemas/{model}"
_REQUESTS: tuple[type[BaseModel], ...] = (
    schemas.SearchForm,
    schemas.SearchJson,
    schemas.EnrolForm,
    schemas.EnrolJson,
    schemas.ReplaceForm,
    schemas.ReplaceJson,
    schemas.BatchForm,
    schemas.BatchJson,
    schemas.BatchItem,
    schemas.DeleteJson,
    schemas.RebuildJson,
)
_ANSWERS: tuple[type[BaseModel], ...] = (
    schemas.SearchAnswer,
    schemas.ItemAnswer,
    schemas.BatchAnswer,
    schemas.PageAnswer,
    schemas.RemovedAnswer,
    schemas.IndexAnswer,
    schemas.StatusAnswer,
    schemas.HealthAnswer,
    schemas.ProblemAnswer,
)
_REQUEST_ID_HEADER = {
    "X-Request-ID": {
        "description": "the id of this request: the one it came with, or a new one",
        "schema": {"type": "string"},
    }
}

_KEY_SCHEME = "apiKey"
_KEY_SCHEME_IS = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, where the service has any: `Authorization: Bearer shitu_...`. The names beside it are "
    "scopes; `admin` includes the others.",
}


def body(
    *,
    form: type[BaseModel] | None = None,
    json: type[BaseModel] | None = None,
    examples: Mapping[str, Any] | None = None,
    required: bool = True,
) -> dict[str, Any]:
    """Describe a body: ``openapi_extra`` of a route.

    Args:
        form: what a multipart form has.
        json: what a JSON object has.
        examples: JSON bodies by a short description.
        required: whether there must be a body.
    """
    content: dict[str, Any] = {}
    if form is not None:
        content["multipart/form-data"] = {"schema": _ref(form)}
    if json is not None:
        content["application/json"] = {
            "schema": _ref(json),
            "examples": {name: {"value": value} for name, value in (examples or {}).items()},
        }
    return {"requestBody": {"required": required, "content": content}}


def answers(
    model: type[BaseModel] | None,
    *problems: int,
    status: int = 200,
    description: str = "Done",
    example: Any = None,
    also: Mapping[int, str] | None = None,
    pictures: Sequence[str] = (),
    file: str | None = None,
) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of a route: ``responses``.

    Args:
        model: of the good answer; None: it has no content, or is a file.
        problems: statuses of the problem documents, beside 500.
        status: of the good answer.
        description: of the good answer.
        example: of the good answer.
        also: further statuses with the same model, and what they mean.
        pictures: media types of the picture that may come in the place of ``model``.
        file: media type of a good answer that is a file.
    """
    described: dict[int | str, dict[str, Any]] = {}
    binary = {"schema": {"type": "string", "format": "binary"}}
    for good, text in {status: description, **(also or {})}.items():
        described[good] = {"description": text, "headers": _REQUEST_ID_HEADER}
        if model is not None:
            content: dict[str, Any] = {"schema": _ref(model)}
            if example is not None:
                content["example"] = example
            described[good]["content"] = {"application/json": content, **dict.fromkeys(pictures, binary)}
        elif file is not None:
            described[good]["content"] = {file: binary}
    for bad in sorted({*problems, 500}):
        described[bad] = _problems(bad)
    return described


def install(app: FastAPI, declared: Sequence[Declared]) -> None:
    """Have an application give the whole document; ``declared`` tells what each route needs."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, declared)
        return app.openapi_schema

    replace: Callable[[], dict[str, Any]] = document
    app.openapi = replace  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _document(app: FastAPI, declared: Sequence[Declared]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _REQUESTS]
    modes += [(model, "serialization") for model in _ANSWERS]
    _, definitions = models_json_schema(modes, ref_template=_REF)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    components.update(definitions["$defs"])
    document["components"]["securitySchemes"] = {_KEY_SCHEME: _KEY_SCHEME_IS}
    for each in declared:
        for method in each.route.methods or ():
            operation = document["paths"].get(each.route.path_format, {}).get(method.lower())
            if operation is not None:
                _secure(operation, each.access)
    return document


def _secure(operation: dict[str, Any], access: Access) -> None:
    """Say what an operation needs, and how it is refused to those who lack that."""
    needed: dict[str, list[str]] = {_KEY_SCHEME: [] if access.scope is None else [access.scope]}
    operation["security"] = [needed] if access.is_counted else [{}, needed]  # {}: it may be open
    refusals = [401, *([403] if access.scope is not None else []), *([429] if access.is_counted else [])]
    described = operation["responses"] | {str(status): _problems(status) for status in refusals}
    operation["responses"] = dict(sorted(described.items()))


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _problems(status: int) -> dict[str, Any]:
    kinds = {kind.code: kind for kind in (*PROBLEMS.values(), INTERNAL) if kind.status == status}
    headers: dict[str, Any] = dict(_REQUEST_ID_HEADER)
    if status in (401, 403):
        headers["WWW-Authenticate"] = {"description": "what is needed (RFC 6750)", "schema": {"type": "string"}}
    if status == 429:
        headers["Retry-After"] = {"description": "seconds to wait", "schema": {"type": "integer"}}
    return {
        "description": "; ".join(kind.title for kind in kinds.values()),
        "headers": headers,
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": _REF.format(model=schemas.ProblemAnswer.__name__)},
                "examples": {code: {"value": _example(kind)} for code, kind in kinds.items()},
            }
        },
    }


def _example(kind: ProblemType) -> dict[str, Any]:
    return {
        "type": f"urn:shitu-hash:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": "a sentence about this very case",
        "code": kind.code,
        "request_id": "0f7c2d0a9e5b4b0c8a4e2f6d1c3b5a79",
    }
