"""What requests and answers look like: the one source for validation and for the OpenAPI document.

JSON is validated strictly (``"5"`` is no number); form fields are text, so their numbers and flags are read from
it. Unknown fields are refused in both.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import from_json
from typing_extensions import Self

from index_store import MAX_LABEL_CHARACTERS, MAX_METADATA_BYTES, Method

from .errors import FieldProblem, InvalidFields, MalformedBody

MAX_DELETED_IDS = 10_000
_MAX_MEMBERS = 32  # no request has so many; each unknown one would cost kilobytes to explain
OnDuplicate = Literal["add", "return", "reject"]


@dataclass(frozen=True)
class Context:
    """What validation has to know beside the value.

    Attributes:
        bits: length of the gallery's codes.
        form: whether the values come from a form, where everything is text.
        max_metadata_bytes: most that the metadata of an item may take as compact JSON.
    """

    bits: int
    form: bool = False
    max_metadata_bytes: int = MAX_METADATA_BYTES


def _context(info: ValidationInfo) -> Context:
    if not isinstance(info.context, Context):
        raise TypeError("validation needs a Context")
    return info.context


def _within_bits(radius: int | None, info: ValidationInfo) -> int | None:
    bits = _context(info).bits
    if radius is not None and radius > bits:
        raise ValueError(f"must be from 0 to {bits}, the bits of a code")
    return radius


def _full_length(code: str | None, info: ValidationInfo) -> str | None:
    digits = _context(info).bits // 4
    if code is not None and len(code) != digits:
        raise ValueError(f"must have {digits} hexadecimal digits ({4 * digits} bits), not {len(code)}")
    return code


def _decode_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be text: the picture file in base64")  # noqa: TRY004  pydantic wants ValueError
    if value.startswith("data:"):
        raise ValueError("must be bare base64, without the 'data:...;base64,' in front")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("must be valid base64 (RFC 4648, with padding, without line breaks)") from error


def _parse_metadata(value: Any, info: ValidationInfo) -> Any:
    context = _context(info)
    if not context.form or not isinstance(value, str):
        return value
    # Each of these is a byte of the compact form, too; to read a megabyte of them first takes half a second.
    if sum(map(value.count, ",[{")) > context.max_metadata_bytes:
        raise ValueError(f"must have at most {context.max_metadata_bytes:,} bytes as compact JSON")
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"must be a JSON object: {error}") from error


def _small_and_finite(metadata: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
    most = _context(info).max_metadata_bytes
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())
    except (ValueError, RecursionError) as error:
        raise ValueError("must be JSON of usual depth without NaN and infinities") from error
    if size > most:
        raise ValueError(f"must have at most {most:,} bytes as compact JSON, not {size:,}")
    return metadata


Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LABEL_CHARACTERS),
    Field(description="what the picture shows, exact text"),
]
ItemId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$"),
    Field(description="id of an item; letters, digits and `._:-`"),
]
HexCode = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9A-Fa-f]*$"),
    AfterValidator(_full_length),
    Field(description="a code in hexadecimal, the first feature in the highest bit of the first byte"),
]
Metadata = Annotated[
    dict[str, JsonValue],
    AfterValidator(_small_and_finite),
    BeforeValidator(_parse_metadata),
    Field(description="any JSON object; in a form as its text"),
]
Base64Picture = Annotated[
    bytes,
    PlainValidator(_decode_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
    Field(description="the picture file in base64"),
]
PictureFile = Annotated[
    bytes,
    WithJsonSchema({"type": "string", "format": "binary"}),
    Field(description="the picture file: JPEG, PNG, WebP, GIF or BMP"),
]
Fingerprint = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    Field(description="the model that made `code`; refused if it is another than the gallery's"),
]


class RequestModel(BaseModel):
    """Base of what can be sent: no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _SearchOptions(RequestModel):
    hamming_radius: Annotated[int, Field(ge=0), AfterValidator(_within_bits)] | None = Field(
        None, description="greatest distance of a match, inclusive, 0 to bits; unset: the service's default"
    )
    top_k: int | None = Field(None, ge=1, le=1000, description="most matches an object")
    label: Label | None = Field(None, description="only items with exactly this label")
    detect: bool = Field(True, description="look for objects with the detector, if the service has one")
    max_objects: int | None = Field(None, ge=1, le=100, description="most detected boxes")
    det_threshold: float | None = Field(None, ge=0, le=1, description="least score of a detected box")
    whole_image: bool | None = Field(
        None,
        description="search the whole picture beside the detected boxes; it competes with them: of overlapping objects "
        "with a match the nearest stays. false: only where nothing is detected; unset: the service's default",
    )
    nprobe: int | None = Field(
        None, ge=1, le=10_000_000, description="inverted lists that an IVF index looks at; unset: the index's default"
    )
    ef_search: int | None = Field(
        None, ge=1, le=100_000, description="candidates that an HNSW32 index keeps; unset: the index's default"
    )
    explain: bool = Field(False, description="also tell what was dropped and what lay just outside the radius")
    annotate: bool = Field(
        False,
        description="answer with the upright picture, its objects drawn onto it, as PNG (JPEG if `Accept` prefers it) "
        "instead of JSON; so does `Accept: image/png`. Only where the query is a picture",
    )


class SearchForm(_SearchOptions):
    """Search by a picture file."""

    model_config = ConfigDict(title="SearchForm")

    image: PictureFile


class SearchJson(_SearchOptions):
    """Search by exactly one of a picture, a code, or an item of the gallery."""

    image_base64: Base64Picture | None = None
    code: HexCode | None = None
    item_id: ItemId | None = None
    model_fingerprint: Fingerprint | None = None

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        _exactly_one(self, "image_base64", "code", "item_id")
        _only_with_code(self.code, self.model_fingerprint)
        return self


class _ItemFields(RequestModel):
    label: Label
    metadata: Metadata = Field(default_factory=dict)


class _NewItemFields(_ItemFields):
    id: ItemId | None = None


class _EnrolOptions(RequestModel):
    detect: bool = Field(False, description="enrol the best detected box instead of the whole picture")


class _AddOptions(_EnrolOptions):
    on_duplicate: OnDuplicate = Field(
        "add",
        description="what to do about an item with an equal code: `add` another, `return` that one, or `reject`",
    )


class _CodeSource(RequestModel):
    image_base64: Base64Picture | None = None
    code: HexCode | None = None
    model_fingerprint: Fingerprint | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "image_base64", "code")
        _only_with_code(self.code, self.model_fingerprint)
        return self


class EnrolForm(_NewItemFields, _AddOptions):
    """Enrol a picture file."""

    image: PictureFile


class EnrolJson(_NewItemFields, _AddOptions, _CodeSource):
    """Enrol a picture or a ready-made code."""


class ReplaceForm(_ItemFields, _EnrolOptions):
    """Replace an item by a picture file."""

    image: PictureFile


class ReplaceJson(_ItemFields, _EnrolOptions, _CodeSource):
    """Replace an item by a picture or a ready-made code."""


class BatchFormItem(_NewItemFields):
    """One picture of a batch form, put together from the repeated fields."""

    image: PictureFile


class BatchItem(_NewItemFields, _CodeSource):
    """One item of a JSON batch."""


class BatchForm(_AddOptions):
    """Enrol many picture files: the n-th of every repeated field belong together."""

    images: list[PictureFile] = Field(min_length=1)
    labels: list[str]
    ids: list[str] | None = Field(None, description="as many as images, or none")
    metadata: list[str] | None = Field(None, description="as many JSON objects as images, or none")


class BatchJson(_AddOptions):
    """Enrol many pictures or ready-made codes; each item is checked on its own. Codes alone may be many more."""

    items: Annotated[list[dict[str, Any]], FailFast()] = Field(min_length=1)


class DeleteJson(RequestModel):
    """Remove items by their ids, or all items of a label."""

    ids: list[Annotated[str, StringConstraints(max_length=128)]] | None = Field(
        None, min_length=1, max_length=MAX_DELETED_IDS
    )
    label: Label | None = None

    @model_validator(mode="after")
    def _one_selector(self) -> Self:
        _exactly_one(self, "ids", "label")
        return self


class RebuildJson(RequestModel):
    """Rebuild the index."""

    method: Method | None = Field(
        None, description="kind of index, chosen and remembered from then on; unset: the one that is chosen"
    )


class ListQuery(RequestModel):
    """Which page of the gallery."""

    cursor: str | None = Field(None, max_length=1024, description="`next_cursor` of the page before")
    limit: int = Field(100, ge=1, le=1000, description="most items")
    label: Label | None = Field(None, description="only items with exactly this label")


def _exactly_one(model: BaseModel, *names: str) -> None:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        choice = ", ".join(names[:-1]) + " or " + names[-1]
        raise ValueError(f"needs exactly one of {choice}, not {' and '.join(given) or 'none'}")


def _only_with_code(code: str | None, fingerprint: str | None) -> None:
    if fingerprint is not None and code is None:
        raise ValueError("model_fingerprint goes with code")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ItemAnswer(_Answer):
    """An item of the gallery."""

    id: str
    label: str
    metadata: dict[str, JsonValue]
    code: str = Field(description="hexadecimal")
    created_at: str | None = Field(description="RFC 3339, UTC")


class MatchAnswer(_Answer):
    """An item within the radius."""

    id: str
    label: str
    distance: int = Field(description="Hamming distance in bits")
    metadata: dict[str, JsonValue]


class ObjectAnswer(_Answer):
    """One object of the query."""

    bbox: list[int] | None = Field(description="x1, y1, x2, y2 in pixels of the upright picture; null for a code")
    det_score: float | None = Field(description="score of the detector; null for what no detector found")
    is_whole_image: bool
    code: str = Field(description="hexadecimal")
    matches: list[MatchAnswer] = Field(description="by distance, then id")
    truncated: bool = Field(description="more items lie within the radius than top_k")
    nearest_outside: MatchAnswer | None = Field(
        default=None, description="with explain: the closest item outside the radius"
    )


class DroppedAnswer(ObjectAnswer):
    """An object that another one made superfluous."""

    reason: str


class SearchAnswer(_Answer):
    """What a search found."""

    objects: list[ObjectAnswer]
    dropped: list[DroppedAnswer] | None = Field(default=None, description="with explain")
    model_fingerprint: str
    index_items: int
    timings_ms: dict[str, float] = Field(description="milliseconds by stage: decode, detect, hash, search")


class ProblemAnswer(_Answer):
    """A problem document (RFC 9457). Some kinds have further members."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable name of the problem")
    request_id: str
    errors: list[dict[str, str]] | None = Field(default=None, description="field by field, with `invalid_fields`")


class BatchResult(_Answer):
    """What became of one item of a batch: ``item`` if it is enrolled, else ``problem``."""

    status: int
    item: ItemAnswer | None = None
    problem: ProblemAnswer | None = None


class BatchAnswer(_Answer):
    """What became of a batch, in the order sent."""

    results: list[BatchResult]


class PageAnswer(_Answer):
    """A page of the gallery, ordered by id."""

    items: list[ItemAnswer]
    next_cursor: str | None = Field(description="null on the last page")


class RemovedAnswer(_Answer):
    """How many items were removed."""

    removed: int


class IndexAnswer(_Answer):
    """The search index."""

    method: Method = Field(description="what was chosen")
    serving: str = Field(description="kind of index that answers searches now: Flat, IVF or HNSW32")
    reason: str = Field(description="why it is that one")
    parameters: dict[str, int] = Field(description="what tunes it, with the values that hold unless a search says more")
    bits: int
    items: int
    recent_items: int = Field(description="items still compared one by one until they are folded into lists or graph")
    bytes: int = Field(description="memory of the index")
    model_fingerprint: str | None = Field(description="of the model whose codes it holds")
    rebuild_progress: float | None = Field(description="0 to 1 while an index is being built, else null")
    rebuild_error: str | None = Field(description="why the last rebuild failed; null if it did not")


class StatusAnswer(_Answer):
    """A short sign of life; ``checks`` are ``ok`` or say what is wrong."""

    status: str
    checks: dict[str, str] | None = None


class HealthAnswer(_Answer):
    """A summary for people."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, str]
    version: str
    uptime_s: float
    requests_under_way: int
    hasher: str
    detector: str | None
    model_fingerprint: str
    hamming_radius: int
    index: IndexAnswer
    limits: dict[str, int]


_Model = TypeVar("_Model", bound=RequestModel)


def parse_json(model: type[_Model], body: bytes, context: Context) -> _Model:
    """Parse and validate a JSON body.

    Raises:
        MalformedBody: it is not JSON.
        InvalidFields: it is, but not what ``model`` describes.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidFields.one("body", "must be a JSON object")
    return parse_object(model, value, context)


def parse_object(model: type[_Model], value: Mapping[str, Any], context: Context) -> _Model:
    """Validate fields that are parsed already, strictly unless they come from a form.

    Raises:
        InvalidFields: they are not what ``model`` describes.
    """
    if len(value) > _MAX_MEMBERS:
        raise InvalidFields.one("body", f"has more than {_MAX_MEMBERS} members")
    try:
        return model.model_validate(value, strict=not context.form, context=context)
    except ValidationError as error:
        raise _explain(error) from error


def _explain(error: ValidationError) -> InvalidFields:
    problems = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part)[:100] for part in detail["loc"]) or "body"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            message = "is not a field of this request"
        problems.append(FieldProblem(field, message))
    return InvalidFields(problems[:100])
