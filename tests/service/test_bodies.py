"""Bodies that come slowly, in small pieces, or without end, fed to the reader directly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from service.bodies import BodyLimits, Form, read_form_or_json, read_json
from service.errors import BodyTimeout, BodyTooLarge, EmptyBody, MalformedBody, PictureTooLarge

LIMITS = BodyLimits.for_one_picture(1000)
FORM = "multipart/form-data; boundary=x"


def part(name: str, content: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), content)


def request(pieces: Iterable[bytes | float | None], content_type: str = FORM) -> Request:
    """A request whose body comes in these pieces; a number is a pause in seconds, None the client's departure."""
    waiting = iter(pieces)

    async def receive() -> dict[str, Any]:
        for piece in waiting:
            if piece is None:
                return {"type": "http.disconnect"}
            if isinstance(piece, float):
                await asyncio.sleep(piece)
                continue
            return {"type": "http.request", "body": piece, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"content-type", content_type.encode()), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    return Request(scope, receive)


def read(pieces: Iterable[bytes | float | None], limits: BodyLimits = LIMITS) -> Form:
    form = asyncio.run(read_form_or_json(request(pieces), limits, frozenset({"image"})))
    assert isinstance(form, Form)
    return form


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_how_a_body_is_cut_does_not_matter(size: int) -> None:
    picture = bytes(range(256)) * 3 + b"\r\n--x\r\n-not-a-boundary".replace(b"--x", b"--y")
    body = part("label", "Grüße".encode()) + part("image", picture) + part("label", b"\r\n-") + b"--x--\r\n"
    form = read(body[start : start + size] for start in range(0, len(body), size))
    assert form.fields == {"label": ["Grüße", "\r\n-"]}
    assert form.files == {"image": [picture]}


@pytest.mark.parametrize("end", [b"--x--", b"--x--\r\n", b"--x--\r\nepilogue"])
def test_forms_may_end_in_several_ways(end: bytes) -> None:
    assert read([part("label", b"a") + end]).fields == {"label": ["a"]}


def test_a_picture_is_cut_off_at_the_limit_while_it_comes() -> None:
    assert read([part("image", bytes(1000)) + b"--x--\r\n"]).files == {"image": [bytes(1000)]}
    received = 0

    def endless() -> Iterable[bytes]:
        nonlocal received
        yield part("image", b"")[:-2]
        while True:
            received += 100
            yield bytes(100)

    with pytest.raises(PictureTooLarge, match="1,000 bytes"):
        read(endless())
    assert received == 1100


def test_a_large_picture_among_others_becomes_an_error_in_its_place() -> None:
    limits = replace(LIMITS, keep_large_files=True)
    body = part("image", b"a") + part("image", bytes(5000)) + part("image", b"b") + b"--x--\r\n"
    first, second, third = read([body], limits).files["image"]
    assert (first, third) == (b"a", b"b")
    assert isinstance(second, PictureTooLarge)


def test_an_endless_body_is_cut_off() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield part("label", bytes(500_000))

    with pytest.raises(BodyTooLarge):
        read(endless(), replace(LIMITS, max_parts=10**6))


def test_json_is_cut_off_too() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield b"[" * 1000

    with pytest.raises(BodyTooLarge):
        asyncio.run(read_json(request(endless(), "application/json"), BodyLimits.for_json(5000)))
    body = asyncio.run(read_json(request([b"[1,", b"2]"], "application/json; charset=utf-8"), BodyLimits.for_json(5)))
    assert body == b"[1,2]"


def test_a_body_that_stops_coming_is_given_up() -> None:
    start = time.monotonic()
    with pytest.raises(BodyTimeout):
        read([part("label", b"a"), 30.0, b"--x--\r\n"], replace(LIMITS, grace_s=0.1))
    assert time.monotonic() - start < 5


def test_a_body_that_drips_is_given_up() -> None:
    drops: list[bytes | float] = [b"--x\r\n", *[b"C", 0.02] * 1000]
    start = time.monotonic()
    with pytest.raises(BodyTimeout):
        read(drops, replace(LIMITS, grace_s=0.2))
    assert time.monotonic() - start < 5


def test_a_short_pause_is_forgiven() -> None:
    assert read([part("label", b"a"), 0.05, b"--x--\r\n"], replace(LIMITS, grace_s=5.0)).fields == {"label": ["a"]}


def test_a_client_that_goes_away() -> None:
    with pytest.raises(ClientDisconnect):
        read([part("label", b"a"), None])


def test_empty_and_broken_bodies() -> None:
    with pytest.raises(EmptyBody):
        read([b"", b""])
    with pytest.raises(MalformedBody, match="closing boundary"):
        read([part("label", b"a")])
    with pytest.raises(MalformedBody):
        read([b"something else"])
