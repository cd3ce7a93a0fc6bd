"""``POST /gallery/batch``: many items in one request and one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from index_store import Existing, Item

from .. import openapi
from ..answers import item_answer
from ..bodies import BodyLimits, Form, read_form_or_json
from ..enrolment import Draft
from ..errors import FieldProblem, ForeignCode, InvalidFields, PictureError, PictureTooLarge, problem_of
from ..forms import repeated_fields
from ..problems import internal_problem, problem_answer, request_id_of
from ..runtime import Runtime
from ..schemas import (
    BatchAnswer,
    BatchForm,
    BatchFormItem,
    BatchItem,
    BatchJson,
    BatchResult,
    Context,
    OnDuplicate,
    parse_json,
    parse_object,
)
from ..security.access import Access, needs
from ..timing import StageTimes
from .common import check_fingerprint, enrolled, json_response, off_loop, runtime_of

router = APIRouter(tags=["gallery"])

_MEMBERS = (("labels", "label"), ("ids", "id"), ("metadata", "metadata"))
_REPEATED = frozenset({"images", *(field for field, _ in _MEMBERS)})
_GROUP = 8  # pictures a job: enough to fill a batch of the hasher, few enough to let searches in between
_GROUPS_AT_ONCE = 2  # jobs of one batch in the queue: enough to keep the threads busy; searches wait behind them
_EXAMPLES = {
    "two codes": {
        "items": [{"code": "00ff" * 32, "label": "cola 330 ml"}, {"code": "0ff0" * 32, "label": "lemonade"}],
        "on_duplicate": "return",
    }
}


@dataclass(frozen=True)
class _Pictured:
    """An item that still needs its code."""

    id: str | None
    label: str
    metadata: dict[str, Any]
    picture: bytes


@router.post(
    "/gallery/batch",
    summary="Enrol many pictures",
    response_class=Response,
    openapi_extra=openapi.body(form=BatchForm, json=BatchJson, examples=_EXAMPLES),
    responses=openapi.answers(
        BatchAnswer,
        *(400, 408, 409, 413, 415, 422, 429, 503, 507),
        description="What became of each item, in the order sent",
    ),
)
@needs(Access.GALLERY)
async def enrol_batch(request: Request) -> Response:
    """Add many items. Bad ones get a problem in their place; all good ones go in as one transaction."""
    runtime = runtime_of(request)
    with runtime.batch_admission.permit():
        runtime.require_model()
        async with runtime.batch_slots:  # before the body is read: this bounds the memory that batches take
            batch, entries = await _read(request, runtime)
            times = StageTimes()
            drafts = await _drafts(runtime, entries, batch.detect, times)
            request_id = request_id_of(request)
            # The answer of thousands of codes is written on the thread, too: it would hold up every other request.
            answer = await runtime.storage.run(lambda _: _store(runtime, drafts, batch.on_duplicate, times, request_id))
        runtime.metrics.observe_stages(times.seconds)
        return answer


async def _read(
    request: Request, runtime: Runtime
) -> tuple[BatchForm | BatchJson, Sequence[Draft | _Pictured | Exception]]:
    """Read the batch, and for each of its items what it is or what is wrong with it."""
    settings = runtime.settings
    limits = BodyLimits.for_batch(settings.max_batch_bytes, settings.max_batch_images, settings.max_upload_bytes)
    sent = await read_form_or_json(request, limits, frozenset({"images"}))
    if isinstance(sent, Form):
        form = sent
        return await off_loop(
            runtime,
            form.text_length,
            lambda: _read_form(form, runtime.context(form=True), settings.max_batch_images),
        )
    body = sent
    return await off_loop(runtime, len(body), lambda: _read_json(runtime, body))


def _read_json(runtime: Runtime, body: bytes) -> tuple[BatchJson, Sequence[Draft | _Pictured | Exception]]:
    context = runtime.context()
    batch = parse_json(BatchJson, body, context)
    settings = runtime.settings
    if any("image_base64" in item for item in batch.items):
        _check_count("items", len(batch.items), settings.max_batch_images, " with pictures")
    else:
        _check_count("items", len(batch.items), settings.max_batch_codes)
    return batch, [_from_json(runtime, item, context) for item in batch.items]


def _read_form(form: Form, context: Context, most: int) -> tuple[BatchForm, Sequence[_Pictured | Exception]]:
    fields = repeated_fields(form, _REPEATED)
    images: list[bytes | PictureTooLarge] = fields.pop("images", [])
    if images:
        fields["images"] = [image if isinstance(image, bytes) else b"" for image in images]
    batch = parse_object(BatchForm, fields, context)
    _check_count("images", len(images), most)
    columns = {name: getattr(batch, name) for name, _ in _MEMBERS if getattr(batch, name) is not None}
    uneven = [name for name, values in columns.items() if len(values) != len(images)]
    if uneven:
        raise InvalidFields(
            [FieldProblem(name, f"came {len(columns[name])} times, images {len(images)} times") for name in uneven]
        )
    rows = [
        {member: columns[name][index] for name, member in _MEMBERS if name in columns} for index in range(len(images))
    ]
    return batch, [_from_form(image, row, context) for image, row in zip(images, rows, strict=True)]


def _check_count(field: str, count: int, most: int, of_what: str = "") -> None:
    if count > most:
        raise InvalidFields.one(field, f"{count} were given; at most {most} are allowed in one batch{of_what}")


def _from_form(
    image: bytes | PictureTooLarge, row: Mapping[str, str], context: Context
) -> _Pictured | PictureTooLarge | InvalidFields:
    if isinstance(image, PictureTooLarge):
        return image
    try:
        item = parse_object(BatchFormItem, {**row, "image": image}, context)
    except InvalidFields as error:
        return error
    return _Pictured(item.id, item.label, item.metadata, item.image)


def _from_json(
    runtime: Runtime, value: Mapping[str, Any], context: Context
) -> Draft | _Pictured | InvalidFields | ForeignCode:
    try:
        item = parse_object(BatchItem, value, context)
        check_fingerprint(runtime, item.model_fingerprint)
    except (InvalidFields, ForeignCode) as error:
        return error
    if item.code is not None:
        return Draft(item.id, item.label, item.metadata, bytes.fromhex(item.code))
    return _Pictured(item.id, item.label, item.metadata, item.image_base64 or b"")


async def _drafts(
    runtime: Runtime, entries: Sequence[Draft | _Pictured | Exception], detect: bool, times: StageTimes
) -> list[Draft | Exception]:
    """Make the items to be, hashing the pictures group by group."""
    pictured = [each for each in entries if isinstance(each, _Pictured)]
    groups = [pictured[start : start + _GROUP] for start in range(0, len(pictured), _GROUP)]
    places = asyncio.Semaphore(_GROUPS_AT_ONCE)

    async def hash_in_turn(group: Sequence[_Pictured]) -> list[Draft | PictureError]:
        async with places:
            return await _hash(runtime, group, detect, times)

    hashed = await asyncio.gather(*(hash_in_turn(group) for group in groups))
    in_order = (each for group in hashed for each in group)
    return [next(in_order) if isinstance(each, _Pictured) else each for each in entries]


async def _hash(
    runtime: Runtime, group: Sequence[_Pictured], detect: bool, times: StageTimes
) -> list[Draft | PictureError]:
    own_times = StageTimes()  # groups run at the same time
    options = runtime.detect_options(detect)
    keep = runtime.settings.keep_images
    pictures = [each.picture for each in group]
    coded = await runtime.inference.run(lambda vision: vision.code(pictures, options, own_times, keep=keep))
    times.add(own_times)
    return [
        outcome
        if isinstance(outcome, PictureError)
        else Draft(each.id, each.label, each.metadata, outcome.code, outcome.hashed if keep else None)
        for each, outcome in zip(group, coded, strict=True)
    ]


def _store(
    runtime: Runtime,
    drafts: Sequence[Draft | Exception],
    on_duplicate: OnDuplicate,
    times: StageTimes,
    request_id: str,
) -> Response:
    """Store the items that can be stored, and answer for all."""
    good = [draft for draft in drafts if isinstance(draft, Draft)]
    stored = iter(runtime.enroller.add(good, on_duplicate, times))
    outcomes = (next(stored) if isinstance(draft, Draft) else draft for draft in drafts)
    return json_response(BatchAnswer(results=[_result(outcome, request_id) for outcome in outcomes]))


def _result(outcome: Item | Existing | Exception, request_id: str) -> BatchResult:
    if not isinstance(outcome, Exception):
        item, status = enrolled(outcome)
        return BatchResult(status=status, item=item_answer(item))
    problem = problem_of(outcome) or internal_problem()
    return BatchResult(status=problem.kind.status, problem=problem_answer(problem, request_id))
