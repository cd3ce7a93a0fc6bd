"""``POST /search``."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from starlette.responses import Response

from index_store import ItemNotFound

from .. import openapi
from ..answers import marks_of, search_answer
from ..drawing import draw_marks
from ..errors import InvalidFields
from ..images import MEDIA_TYPES, encode_jpeg, encode_png
from ..negotiation import preferred
from ..recognizer import Query, Recognition
from ..runtime import Runtime
from ..schemas import (
    SearchAnswer,
    SearchForm,
    SearchJson,
)
from ..security.access import Access, needs
from ..timing import StageTimes
from ..vision import Candidate, Vision
from .common import check_fingerprint, json_response, read_call, runtime_of

router = APIRouter(tags=["search"])

_JSON = "application/json"
_ENCODERS = MappingProxyType({MEDIA_TYPES["PNG"]: encode_png, MEDIA_TYPES["JPEG"]: encode_jpeg})

_EXAMPLES = {
    "a picture": {"image_base64": openapi.PICTURE_BASE64, "top_k": 3},
    "a code": {"code": "00ff" * 32, "hamming_radius": 64, "top_k": 10},
    "an item": {"item_id": "0193b1c2-7f3e-cola", "top_k": 10, "label": "cola 330 ml"},
}
_ANSWER_EXAMPLE = {
    "objects": [
        {
            "bbox": [12, 30, 210, 400],
            "det_score": 0.83,
            "is_whole_image": False,
            "code": "00ff" * 32,
            "matches": [{"id": "0193b1c2-7f3e", "label": "cola 330 ml", "distance": 31, "metadata": {"sku": "4711"}}],
            "truncated": False,
        }
    ],
    "model_fingerprint": "9f2c51ab",
    "index_items": 1069,
    "timings_ms": {"decode": 4.1, "detect": 65.2, "hash": 7.4, "search": 0.3},
}


@router.post(
    "/search",
    summary="Recognize what is in a picture",
    response_class=Response,
    openapi_extra=openapi.body(form=SearchForm, json=SearchJson, examples=_EXAMPLES),
    responses=openapi.answers(
        SearchAnswer,
        *(400, 404, 408, 409, 413, 415, 422, 429, 503),
        description="The objects with their matches",
        example=_ANSWER_EXAMPLE,
        pictures=tuple(_ENCODERS),
    ),
)
@needs(Access.SEARCH)
async def search(request: Request) -> Response:
    """Find the objects in a picture and the gallery's items that look like them.

    The query is a picture (a form field `image`, or `image_base64` in JSON), a `code`, or an item of the gallery.

    With `annotate`, or where `Accept` prefers `image/png` or `image/jpeg` to JSON, the answer is the upright picture
    with a frame, the label and the distance of the best match drawn for each object. Pictures with a side of more than
    1600 pixels are reduced to that.
    """
    runtime = runtime_of(request)
    with runtime.admission.permit():
        runtime.require_model()
        call = await read_call(request, runtime, SearchForm, SearchJson)
        picture = call.image if isinstance(call, SearchForm) else call.image_base64
        media_type = _media_type(request, call.annotate)
        if media_type != _JSON and picture is None:
            raise InvalidFields.one(
                "annotate", "needs a picture to draw on, which a code or an item has not; so does Accept: image/png"
            )
        times = StageTimes()
        candidates, codes = await _look(runtime, call, picture, times)
        query = Query(
            runtime.model.hamming_radius if call.hamming_radius is None else call.hamming_radius,
            runtime.settings.top_k if call.top_k is None else call.top_k,
            call.label,
            call.explain,
            call.nprobe,
            call.ef_search,
        )

        def recognize(_: None) -> tuple[Recognition, SearchAnswer, Response | None]:
            recognition = runtime.recognizer.recognize(candidates, codes, query, times)
            answer = _answer(runtime, recognition, query, times)
            # As a whole on the thread: with much metadata it takes long to write.
            return recognition, answer, json_response(answer) if media_type == _JSON else None

        recognition, answer, response = await runtime.storage.run(recognize)
        if response is None:
            response = await _drawn(runtime, picture or b"", answer, media_type, times)
        _observe(runtime, candidates, recognition, times)
        return response


def _media_type(request: Request, annotate: bool) -> str:
    """Choose what to answer with; where a picture is asked for in so many words, ``Accept`` only chooses its kind."""
    accept = ",".join(request.headers.getlist("accept"))
    kinds = tuple(_ENCODERS)
    if annotate:
        return preferred(accept, kinds) or kinds[0]
    return preferred(accept, (_JSON, *kinds)) or _JSON


async def _look(
    runtime: Runtime, call: SearchForm | SearchJson, picture: bytes | None, times: StageTimes
) -> tuple[list[Candidate | None], npt.NDArray[np.uint8]]:
    """Get the codes to search, and what each is of."""
    if picture is not None:
        options = runtime.detect_options(call.detect, call.det_threshold, call.max_objects, call.whole_image)
        found, codes = await runtime.inference.run(lambda vision: vision.find(picture, options, times))
        return list(found), codes
    if isinstance(call, SearchJson) and call.code is not None:
        check_fingerprint(runtime, call.model_fingerprint)
        return [None], _as_row(bytes.fromhex(call.code))
    item_id = call.item_id if isinstance(call, SearchJson) and call.item_id is not None else ""
    item = await runtime.storage.run(lambda _: runtime.store.get(item_id))
    if item is None:
        raise ItemNotFound(item_id)
    return [None], _as_row(item.code)


async def _drawn(
    runtime: Runtime, picture: bytes, answer: SearchAnswer, media_type: str, times: StageTimes
) -> Response:
    """Answer with the picture and its objects drawn onto it.

    A thread of inference does it, which bounds how many pictures are decoded at a time; decoded again, since kept
    through the search as many would lie in memory as requests are under way.
    """

    def draw(vision: Vision) -> bytes:
        with times.measure("draw"):
            return _ENCODERS[media_type](draw_marks(vision.decode(picture), marks_of(answer)))

    return Response(await runtime.inference.run(draw), media_type=media_type)


def _as_row(code: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(code, np.uint8)[None]


def _observe(
    runtime: Runtime, candidates: Sequence[Candidate | None], recognition: Recognition, times: StageTimes
) -> None:
    runtime.metrics.observe_stages(times.seconds)
    if "detect" in times.seconds:
        runtime.metrics.observe_boxes(sum(each is not None and not each.is_whole_image for each in candidates))
    for each in recognition.objects:
        runtime.metrics.observe_top1(each.best_distance, runtime.store.bits)


def _answer(runtime: Runtime, recognition: Recognition, query: Query, times: StageTimes) -> SearchAnswer:
    return search_answer(
        recognition,
        times,
        model_fingerprint=runtime.model.fingerprint,
        index_items=len(runtime.store),
        explain=query.explain,
    )
