"""Request bodies, read into memory within limits that hold while the bytes stream in.

A multipart form becomes a :class:`Form`, JSON stays bytes for pydantic to parse. Nothing is spooled to disk: what
can be in memory is bounded by these limits times the number of admitted requests.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from index_store import MAX_METADATA_BYTES

from .errors import (
    BodyTimeout,
    BodyTooLarge,
    EmptyBody,
    FieldProblem,
    InvalidFields,
    MalformedBody,
    PictureTooLarge,
    UnsupportedBody,
)

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

OVERHEAD_BYTES = 2**20
"""What a body may have beyond its pictures: boundaries, headers, the other fields."""

_FORM = "multipart/form-data"
_JSON = "application/json"
_MAX_BATCH_VALUES = 2_000_000  # 200 an item of the largest batch; parsed, each takes up to 100 bytes
_MIN_BYTES_PER_S = 16 * 2**10  # a slower sender would hold an admission permit for ever


@dataclass(frozen=True)
class BodyLimits:
    """Limits of one body.

    Attributes:
        max_body_bytes: of a multipart body as a whole.
        max_json_bytes: of a JSON body as a whole (base64 makes pictures a third larger).
        max_file_bytes: of one picture in a multipart body.
        max_field_bytes: of one other field in a multipart body.
        max_parts: parts of a multipart body.
        max_json_values: members and elements of a JSON body; commas and brackets within texts count, too.
        keep_large_files: a picture that is too large becomes an error in its place instead of failing the body.
        grace_s: how long to wait for the next bytes, and what a slow sender has beyond the least rate.
    """

    max_body_bytes: int
    max_json_bytes: int
    max_file_bytes: int
    max_field_bytes: int = OVERHEAD_BYTES
    max_parts: int = 32
    max_json_values: int = MAX_METADATA_BYTES + 2**12  # metadata of commas alone has that many
    keep_large_files: bool = False
    grace_s: float = 20.0

    @classmethod
    def for_one_picture(cls, max_upload_bytes: int) -> BodyLimits:
        """Limits of a request with at most one picture."""
        base64_bytes = (max_upload_bytes + 2) // 3 * 4
        return cls(max_upload_bytes + OVERHEAD_BYTES, base64_bytes + OVERHEAD_BYTES, max_upload_bytes)

    @classmethod
    def for_batch(cls, max_batch_bytes: int, max_batch_images: int, max_upload_bytes: int) -> BodyLimits:
        """Limits of a request with many pictures; each has four parts at most."""
        return cls(
            max_batch_bytes,
            max_batch_bytes,
            max_upload_bytes,
            max_parts=4 * max_batch_images + 32,
            max_json_values=_MAX_BATCH_VALUES,
            keep_large_files=True,
        )

    @classmethod
    def for_json(cls, max_json_bytes: int) -> BodyLimits:
        """Limits of a request that only takes JSON."""
        return cls(0, max_json_bytes, 0)


@dataclass(frozen=True)
class Form:
    """A multipart form: every value of every field, in the order sent."""

    fields: Mapping[str, list[str]] = field(default_factory=dict)
    files: Mapping[str, list[bytes | PictureTooLarge]] = field(default_factory=dict)

    @property
    def text_length(self) -> int:
        """Characters of all fields together."""
        return sum(len(value) for values in self.fields.values() for value in values)


async def read_json(request: Request, limits: BodyLimits) -> bytes:
    """Read a body that must be JSON.

    Args:
        request: its body must not have been read.
        limits: what is allowed.

    Raises:
        EmptyBody, UnsupportedBody, BodyTooLarge, BodyTimeout, InvalidFields (for query parameters);
        ClientDisconnect if the client is gone.
    """
    content_type, _ = _content_type(request, _JSON)
    if content_type != _JSON:
        raise UnsupportedBody(f"{content_type} is not supported here; send {_JSON}")
    return await _read_bytes(request, limits)


async def read_form_or_json(request: Request, limits: BodyLimits, file_fields: frozenset[str]) -> Form | bytes:
    """Read a body: a multipart form, or JSON as bytes.

    Args:
        request: its body must not have been read.
        limits: what is allowed.
        file_fields: names of the parts that are pictures; all others are UTF-8 text.

    Raises:
        what :func:`read_json` raises; MalformedBody, PictureTooLarge.
    """
    content_type, options = _content_type(request, f"{_FORM} or {_JSON}")
    if content_type == _JSON:
        return await _read_bytes(request, limits)
    if content_type != _FORM:
        raise UnsupportedBody(f"{content_type} is not supported here; send {_FORM} or {_JSON}")
    if b"boundary" not in options:
        raise MalformedBody("the multipart body has no boundary in its Content-Type")
    return await _read_form(request, limits, file_fields, options[b"boundary"])


def _content_type(request: Request, supported: str) -> tuple[str, dict[bytes, bytes]]:
    """Give the content type with its options, after what goes for every body has been checked."""
    if request.query_params:
        names = sorted(set(request.query_params))
        raise InvalidFields([FieldProblem(name[:100], f"belongs into the body ({supported})") for name in names[:100]])
    if "content-encoding" in request.headers:
        raise UnsupportedBody("a compressed body is not supported; send it without Content-Encoding")
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        raise EmptyBody(f"the request has no body; send {supported}")
    content_type, options = parse_options_header(request.headers.get("content-type"))
    return content_type.decode("latin-1") or "a body without Content-Type", options


async def _read_bytes(request: Request, limits: BodyLimits) -> bytes:
    body = bytearray()
    values = 0
    async for chunk in _chunks(request, limits.max_json_bytes, limits.grace_s):
        body += chunk
        # Parsing holds the interpreter, and makes a hundred bytes out of two.
        values += chunk.count(b",") + chunk.count(b"[") + chunk.count(b"{")
        if values > limits.max_json_values:
            raise BodyTooLarge(f"the JSON has more than the {limits.max_json_values:,} values that are allowed here")
    if not body:
        raise EmptyBody("the body is empty; send a JSON object")
    return bytes(body)


async def _chunks(request: Request, max_bytes: int, grace_s: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, at most ``max_bytes``, and not for ever."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    received = 0
    start = time.monotonic()
    more = True
    while more:
        allowed_s = grace_s + received / _MIN_BYTES_PER_S - (time.monotonic() - start)
        with anyio.move_on_after(min(grace_s, max(0.0, allowed_s))) as scope:
            message = await request.receive()
        if scope.cancelled_caught:
            raise BodyTimeout(f"the body came too slowly: {received:,} bytes in {time.monotonic() - start:.0f} s")
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        more = message.get("more_body", False)
        yield chunk


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than the {max_bytes:,} bytes that are allowed here")


async def _read_form(request: Request, limits: BodyLimits, file_fields: frozenset[str], boundary: bytes) -> Form:
    collector = _Collector(limits, file_fields)
    empty = True
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        async for chunk in _chunks(request, limits.max_body_bytes, limits.grace_s):
            empty = empty and not chunk
            parser.write(chunk)
    except FormParserError as error:
        raise MalformedBody("the body is not a valid multipart form") from error
    if empty:
        raise EmptyBody("the body is empty; send a multipart form")
    if not collector.ended:
        raise MalformedBody("the multipart form is cut short: its closing boundary is missing")
    return collector.form()


class _Collector:
    """Collects the parts of a multipart form from the parser's callbacks."""

    def __init__(self, limits: BodyLimits, file_fields: frozenset[str]) -> None:
        self.ended = False
        self._limits = limits
        self._file_fields = file_fields
        self._parts = 0
        self._fields: dict[str, list[str]] = {}
        self._files: dict[str, list[bytes | PictureTooLarge]] = {}
        self._header = bytearray()
        self._value = bytearray()
        self._name: str | None = None
        self._data = bytearray()
        self._too_large: PictureTooLarge | None = None

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def form(self) -> Form:
        return Form(self._fields, self._files)

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.max_parts:
            raise InvalidFields.one("body", f"has more than {self._limits.max_parts} parts")
        self._name = None
        self._data = bytearray()
        self._too_large = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if b"name" in options:
                self._name = options[b"name"].decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        size = len(self._data) + end - start
        if self._name in self._file_fields:
            if size > self._limits.max_file_bytes and self._too_large is None:
                self._refuse_file()
            if self._too_large is None:
                self._data += data[start:end]
            return
        if size > self._limits.max_field_bytes:
            raise BodyTooLarge(
                f"the field {self._name} has more than the {self._limits.max_field_bytes:,} bytes that are allowed"
            )
        self._data += data[start:end]

    def _refuse_file(self) -> None:
        error = PictureTooLarge(f"the picture has more than the {self._limits.max_file_bytes:,} bytes that are allowed")
        if not self._limits.keep_large_files:
            raise error
        self._too_large = error
        self._data.clear()

    def _on_part_end(self) -> None:
        if self._name is None:
            raise MalformedBody("a part of the multipart form has no name")
        if self._name in self._file_fields:
            self._files.setdefault(self._name, []).append(self._too_large or bytes(self._data))
            return
        try:
            text = self._data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidFields.one(self._name[:100], "is not UTF-8 text") from error
        self._fields.setdefault(self._name, []).append(text)

    def _on_end(self) -> None:
        self.ended = True
