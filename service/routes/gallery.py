"""``/gallery``: enrolling, reading, replacing and removing single items."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from index_store import ItemNotFound

from .. import openapi
from ..answers import item_answer
from ..bodies import BodyLimits, read_json
from ..enrolment import Draft
from ..errors import PictureError
from ..runtime import Runtime
from ..schemas import (
    MAX_DELETED_IDS,
    DeleteJson,
    EnrolForm,
    EnrolJson,
    ItemAnswer,
    ListQuery,
    PageAnswer,
    RemovedAnswer,
    ReplaceForm,
    ReplaceJson,
    parse_json,
)
from ..security.access import Access, needs
from ..timing import StageTimes
from .common import check_fingerprint, enrolled, json_response, no_query, read_call, runtime_of

router = APIRouter(tags=["gallery"])

_MAX_DELETE_BYTES = MAX_DELETED_IDS * 160
_ITEM = {
    "id": "0193b1c2-7f3e",
    "label": "cola 330 ml",
    "metadata": {"sku": "4711"},
    "code": "00ff" * 32,
    "created_at": "2026-11-23T17:46:00.123456Z",
}
_EXAMPLES = {
    "a picture": {"image_base64": openapi.PICTURE_BASE64, "label": "cola 330 ml", "metadata": {"sku": "4711"}},
    "a code": {"code": "00ff" * 32, "label": "cola 330 ml", "on_duplicate": "reject"},
}


@router.post(
    "/gallery",
    summary="Enrol a picture",
    status_code=201,
    response_class=Response,
    openapi_extra=openapi.body(form=EnrolForm, json=EnrolJson, examples=_EXAMPLES),
    responses=openapi.answers(
        ItemAnswer,
        *(400, 408, 409, 413, 415, 422, 429, 503, 507),
        status=201,
        description="Enrolled: it survives a crash and is found from now on",
        example=_ITEM,
        also={200: "With `on_duplicate` = `return`: the item with an equal code that was there before"},
    ),
)
@needs(Access.GALLERY)
async def enrol(request: Request) -> Response:
    """Add one item to the gallery, by a picture or a ready-made code."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        runtime.require_model()
        sent = await read_call(request, runtime, EnrolForm, EnrolJson)
        times = StageTimes()
        draft = await _draft(runtime, sent.id, sent, times)
        (outcome,) = await runtime.storage.run(lambda _: runtime.enroller.add([draft], sent.on_duplicate, times))
        runtime.metrics.observe_stages(times.seconds)
        if isinstance(outcome, Exception):
            raise outcome
        item, status = enrolled(outcome)
        return json_response(item_answer(item), status)


@router.get(
    "/gallery",
    summary="List items",
    response_class=Response,
    responses=openapi.answers(
        PageAnswer,
        *(422, 429, 503),
        description="A page; the next one begins at `next_cursor`",
        example={"items": [_ITEM], "next_cursor": None},
    ),
)
@needs(Access.GALLERY)
async def list_items(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """List the gallery by id. What is there throughout a walk appears exactly once."""
    runtime = runtime_of(request)
    with runtime.admission.permit():

        def answer(_: None) -> Response:  # as a whole on the thread: with much metadata it takes long to write
            page = runtime.store.list(query.cursor, query.limit, query.label)
            items = [item_answer(item) for item in page.items]
            return json_response(PageAnswer(items=items, next_cursor=page.next_cursor))

        return await runtime.storage.run(answer)


@router.post(
    "/gallery/delete",
    summary="Remove many items",
    response_class=Response,
    openapi_extra=openapi.body(
        json=DeleteJson, examples={"by id": {"ids": ["0193b1c2-7f3e"]}, "by label": {"label": "cola 330 ml"}}
    ),
    responses=openapi.answers(
        RemovedAnswer,
        *(400, 408, 413, 415, 422, 429, 503, 507),
        description="How many there were; ids that were not there do not count",
        example={"removed": 1},
    ),
)
@needs(Access.GALLERY)
async def delete_items(request: Request) -> Response:
    """Remove items by their ids, or every item with a label."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        body = await read_json(request, BodyLimits.for_json(_MAX_DELETE_BYTES))
        sent = parse_json(DeleteJson, body, runtime.context())

        def remove(_: None) -> int:
            if sent.label is not None:
                return runtime.enroller.remove_label(sent.label)
            return runtime.enroller.remove(sent.ids or [])

        return json_response(RemovedAnswer(removed=await runtime.storage.run(remove)))


@router.get(
    "/gallery/{id}",
    summary="Read an item",
    response_class=Response,
    dependencies=[Depends(no_query)],
    responses=openapi.answers(ItemAnswer, 404, 422, 429, 503, description="The item", example=_ITEM),
)
@needs(Access.GALLERY)
async def read_item(request: Request, id: str) -> Response:  # noqa: A002  the path says {id}
    """Give one item."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        item = await runtime.storage.run(lambda _: runtime.store.get(id))
        if item is None:
            raise ItemNotFound(id)
        return json_response(item_answer(item))


@router.put(
    "/gallery/{id}",
    summary="Replace an item",
    response_class=Response,
    openapi_extra=openapi.body(
        form=ReplaceForm, json=ReplaceJson, examples={"a code": {"code": "00ff" * 32, "label": "cola"}}
    ),
    responses=openapi.answers(
        ItemAnswer, 400, 404, 408, 409, 413, 415, 422, 429, 503, 507, description="Replaced", example=_ITEM
    ),
)
@needs(Access.GALLERY)
async def replace_item(request: Request, id: str) -> Response:  # noqa: A002  as above
    """Put a new label, new metadata and a new picture or code in place of the item's."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        runtime.require_model()
        sent = await read_call(request, runtime, ReplaceForm, ReplaceJson)
        if await runtime.storage.run(lambda _: runtime.store.get(id)) is None:
            raise ItemNotFound(id)
        times = StageTimes()
        draft = await _draft(runtime, id, sent, times)
        item = await runtime.storage.run(lambda _: runtime.enroller.replace(draft, times))
        runtime.metrics.observe_stages(times.seconds)
        return json_response(item_answer(item))


@router.delete(
    "/gallery/{id}",
    summary="Remove an item",
    status_code=204,
    response_class=Response,
    dependencies=[Depends(no_query)],
    responses=openapi.answers(None, 404, 422, 429, 503, 507, status=204, description="Removed for good"),
)
@needs(Access.GALLERY)
async def delete_item(request: Request, id: str) -> Response:  # noqa: A002  as above
    """Remove one item."""
    runtime = runtime_of(request)
    with runtime.admission.permit():
        if await runtime.storage.run(lambda _: runtime.enroller.remove([id])) == 0:
            raise ItemNotFound(id)
        return Response(status_code=204)


async def _draft(
    runtime: Runtime, item_id: str | None, sent: EnrolForm | EnrolJson | ReplaceForm | ReplaceJson, times: StageTimes
) -> Draft:
    """Make the item to be: hash its picture unless it came with a code."""
    if isinstance(sent, EnrolJson | ReplaceJson) and sent.code is not None:
        check_fingerprint(runtime, sent.model_fingerprint)
        return Draft(item_id, sent.label, sent.metadata, bytes.fromhex(sent.code))
    picture = sent.image if isinstance(sent, EnrolForm | ReplaceForm) else sent.image_base64 or b""
    options = runtime.detect_options(sent.detect)
    keep = runtime.settings.keep_images
    outcomes = await runtime.inference.run(lambda vision: vision.code([picture], options, times, keep=keep))
    if isinstance(outcomes[0], PictureError):
        raise outcomes[0]
    return Draft(item_id, sent.label, sent.metadata, outcomes[0].code, outcomes[0].hashed if keep else None)
