"""What attackers try over HTTP, one after the other, against one service; each is refused and the service goes on.

``python -m pytest tests/service/test_attacks.py -v`` prints the list. Heads and connections are attacked in
test_connections.py, with thousands of connections in test_heavy_attacks.py, single fields and sizes in
test_bad_input.py, backups and PaddleClas's files in tests/index_store.
"""

from __future__ import annotations

import ast
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.images import MEDIA_TYPES

SERVICE = Path(__file__).parents[2] / "service"
FORM = "multipart/form-data; boundary=x"


@pytest.fixture(scope="module")
def server(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service that keeps pictures, whose files an id or a file name might lead to."""
    with serve(tmp_path_factory.mktemp("data") / "data", keep_images=True) as running:
        yield running


@pytest.fixture(scope="module")
def picture(photo_files: dict[str, bytes]) -> bytes:
    return photo_files["coffee"]


@pytest.fixture(autouse=True)
def the_service_goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        assert server.client.get("/readyz").status_code == 200
        assert server.metric("shitu_requests_under_way") == 0


def refused(answer: httpx.Response, *allowed: int) -> str:
    """Check that an answer is a problem document with one of these statuses, and give its code."""
    assert answer.status_code in allowed, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert len(answer.content) < 100_000  # an attack is not reflected
    code: str = answer.json()["code"]
    return code


def part(name: str, data: bytes, more: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


# Paths


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../evil",
            "/etc/passwd",
            "..\\evil",
            "a/../../evil",
            "evil\0.jpg",
            "%2e%2e%2fevil",
            "%252e%252e%252fevil",
        ),
        *("‥/evil", "\uff0e\uff0e\uff0fevil", "~/evil", "file:///evil", "CON:/evil", "evil\r\nX: y", "$(touch evil)"),
    ],
)
def test_ids_and_file_names_never_become_paths(server: Any, picture: bytes, name: str) -> None:
    answer = server.client.post("/gallery", files={"image": (name, picture)}, data={"label": name, "id": name})
    assert refused(answer, 422) in ("invalid_fields", "invalid_item")
    if "\0" not in name:
        item = server.client.post("/gallery", files={"image": (name, picture)}, data={"label": name}).json()
        assert item["label"] == name
        server.client.delete(f"/gallery/{item['id']}")
    data = server.settings.data_dir
    kept = [path.relative_to(data) for path in (data / "images").rglob("*") if path.is_file()]
    assert all(len(path.name) == 64 and path.parts[:-1] == ("images", path.name[:2]) for path in kept)
    assert [path.name for path in data.parent.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "path",
    ["/gallery/../../etc/passwd", "/gallery/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/gallery/..%252f..", "//etc/passwd"],
)
def test_paths_lead_nowhere_else(server: Any, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"root:" not in answer


# Pictures


def jpeg(side: int = 16, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, "JPEG", **options)
    return stream.getvalue()


def endless_scans(scans: int) -> bytes:
    """A progressive JPEG of 49 million pixels whose last scan comes again and again, 70 bytes each time."""
    file = jpeg(7000, progressive=True)
    last = file[file.rfind(b"\xff\xda") : -2]
    return file[:-2] + last * scans + file[-2:]


def segments(segment: bytes, count: int, before: bytes = b"") -> bytes:
    file = jpeg()
    return file[:2] + before + segment * count + file[2:]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(8 * (1 + 8 * 3))))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def greedy_exif(total: int, entries: int) -> bytes:
    """Exif whose entries all claim the same bytes: whoever reads them copies these as often."""
    size = total - 14 - 12 * entries
    offset = total - size
    rows = b"".join(struct.pack("<HHII", tag + 1, 1, size, offset) for tag in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + rows + bytes(4) + bytes(size)


def jpeg_with_exif(exif: bytes) -> bytes:
    pieces = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    whole = b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 8) + b"Exif\0\0" + piece for piece in pieces)
    return segments(whole, 1)


COMPLEX: dict[str, Callable[[], bytes]] = {
    "JPEG with 1,000 scans": lambda: endless_scans(1000),
    "JPEG with 1.6 million segments of Exif": lambda: segments(b"\xff\xe1\0\x0aExif\0\0ab", 1_600_000),
    "JPEG with as many behind its end": lambda: segments(b"\xff\xe1\0\x0aExif\0\0ab", 1_600_000, b"\xff\xd9"),
    "JPEG with as many within segments that Pillow does not skip": lambda: segments(
        b"\xff\xf0\xfe\xfe" + b"\xff\xe1\0\x0aExif\0\0ab" * 5_400, 296
    ),
    "JPEG with 5 million empty segments": lambda: segments(b"\xff\xe2\0\2", 5_000_000),
    "JPEG with 19 MB of padding": lambda: segments(b"\xff", 19_000_000),
    "JPEG whose Exif multiplies": lambda: jpeg_with_exif(greedy_exif(2**20, 5000)),
    "PNG with 1.7 million chunks": lambda: png(chunk(b"abCd", b"") * 1_700_000),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_pictures_that_take_decoders_hours_are_refused_before(server: Any, name: str) -> None:
    file = COMPLEX[name]()
    assert len(file) <= server.settings.max_upload_bytes
    assert refused(server.client.post("/search", files={"image": file}), 413) == "picture_too_complex"


def test_exif_of_another_picture_that_multiplies_is_left_unread(server: Any) -> None:
    exif = bytearray(greedy_exif(2**20, 5000))
    exif[10:20] = struct.pack("<HHIH", 0x0112, 3, 1, 6)  # and says that the picture is turned
    stream = io.BytesIO()
    Image.new("RGB", (16, 8)).save(stream, "PNG", exif=bytes(exif))
    assert server.search(stream.getvalue())[0]["bbox"] == [0, 0, 16, 8]


# What is small and becomes large


@pytest.fixture(scope="module")
def deflated() -> bytes:
    """A tenth of a megabyte that inflates to 128 MiB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(128)) + packer.flush()


@pytest.mark.parametrize("head", [b"zTXta\0\0", b"iTXta\0\1\0\0\0", b"iCCPa\0\0"])
def test_texts_and_profiles_of_a_picture_do_not_inflate(server: Any, deflated: bytes, head: bytes) -> None:
    file = png(chunk(head[:4], head[4:] + deflated))
    assert refused(server.client.post("/search", files={"image": file}), 400) == "undecodable_picture"


def test_a_webp_file_cannot_lie_about_its_canvas(server: Any) -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (4000, 4000), (1, 2, 3, 100)).save(stream, "WEBP")
    file = bytearray(stream.getvalue())
    assert file[12:16] == b"VP8X"
    file[24:30] = b"\x07\0\0\x07\0\0"  # says 8 x 8
    assert refused(server.client.post("/search", files={"image": bytes(file)}), 400) == "undecodable_picture"


def test_of_a_hundred_thousand_frames_one_is_decoded(server: Any) -> None:
    frames = [Image.new("P", (8, 8)) for _ in range(2)]
    for number, frame in enumerate(frames):
        frame.putpixel((number, 0), 1)
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    file = stream.getvalue()
    last = file[file.rfind(b"\x21\xf9") : -1]
    assert server.search(file + last * 100_000 + b"\x3b")[0]["bbox"] == [0, 0, 8, 8]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip"])
def test_compressed_bodies_are_not_inflated(server: Any, deflated: bytes, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    assert refused(server.client.post("/search", headers=headers, content=deflated), 415) == "unsupported_body"


# Pictures of other types


def saved_as(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind", ["TIFF", "PPM", "ICO", "ICNS", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "PDF", "EPS", "AVIF"]
)
def test_no_other_decoder_of_pillow_can_be_reached(server: Any, kind: str) -> None:
    assert kind not in MEDIA_TYPES
    image = saved_as(kind)
    for name in ("a.jpg", f"a.{kind.lower()}"):
        answer = server.client.post("/search", files={"image": (name, image)})
        assert refused(answer, 415) == "unsupported_picture"


@pytest.mark.parametrize(
    "file",
    [
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>",
        b"v/1\x01\x02\0\0\0channels\0chlist\0",  # OpenEXR
        b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n",
        b"PK\3\4" + bytes(100),
        b"#!/bin/sh\nreboot\n",
        b"\x80\4cos\nsystem\n(touch /tmp/evil\ntR.",  # a pickle
    ],
)
def test_documents_and_programs_are_no_pictures(server: Any, file: bytes) -> None:
    assert refused(server.client.post("/search", files={"image": file}), 415) == "unsupported_picture"


@pytest.mark.parametrize("tail", [b"<script>alert(1)</script>", b"PK\3\4" + bytes(50), b"<?php system($_GET[0]); ?>"])
def test_a_polyglot_is_only_the_picture_it_begins_with(server: Any, tail: bytes) -> None:
    picture = png()
    item = server.enrol(picture + tail, "polyglot")
    assert server.search(picture)[0]["code"] == item["code"]
    gone = server.client.delete(f"/gallery/{item['id']}")
    assert gone.status_code == 204
    # Nor does any answer give the file back, for a browser to take for something else.
    assert server.client.get(f"/images/{item['id']}").status_code == 404


# Forms


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


FORMS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "no boundary": lambda: ("multipart/form-data", form(part("label", b"a"))),
    "empty boundary": lambda: ("multipart/form-data; boundary=", form(part("label", b"a"))),
    "boundary of 10 kB": lambda: (f"multipart/form-data; boundary={'y' * 10_000}", b"--" + b"y" * 10_000 + b"--\r\n"),
    "200,000 parts": lambda: (FORM, form(part("label", b"a") * 200_000)),
    "no end": lambda: (FORM, part("label", b"a")),
    "a form in a part": lambda: (
        FORM,
        form(
            part("label", b"a"),
            part("image", form(part("image", b"a")), "\r\nContent-Type: multipart/mixed; boundary=x"),
        ),
    ),
    "a header of 20 MB": lambda: (FORM, form(part("label", b"a", f'; a="{"b" * 20_000_000}"'))),
    "a name of 20 MB": lambda: (FORM, form(part("b" * 20_000_000, b"a"))),
    "a million parameters": lambda: (FORM, form(part("label", b"a", "; a=b" * 1_000_000))),
    "a million headers": lambda: (FORM, form(part("label", b"a", "\r\nA: b" * 1_000_000))),
    "20 MB of near boundaries": lambda: (
        f"multipart/form-data; boundary={'y' * 60}z",
        b"--"
        + b"y" * 60
        + b'z\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        + (b"\r\n--" + b"y" * 60) * 300_000,
    ),
    "NULs": lambda: (FORM, form(part("la\0bel", b"a"), part("label", b"\0"))),
    "a field twice": lambda: (FORM, form(part("label", b"a"), part("label", b"b"))),
    "two names": lambda: (FORM, form(part("label", b"a", '; name="image"'))),
    "base64 as transfer encoding": lambda: (
        FORM,
        form(part("label", b"a"), part("image", b"iVBORw0KGgo=", "\r\nContent-Transfer-Encoding: base64")),
    ),
    "UTF-16": lambda: (FORM, form(part("label", "a".encode("utf-16")), part("image", b"x"))),
    "a type of 60 kB": lambda: ("multipart/form-data" + "; a=b" * 12_000, form(part("label", b"a"))),
}


@pytest.mark.parametrize("name", FORMS)
def test_hostile_forms_are_refused(server: Any, name: str) -> None:
    kind, body = FORMS[name]()
    for path in ("/gallery", "/search"):
        refused(server.client.post(path, headers={"Content-Type": kind}, content=body), 400, 413, 415, 422)
    assert server.count() == 0


# JSON


def members(count: int) -> str:
    return "{" + ",".join(f'"a{number}":1' for number in range(count)) + "}"


BODIES: dict[str, Callable[[], str]] = {
    "100,000 levels of arrays": lambda: "[" * 100_000 + "]" * 100_000,
    "100,000 levels of metadata": lambda: '{"metadata":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    "50,000 levels of metadata": lambda: '{"metadata":' + '{"a":' * 50_000 + "1" + "}" * 50_001,
    "1e999": lambda: '{"label":"x","code":"00","metadata":{"a":1e999}}',
    "NaN": lambda: '{"label":"x","code":"00","metadata":{"a":NaN}}',
    "an integer of 5,000 digits": lambda: f'{{"top_k":{"9" * 5_000}}}',
    "an integer of 10 million digits": lambda: f'{{"top_k":{"9" * 10_000_000}}}',
    "60,000 unknown members": lambda: members(60_000),
    "1.5 million unknown members": lambda: members(1_500_000),
    "5 million items": lambda: '{"items":[' + "{}," * 5_000_000 + "{}]}",
    "300,000 items that are none": lambda: '{"items":[' + "[[]]," * 300_000 + "{}]}",
    "an id of 10 MB": lambda: f'{{"item_id":"{"a" * 10_000_000}","id":"{"a" * 10_000_000}"}}',
    "lone surrogates": lambda: '{"label":"\\ud800","code":"00"}',
    "two documents": lambda: "{}{}",
    "a constructor": lambda: '{"__class__":"os.system","__proto__":{"label":"x"},"py/object":"os.system"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_hostile_json_is_refused_and_takes_little(server: Any, name: str) -> None:
    body = BODIES[name]().encode()
    for path in ("/gallery", "/search", "/gallery/batch"):
        answer = server.client.post(path, headers={"Content-Type": "application/json"}, content=body)
        refused(answer, 400, 413, 422)
    assert server.count() == 0


@pytest.mark.parametrize("digits", [400, 4_000])
def test_large_integers_in_metadata_come_back_as_they_are_or_are_refused(server: Any, digits: int) -> None:
    code = "00" * (server.bits // 8)
    body = f'{{"label":"x","code":"{code}","metadata":{{"a":{"9" * digits}}}}}'
    answer = server.client.post("/gallery", headers={"Content-Type": "application/json"}, content=body)
    assert answer.status_code == 201
    assert server.client.get("/gallery").json()["items"] == [answer.json()]
    server.client.delete(f"/gallery/{answer.json()['id']}")


# Getting the service to fetch something


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data/", "https://127.0.0.1:1/", "file:///etc/passwd", "\\\\host\\share"]
)
def test_a_url_is_no_picture(server: Any, url: str) -> None:
    assert refused(server.client.post("/search", json={"image_base64": url}), 422) == "invalid_fields"
    for fields in ({"image_url": url}, {"url": url}, {"image": url}):
        assert refused(server.client.post("/search", json=fields), 422) == "invalid_fields"
    assert refused(server.client.post("/search", files={"image": url.encode()}), 415) == "unsupported_picture"


def test_nothing_that_serves_can_fetch() -> None:
    """Only the commands, doctor and demonstration that people run speak HTTP as a client."""
    clients = {"httpx", "requests", "urllib", "urllib3", "http", "aiohttp", "ftplib", "smtplib", "telnetlib", "xmlrpc"}
    own = ("commands", "doctor", "demo")
    files = [path for path in SERVICE.rglob("*.py") if path.relative_to(SERVICE).parts[0] not in own]
    assert len(files) > 30
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if modules == ["urllib.parse"] or (modules == ["http"] and names == ["HTTPStatus"]):
                continue  # texts, and a table of numbers and phrases
            found |= {(path.name, module) for module in modules if module.split(".")[0] in clients}
    assert found == set()


# Clients that go away


def test_uploads_that_are_reset_leave_no_permit_behind(server: Any) -> None:
    reset_uploads(server.port, 50)
    deadline = time.monotonic() + 60
    while server.metric("shitu_requests_under_way") or server.metric("shitu_connections") > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reset_uploads(port: int, count: int) -> None:
    """Begin uploads and reset each connection in the middle of the body."""
    head = f"POST /gallery HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 1000000\r\n\r\n".encode()
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head + b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + bytes(10_000))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
