"""What all routes share: the running service, and answers as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from index_store import Existing, Item

from ..bodies import BodyLimits, Form, read_form_or_json
from ..errors import FieldProblem, ForeignCode, InvalidFields, NotReady
from ..forms import single_fields
from ..runtime import Runtime, running_in
from ..schemas import RequestModel, parse_json, parse_object

FormModel = TypeVar("FormModel", bound=RequestModel)
JsonModel = TypeVar("JsonModel", bound=RequestModel)
Result = TypeVar("Result")

_SMALL_LENGTH = 2**18


def runtime_of(request: Request) -> Runtime:
    """Give the running service.

    Raises:
        NotReady: it has not started.
    """
    runtime = running_in(request.app)
    if runtime is None:
        raise NotReady("the service is starting", "starting")
    return runtime


def no_query(request: Request) -> None:
    """Refuse query parameters where there are none.

    Raises:
        InvalidFields.
    """
    if request.query_params:
        names = sorted(set(request.query_params))
        raise InvalidFields([FieldProblem(name[:100], "is not a parameter of this request") for name in names[:100]])


async def read_call(
    request: Request, runtime: Runtime, form: type[FormModel], json: type[JsonModel]
) -> FormModel | JsonModel:
    """Read and validate a body that is a form with one picture in ``image``, or JSON.

    Raises:
        RequestError: something is wrong with the body or its fields.
        PictureTooLarge: the form's picture has too many bytes.
    """
    limits = BodyLimits.for_one_picture(runtime.settings.max_upload_bytes)
    sent = await read_form_or_json(request, limits, frozenset({"image"}))
    if isinstance(sent, Form):
        fields = single_fields(sent)
        return await off_loop(runtime, sent.text_length, lambda: parse_object(form, fields, runtime.context(form=True)))
    body = sent
    return await off_loop(runtime, len(body), lambda: parse_json(json, body, runtime.context()))


async def off_loop(runtime: Runtime, length: int, function: Callable[[], Result]) -> Result:
    """Run the parsing of so many bytes or characters, on the event loop only if they are few."""
    if length <= _SMALL_LENGTH:
        return function()
    return await runtime.storage.run(lambda _: function())


def check_fingerprint(runtime: Runtime, given: str | None) -> None:
    """Refuse a code that comes with the fingerprint of another model.

    Raises:
        ForeignCode.
    """
    if given is not None and given != runtime.store.fingerprint:
        raise ForeignCode(
            f"the code is of model {given}, the gallery is of model {runtime.store.fingerprint}; "
            "codes of two models cannot be compared"
        )


def json_response(answer: BaseModel, status: int = 200) -> Response:
    """Write an answer; members that were not set are left out."""
    return Response(answer.model_dump_json(exclude_unset=True), status, media_type="application/json")


def enrolled(outcome: Item | Existing) -> tuple[Item, int]:
    """Give the item that answers an enrolment, and the status: it was made (201) or was there before (200)."""
    return (outcome.item, 200) if isinstance(outcome, Existing) else (outcome, 201)
