"""Errors of the service, and the one place that knows what HTTP makes of every error.

::

    ServiceError
    ├── StartupError             the service cannot start; the text says what to do
    │   └── KeyFileError         API keys are not written as they should be, or cannot be read
    ├── PictureError
    │   ├── EmptyPicture         there are no bytes
    │   ├── UnsupportedPicture   the bytes are not a picture of a supported type
    │   ├── UndecodablePicture   they begin like one, but are cut short or corrupt
    │   ├── PictureTooLarge      more bytes than allowed
    │   ├── TooManyPixels        more pixels than allowed
    │   └── PictureTooComplex    more scans, segments or chunks than any picture has
    ├── RequestError
    │   ├── MalformedRequest     it is not HTTP/1.1
    │   ├── HeadTooLarge         request line and header fields have more bytes or fields than allowed
    │   ├── HeadTimeout          they did not arrive in time
    │   ├── MalformedBody        the body is not the multipart form or JSON that it says it is
    │   │   └── EmptyBody        there is none
    │   ├── UnsupportedBody      it is neither of the two
    │   ├── BodyTooLarge         more bytes than allowed
    │   ├── BodyTimeout          it did not arrive in time
    │   └── InvalidFields        fields are missing, unknown, of the wrong kind or out of range
    ├── Unauthenticated          the request came without a valid API key
    ├── InsufficientScope        its key does not open what it asks for
    ├── ModelMismatch            the codes in the gallery are of another model than the loaded one
    ├── ForeignCode              a query's code is of another model than the gallery's
    ├── RebuildUnderWay          one rebuild of the index at a time
    ├── TooMuch                  more than is allowed at a time; says when to try again
    │   ├── TooManyRequests      as many requests as allowed are under way
    │   ├── RateLimited          a caller sends more requests a second than allowed
    │   └── TooManyConnections   as many connections as allowed are open, and all are at work
    └── NotReady                 the service is starting, stopping or broken

The errors of ``index_store`` keep their own tree, and :data:`PROBLEMS` covers both. Those of ``models.inference`` end
the start; from a running model they are nothing that a caller could mend, so they become ``internal_error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import index_store


class ServiceError(Exception):
    """Base of everything ``service`` raises on purpose; the text is fit for the caller to read."""


class StartupError(ServiceError):
    """The service cannot start: a model, the data folder or a setting cannot be used."""


class KeyFileError(StartupError):
    """API keys are not written as they should be, or cannot be read.

    Attributes:
        problems: one line for each thing to correct; none repeats a key or a hash.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        """Take one line for each thing to correct."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class PictureError(ServiceError):
    """Base of what can be wrong with a picture."""


class EmptyPicture(PictureError):
    """The picture has no bytes."""


class UnsupportedPicture(PictureError):
    """The bytes are not a picture, or one of a type that is not supported."""


class UndecodablePicture(PictureError):
    """The bytes begin like a picture but are truncated or corrupt."""


class PictureTooLarge(PictureError):
    """The picture file has more bytes than allowed."""


class TooManyPixels(PictureError):
    """The picture's header promises more pixels than allowed; nothing was decoded."""


class PictureTooComplex(PictureError):
    """The picture file has far more parts than any picture; nothing was decoded."""


class RequestError(ServiceError):
    """Base of what can be wrong with a request apart from its pictures."""


class MalformedRequest(RequestError):
    """What came is not HTTP/1.1, or ambiguous (RFC 9112)."""


class HeadTooLarge(RequestError):
    """Request line and header fields have more bytes or fields than allowed; reading stopped there."""


class HeadTimeout(RequestError):
    """Request line and header fields did not arrive in time."""


class MalformedBody(RequestError):
    """The body cannot be parsed."""


class EmptyBody(MalformedBody):
    """The request needs a body and has none."""


class UnsupportedBody(RequestError):
    """The body has a content type or content encoding that is not supported."""


class BodyTooLarge(RequestError):
    """The body has more bytes than allowed; reading stopped there."""


class BodyTimeout(RequestError):
    """The body stopped arriving."""


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field; ``field`` is its path, such as ``items.3.label``."""

    field: str
    message: str


class InvalidFields(RequestError):
    """Fields are missing, unknown, of the wrong kind or out of range.

    Attributes:
        problems: one for each such field.
    """

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        """Take what is wrong with each field; there is at least one."""
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems[:5]))
        self.problems = tuple(problems)

    @classmethod
    def one(cls, field: str, message: str) -> InvalidFields:
        """Make the error for a single field."""
        return cls([FieldProblem(field, message)])


class Unauthenticated(ServiceError):
    """The request came without a valid API key.

    Attributes:
        reason: ``missing``, ``malformed`` or ``unknown``.
    """

    def __init__(self, reason: Literal["missing", "malformed", "unknown"], detail: str) -> None:
        """Take what is wrong, and a sentence for the caller."""
        super().__init__(detail)
        self.reason = reason


class InsufficientScope(ServiceError):
    """The request's key does not open what it asks for.

    Attributes:
        scope: what the key would have to have.
    """

    def __init__(self, name: str, scopes: Sequence[str], scope: str) -> None:
        """Take the key's name and scopes, and the scope that it would have to have."""
        super().__init__(f"the key {name} has the scope {' and '.join(scopes)}; this needs {scope}")
        self.scope = scope


class ModelMismatch(ServiceError):
    """The codes in the gallery were made by another model than the one that is loaded."""

    def __init__(self, stored: str, loaded: str, *, adoptable: bool = False) -> None:
        """Take the fingerprints of the gallery's model and of the loaded one.

        ``adoptable`` is whether the gallery's is unknown, so that it may be the loaded one.
        """
        remedy = (
            "if it made them, start once with `shitu serve --adopt`; if not, start the service with the model that did"
            if adoptable
            else "start the service with the model of the gallery"
        )
        super().__init__(
            f"the codes in the gallery are of model {stored}, the loaded model is {loaded}: {remedy}, or make the "
            "codes again with `shitu gallery rehash`"
        )
        self.stored = stored
        self.loaded = loaded


class ForeignCode(ServiceError):
    """A code came with the fingerprint of another model than the gallery's."""


class RebuildUnderWay(ServiceError):
    """The index is being rebuilt already."""


class TooMuch(ServiceError):
    """More than is allowed at a time.

    Attributes:
        retry_after_s: whole seconds after which trying again makes sense.
    """

    def __init__(self, limit: str, retry_after_s: int) -> None:
        """Take the limit as a sentence, and when to try again."""
        super().__init__(f"{limit}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooManyRequests(TooMuch):
    """As many requests as allowed are under way."""

    def __init__(self, limit: str, retry_after_s: int) -> None:
        """Take the limit, such as "64 requests", and when to try again."""
        super().__init__(f"{limit} are under way, which is the limit", retry_after_s)


class RateLimited(TooMuch):
    """A caller sends more requests a second than allowed; the next one is allowed after ``retry_after_s``."""


class TooManyConnections(TooMuch):
    """As many connections as allowed are open, and all are at work."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        """Take the limit, and when to try again."""
        super().__init__(f"{limit} connections are open, which is the limit", retry_after_s)


class NotReady(ServiceError):
    """The service is starting, stopping or broken.

    Attributes:
        code: which of these, such as ``shutting_down`` or ``inference_failed``.
    """

    def __init__(self, detail: str, code: str = "not_ready") -> None:
        """Take a sentence for the caller and a stable code."""
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class ProblemType:
    """A kind of problem document (RFC 9457): HTTP status, our stable code, and a title for people."""

    status: int
    code: str
    title: str


_CHALLENGE = 'Bearer realm="shitu-hash"'

INTERNAL = ProblemType(500, "internal_error", "The service failed")
INVALID_FIELDS = ProblemType(422, "invalid_fields", "Fields are missing, unknown or out of range")

PROBLEMS: Mapping[type[Exception], ProblemType] = MappingProxyType(
    {
        EmptyPicture: ProblemType(400, "empty_picture", "The picture has no bytes"),
        UndecodablePicture: ProblemType(400, "undecodable_picture", "The picture cannot be decoded"),
        UnsupportedPicture: ProblemType(415, "unsupported_picture", "Not a picture of a supported type"),
        PictureTooLarge: ProblemType(413, "picture_too_large", "The picture has too many bytes"),
        TooManyPixels: ProblemType(413, "too_many_pixels", "The picture has too many pixels"),
        PictureTooComplex: ProblemType(413, "picture_too_complex", "The picture file has too many parts"),
        MalformedRequest: ProblemType(400, "malformed_request", "The request is not HTTP/1.1"),
        HeadTooLarge: ProblemType(431, "head_too_large", "The head of the request is too large"),
        HeadTimeout: ProblemType(408, "head_timeout", "The head of the request did not arrive in time"),
        EmptyBody: ProblemType(400, "empty_body", "The body is empty"),
        MalformedBody: ProblemType(400, "malformed_body", "The body cannot be parsed"),
        UnsupportedBody: ProblemType(415, "unsupported_body", "Not a body of a supported type"),
        BodyTooLarge: ProblemType(413, "body_too_large", "The body is too large"),
        BodyTimeout: ProblemType(408, "body_timeout", "The body did not arrive in time"),
        InvalidFields: INVALID_FIELDS,
        Unauthenticated: ProblemType(401, "unauthenticated", "A valid API key is needed"),
        InsufficientScope: ProblemType(403, "insufficient_scope", "The API key does not open this"),
        ModelMismatch: ProblemType(409, "model_mismatch", "The gallery is of another model"),
        ForeignCode: ProblemType(409, "foreign_code", "The code is of another model"),
        RebuildUnderWay: ProblemType(409, "rebuild_under_way", "The index is being rebuilt"),
        TooManyRequests: ProblemType(429, "too_many_requests", "Too many requests are under way"),
        RateLimited: ProblemType(429, "rate_limited", "Too many requests a second"),
        TooManyConnections: ProblemType(503, "too_many_connections", "Too many connections are open"),
        NotReady: ProblemType(503, "not_ready", "The service is not ready"),
        index_store.InvalidItem: ProblemType(422, "invalid_item", "The item cannot be stored"),
        index_store.InvalidQuery: ProblemType(422, "invalid_query", "The query is out of range"),
        index_store.ItemExists: ProblemType(409, "item_exists", "An item with this id exists"),
        index_store.DuplicateCode: ProblemType(409, "duplicate_code", "An item with an equal code exists"),
        index_store.ItemNotFound: ProblemType(404, "item_not_found", "No such item"),
        index_store.GalleryClosed: ProblemType(503, "shutting_down", "The service is stopping"),
        index_store.DiskFull: ProblemType(507, "disk_full", "The disk is full"),
        index_store.StorageUnavailable: ProblemType(503, "storage_unavailable", "The data folder cannot be used"),
    }
)
"""What each error becomes over HTTP; a subclass without an entry becomes what its parent does."""


@dataclass(frozen=True)
class Problem:
    """One problem document before it is rendered.

    Attributes:
        kind: what it is.
        detail: a sentence about this very case.
        extensions: further members of the document.
        headers: that the answer has because of it.
    """

    kind: ProblemType
    detail: str
    extensions: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_of(error: Exception) -> Problem | None:
    """Tell what an error becomes over HTTP; None if it is not one that is raised on purpose."""
    kind = next((PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS), None)
    if kind is None:
        return None
    if isinstance(error, NotReady):
        kind = ProblemType(kind.status, error.code, kind.title)
    extensions: dict[str, Any] = {}
    if isinstance(error, InvalidFields):
        extensions["errors"] = [{"field": each.field, "message": each.message} for each in error.problems]
    if isinstance(error, ModelMismatch):
        extensions |= {"gallery_model_fingerprint": error.stored, "loaded_model_fingerprint": error.loaded}
    if isinstance(error, index_store.DuplicateCode):
        extensions["existing_id"] = error.existing.id
    return Problem(kind, str(error), extensions, _headers_of(error))


def _headers_of(error: Exception) -> dict[str, str]:
    if isinstance(error, TooMuch):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, InsufficientScope):
        return {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{error.scope}"'}
    if isinstance(error, Unauthenticated):
        # RFC 6750, section 3.1: a request without any credentials is told no error.
        return {"WWW-Authenticate": _CHALLENGE + ("" if error.reason == "missing" else ', error="invalid_token"')}
    return {}
