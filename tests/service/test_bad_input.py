"""Bad input over HTTP: a clear problem document, nothing stored, and the service goes on."""

from __future__ import annotations

import base64
import gzip
import io
import json
import resource
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def known(server: Any, photo_files: dict[str, bytes]) -> dict[str, Any]:
    """An item that is there all the time."""
    item: dict[str, Any] = server.enrol(photo_files["astronaut"], "astronaut", id="known")
    return item


@pytest.fixture(autouse=True)
def nothing_happens(server: Any, known: dict[str, Any], photo_files: dict[str, bytes]) -> Iterator[None]:
    """After each test the gallery is as it was, and a search works."""
    yield
    assert server.count() == 1
    assert server.client.get("/gallery/known").json() == known
    best = server.search(photo_files["astronaut"])[0]["matches"][0]
    assert (best["id"], best["distance"]) == ("known", 0)


def check(answer: httpx.Response, status: int, code: str, *words: str) -> dict[str, Any]:
    """Check that an answer is this problem, as a complete document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"].endswith(code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    for word in words:
        assert word in problem["detail"], problem["detail"]
    return problem


def enrol(server: Any, picture: bytes = b"", **fields: str) -> httpx.Response:
    answer: httpx.Response = server.client.post("/gallery", files={"image": picture}, data={"label": "x", **fields})
    return answer


def search(server: Any, picture: bytes, **fields: str) -> httpx.Response:
    answer: httpx.Response = server.client.post("/search", files={"image": picture}, data=fields)
    return answer


# Bodies


@pytest.mark.parametrize("path", ["/search", "/gallery", "/gallery/batch", "/gallery/delete"])
def test_no_body(server: Any, path: str) -> None:
    check(server.client.post(path), 400, "empty_body")


@pytest.mark.parametrize("path", ["/search", "/gallery", "/gallery/batch"])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_empty_body(server: Any, path: str, kind: str) -> None:
    check(server.client.post(path, headers={"Content-Type": kind}, content=b""), 400, "empty_body")
    check(server.client.post(path, headers={"Content-Type": kind}, content=iter([b""])), 400, "empty_body")


def test_put_without_body(server: Any) -> None:
    check(server.client.put("/gallery/known"), 400, "empty_body")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/jpeg", "application/xml"])
def test_body_of_another_type(server: Any, photo_files: dict[str, bytes], kind: str) -> None:
    answer = server.client.post("/search", headers={"Content-Type": kind}, content=photo_files["coffee"])
    check(answer, 415, "unsupported_body", "multipart/form-data", "application/json")


def test_body_without_type(server: Any) -> None:
    request = server.client.build_request("POST", "/search", content=b"abc")
    request.headers.pop("content-type", None)
    check(server.client.send(request), 415, "unsupported_body")


def test_form_where_only_json_is_taken(server: Any) -> None:
    check(server.client.post("/gallery/delete", files={"ids": b"known"}), 415, "unsupported_body", "application/json")


def test_compressed_body(server: Any) -> None:
    body = gzip.compress(b'{"item_id": "known"}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    check(server.client.post("/search", headers=headers, content=body), 415, "unsupported_body", "compressed")


@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"code": NaN}', b'{"label": "\xff"}', b'{"label": "\\ud800"}'])
def test_body_that_is_not_json(server: Any, body: bytes) -> None:
    answer = server.client.post("/gallery", headers={"Content-Type": "application/json"}, content=body)
    assert answer.status_code in (400, 422)
    check(answer, answer.status_code, {400: "malformed_body", 422: "invalid_fields"}[answer.status_code])


@pytest.mark.parametrize("body", ["[]", "null", "5", '"text"', "true"])
def test_json_that_is_no_object(server: Any, body: str) -> None:
    answer = server.client.post("/search", headers={"Content-Type": "application/json"}, content=body)
    check(answer, 422, "invalid_fields")


@pytest.mark.parametrize(
    ("depth", "status", "code"), [(60_000, 400, "malformed_body"), (100_000, 413, "body_too_large")]
)
def test_deeply_nested_json(server: Any, depth: int, status: int, code: str) -> None:
    body = '{"label": "x", "metadata": ' + '{"a":' * depth + "1" + "}" * (depth + 1)
    answer = server.client.post("/gallery", headers={"Content-Type": "application/json"}, content=body)
    check(answer, status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"no boundary at all",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="label"\r\n\r\nabc',
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
    ],
)
def test_malformed_form(server: Any, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    check(server.client.post("/gallery", headers=headers, content=body), 400, "malformed_body")


def test_form_without_boundary(server: Any) -> None:
    answer = server.client.post("/gallery", headers={"Content-Type": "multipart/form-data"}, content=b"--x--")
    check(answer, 400, "malformed_body", "boundary")


def test_form_that_is_cut_short(server: Any, photo_files: dict[str, bytes]) -> None:
    request = server.client.build_request(
        "POST", "/gallery", files={"image": photo_files["coffee"]}, data={"label": "x"}
    )
    whole = request.read()
    answer = server.client.post(
        "/gallery", headers={"Content-Type": request.headers["content-type"]}, content=whole[:-9]
    )
    check(answer, 400, "malformed_body", "cut short")


def test_too_many_parts(server: Any) -> None:
    parts = [(f"f{number}", (None, "x")) for number in range(200)]
    check(server.client.post("/gallery", files=parts), 422, "invalid_fields", "parts")


def test_field_names_in_other_encodings_do_no_harm(server: Any) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\na\r\n--x--\r\n'
    answer = server.client.post("/gallery", headers={"Content-Type": "multipart/form-data; boundary=x"}, content=body)
    check(answer, 422, "invalid_fields")


def test_text_that_is_not_utf8(server: Any, photo_files: dict[str, bytes]) -> None:
    parts = {"image": photo_files["coffee"], "label": (None, b"caf\xe9")}
    check(server.client.post("/gallery", files=parts), 422, "invalid_fields", "UTF-8")


# Pictures


def test_empty_picture(server: Any) -> None:
    check(enrol(server, b""), 400, "empty_picture")
    check(search(server, b""), 400, "empty_picture")
    check(server.client.post("/search", json={"image_base64": ""}), 400, "empty_picture")


def test_text_as_picture(server: Any) -> None:
    check(enrol(server, b"this is a text"), 415, "unsupported_picture", "image/jpeg", "image/png")
    check(search(server, b"this is a text"), 415, "unsupported_picture")


def test_picture_of_an_unsupported_type(server: Any) -> None:
    check(enrol(server, b"\0\0\0\x18ftypheic" + bytes(64)), 415, "unsupported_picture", "HEIC", "image/jpeg")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_jpeg(server: Any, photo_files: dict[str, bytes], share: float) -> None:
    file = photo_files["coffee"]
    check(enrol(server, file[: int(len(file) * share)]), 400, "undecodable_picture", "JPEG")
    check(search(server, file[: int(len(file) * share)]), 400, "undecodable_picture", "JPEG")


def test_corrupt_png(server: Any, photos: dict[str, np.ndarray], encode: Any) -> None:
    file = bytearray(encode(photos["coffee"], "PNG"))
    file[len(file) // 2 : len(file) // 2 + 200] = bytes(200)
    check(enrol(server, bytes(file)), 400, "undecodable_picture", "PNG")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side: int) -> bytes:
    """A complete, valid grey PNG of ``side`` x ``side`` zeros: 900 MB of pixels in less than 1 MB for 30,000."""
    rows = bytes((side + 1) * 1000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    thousand_rows = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(side // 1000):
        checksum = zlib.adler32(rows, checksum)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    data = b"\x78\xda" + thousand_rows * (side // 1000) + end + struct.pack(">I", checksum)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_the_bomb_is_a_valid_png() -> None:
    image = Image.open(io.BytesIO(png_bomb(2000)))
    image.load()
    assert image.size == (2000, 2000)


def test_png_bomb(server: Any) -> None:
    bomb = png_bomb(30_000)
    assert len(bomb) < 2**20
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    check(enrol(server, bomb), 413, "too_many_pixels", "50,000,000")
    check(search(server, bomb), 413, "too_many_pixels")
    encoded = base64.b64encode(bomb).decode()
    check(server.client.post("/search", json={"image_base64": encoded}), 413, "too_many_pixels")
    assert time.monotonic() - start < 5  # decoding one takes longer
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before
    assert grown_kib < 200 * 1024  # the pixels would take 900 MB


# Sizes of bodies


def test_upload_of_60_mb(server: Any) -> None:
    big = b"\xff\xd8\xff" + bytes(60 * 10**6)
    check(enrol(server, big), 413, "body_too_large", "22,020,096")
    check(search(server, big), 413, "body_too_large")


def test_upload_of_60_mb_in_json(server: Any) -> None:
    body = b'{"image_base64": "' + b"A" * 60 * 10**6 + b'"}'
    answer = server.client.post("/search", headers={"Content-Type": "application/json"}, content=body)
    check(answer, 413, "body_too_large")


def test_upload_of_60_mb_without_a_declared_length(server: Any) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\xff\xd8\xff'
        for _ in range(60):
            sent += 10**6
            yield bytes(10**6)

    answer = server.client.post("/gallery", headers={"Content-Type": "multipart/form-data; boundary=x"}, content=body())
    check(answer, 413, "picture_too_large", "20,971,520")


def test_picture_just_above_the_limit(server: Any) -> None:
    limit = server.settings.max_upload_bytes
    check(enrol(server, b"\xff\xd8\xff" + bytes(limit - 2)), 413, "picture_too_large")
    at_limit = b"\xff\xd8\xff" + bytes(limit - 3)
    check(enrol(server, at_limit), 400, "undecodable_picture")  # its size is not what is wrong with it
    encoded = base64.b64encode(at_limit + b"x").decode()
    check(server.client.post("/search", json={"image_base64": encoded}), 413, "picture_too_large")


def test_a_declared_length_is_refused_before_anything_is_sent(server: Any) -> None:
    head = (
        f"POST /gallery HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 60000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_a_large_text_field(server: Any, photo_files: dict[str, bytes]) -> None:
    parts = {"image": photo_files["coffee"], "label": (None, b"x" * (2**20 + 1))}
    check(server.client.post("/gallery", files=parts), 413, "body_too_large", "label")


def test_a_client_that_goes_away_in_the_middle(server: Any) -> None:
    head = (
        f"POST /gallery HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head.encode())
    sample = 'shitu_http_requests_total{method="POST",route="/gallery",status="499"}'
    deadline = time.monotonic() + 5
    while server.metric(sample) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.metric(sample) == 1
    assert server.metric("shitu_requests_under_way") == 0


# Fields


def test_missing_label(server: Any, photo_files: dict[str, bytes]) -> None:
    problem = check(
        server.client.post("/gallery", files={"image": photo_files["coffee"]}), 422, "invalid_fields", "label"
    )
    assert [error["field"] for error in problem["errors"]] == ["label"]


def test_missing_picture(server: Any) -> None:
    check(server.client.post("/gallery", files={"label": (None, "x")}), 422, "invalid_fields", "image")
    check(server.client.post("/gallery", json={"label": "x"}), 422, "invalid_fields", "image_base64", "code")
    check(server.client.post("/search", json={}), 422, "invalid_fields", "image_base64", "code", "item_id")


@pytest.mark.parametrize("label", ["", "x" * 513, "x" * 10_000, "nul \0"])
def test_label_of_a_wrong_length(server: Any, photo_files: dict[str, bytes], label: str) -> None:
    code = "invalid_item" if "\0" in label else "invalid_fields"
    check(enrol(server, photo_files["coffee"], label=label), 422, code, "label")
    answer = server.client.post("/gallery", json={"label": label, "code": "00" * (server.bits // 8)})
    check(answer, 422, code, "label")


@pytest.mark.parametrize(
    "metadata", ["not json", "{", "[1]", "5", "null", '"text"', '{"a": NaN}', '{"a": Infinity}', ""]
)
def test_metadata_that_is_no_json_object(server: Any, photo_files: dict[str, bytes], metadata: str) -> None:
    check(enrol(server, photo_files["coffee"], metadata=metadata), 422, "invalid_fields", "metadata")


@pytest.mark.parametrize("metadata", ["{}", 5, [], None, True])
def test_metadata_of_another_type_in_json(server: Any, metadata: Any) -> None:
    answer = server.client.post(
        "/gallery", json={"label": "x", "code": "00" * (server.bits // 8), "metadata": metadata}
    )
    check(answer, 422, "invalid_fields", "metadata")


def test_metadata_that_is_too_large(server: Any, photo_files: dict[str, bytes]) -> None:
    metadata = json.dumps({"a": "x" * 65_536})
    check(enrol(server, photo_files["coffee"], metadata=metadata), 422, "invalid_fields", "metadata", "65,536")


def test_metadata_counts_without_blanks_as_in_the_store(server: Any) -> None:
    members = {"label": "x", "code": "00" * (server.bits // 8)}
    numbers = {"a": [1] * 32_764}  # 65,535 bytes as compact JSON, 98,299 with blanks
    answer = server.client.post("/gallery", json={**members, "metadata": numbers})
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"] == numbers
    server.client.delete(f"/gallery/{answer.json()['id']}")
    too_many = {"a": [1] * 32_766}
    check(server.client.post("/gallery", json={**members, "metadata": too_many}), 422, "invalid_fields", "65,536")


@pytest.mark.parametrize("radius", ["-1", "bits + 1", "abc", "1.5", "", "1e2", "nan", "99999999999999999999"])
def test_radius_out_of_range(server: Any, photo_files: dict[str, bytes], radius: str) -> None:
    value = str(server.bits + 1) if radius == "bits + 1" else radius
    check(search(server, photo_files["coffee"], hamming_radius=value), 422, "invalid_fields", "hamming_radius")


@pytest.mark.parametrize("radius", [-1, "100", 1.5, True, [1], {}])
def test_radius_of_a_wrong_kind_in_json(server: Any, radius: Any) -> None:
    answer = server.client.post("/search", json={"item_id": "known", "hamming_radius": radius})
    check(answer, 422, "invalid_fields", "hamming_radius")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", "0"),
        ("top_k", "-1"),
        ("top_k", "1001"),
        ("top_k", "many"),
        ("max_objects", "0"),
        ("max_objects", "101"),
        ("det_threshold", "-0.1"),
        ("det_threshold", "1.1"),
        ("det_threshold", "nan"),
        ("detect", "perhaps"),
        ("explain", "2"),
        ("label", ""),
    ],
)
def test_search_parameters_out_of_range(server: Any, photo_files: dict[str, bytes], field: str, value: str) -> None:
    check(search(server, photo_files["coffee"], **{field: value}), 422, "invalid_fields", field)


@pytest.mark.parametrize("field", ["topk", "image_base64", "code", "item_id", "model_fingerprint", "Top_K"])
def test_unknown_form_field(server: Any, photo_files: dict[str, bytes], field: str) -> None:
    check(search(server, photo_files["coffee"], **{field: "1"}), 422, "invalid_fields", field, "not a field")


def test_unknown_json_member(server: Any) -> None:
    answer = server.client.post("/search", json={"item_id": "known", "radius": 3})
    check(answer, 422, "invalid_fields", "radius", "not a field")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gallery?page=2"),
        ("GET", "/gallery/known?x=1"),
        ("GET", "/index?x=1"),
        ("DELETE", "/gallery/known?x=1"),
    ],
)
def test_unknown_query_parameter(server: Any, method: str, path: str) -> None:
    check(server.client.request(method, path), 422, "invalid_fields")


def test_parameters_of_a_post_in_the_query(server: Any, photo_files: dict[str, bytes]) -> None:
    answer = server.client.post("/search?top_k=3", files={"image": photo_files["coffee"]})
    check(answer, 422, "invalid_fields", "top_k", "body")


def test_field_given_twice(server: Any, photo_files: dict[str, bytes]) -> None:
    picture = photo_files["coffee"]
    twice = [("image", picture), ("label", (None, "a")), ("label", (None, "b"))]
    check(server.client.post("/gallery", files=twice), 422, "invalid_fields", "label", "more than once")
    pictures = [("image", picture), ("image", picture), ("label", (None, "a"))]
    check(server.client.post("/gallery", files=pictures), 422, "invalid_fields", "image", "more than once")


@pytest.mark.parametrize("item_id", ["", "a b", "a/b", "ü", "x" * 129, "a\n"])
def test_id_of_a_wrong_form(server: Any, photo_files: dict[str, bytes], item_id: str) -> None:
    check(enrol(server, photo_files["coffee"], id=item_id), 422, "invalid_fields", "id")


def test_duplicate_id(server: Any, photo_files: dict[str, bytes]) -> None:
    for duplicate in ("add", "return", "reject"):
        answer = enrol(server, photo_files["coffee"], id="known", on_duplicate=duplicate)
        check(answer, 409, "item_exists", "known")


def test_duplicate_code_if_not_wanted(server: Any, photo_files: dict[str, bytes]) -> None:
    problem = check(enrol(server, photo_files["astronaut"], on_duplicate="reject"), 409, "duplicate_code", "known")
    assert problem["existing_id"] == "known"


def test_on_duplicate_of_an_unknown_kind(server: Any, photo_files: dict[str, bytes]) -> None:
    check(enrol(server, photo_files["coffee"], on_duplicate="ignore"), 422, "invalid_fields", "on_duplicate")


def test_unknown_id(server: Any, photo_files: dict[str, bytes]) -> None:
    check(server.client.get("/gallery/nobody"), 404, "item_not_found", "nobody")
    check(server.client.delete("/gallery/nobody"), 404, "item_not_found")
    put = server.client.put("/gallery/nobody", files={"image": photo_files["coffee"]}, data={"label": "x"})
    check(put, 404, "item_not_found")
    check(server.client.post("/search", json={"item_id": "nobody"}), 404, "item_not_found")
    assert server.client.post("/gallery/delete", json={"ids": ["nobody"]}).json() == {"removed": 0}


@pytest.mark.parametrize("item_id", ["%00", "a%20b", "%F0%9F%A5%A4", "x" * 2000, "..%5C.."])
def test_id_that_cannot_be(server: Any, item_id: str) -> None:
    check(server.client.get(f"/gallery/{item_id}"), 404, "item_not_found")
    check(server.client.delete(f"/gallery/{item_id}"), 404, "item_not_found")


@pytest.mark.parametrize("change", [-2, -1, 1, 2])
def test_code_of_a_wrong_length(server: Any, change: int) -> None:
    digits = server.bits // 4 + change
    check(server.client.post("/search", json={"code": "0" * digits}), 422, "invalid_fields", "code", str(server.bits))
    check(server.client.post("/gallery", json={"code": "0" * digits, "label": "x"}), 422, "invalid_fields", "code")


@pytest.mark.parametrize("code", ["", "zz", "0x", " 0", 5, None])
def test_code_that_is_not_hexadecimal(server: Any, code: Any) -> None:
    value = code + "0" * (server.bits // 4 - len(code)) if isinstance(code, str) and code else code
    check(server.client.post("/search", json={"code": value}), 422, "invalid_fields")


def test_two_queries_at_once(server: Any) -> None:
    code = "00" * (server.bits // 8)
    answer = server.client.post("/search", json={"code": code, "item_id": "known"})
    check(answer, 422, "invalid_fields", "exactly one", "code and item_id")


def test_code_of_another_model(server: Any, known: dict[str, Any]) -> None:
    call = {"code": known["code"], "model_fingerprint": "another"}
    check(server.client.post("/search", json=call), 409, "foreign_code", "another")
    check(server.client.post("/gallery", json={**call, "label": "x"}), 409, "foreign_code")
    check(server.client.put("/gallery/known", json={**call, "label": "x"}), 409, "foreign_code")


def test_fingerprint_without_a_code(server: Any) -> None:
    answer = server.client.post("/search", json={"item_id": "known", "model_fingerprint": "x"})
    check(answer, 422, "invalid_fields", "model_fingerprint")


@pytest.mark.parametrize("text", ["%%%", "AAA", "data:image/png;base64,AAAA", "QUJD\nREVG", "ÄÄÄÄ"])
def test_picture_that_is_not_base64(server: Any, text: str) -> None:
    check(server.client.post("/search", json={"image_base64": text}), 422, "invalid_fields", "base64")


@pytest.mark.parametrize(
    "call", [{}, {"ids": []}, {"ids": ["a"], "label": "x"}, {"ids": "a"}, {"ids": [5]}, {"label": ""}]
)
def test_deleting_nothing_in_particular(server: Any, call: dict[str, Any]) -> None:
    check(server.client.post("/gallery/delete", json=call), 422, "invalid_fields")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=abc", "cursor=!!!", "label="])
def test_listing_out_of_range(server: Any, query: str) -> None:
    answer = server.client.get(f"/gallery?{query}")
    check(answer, 422, "invalid_query" if "cursor" in query else "invalid_fields")


def test_rebuilding_as_an_unknown_index(server: Any) -> None:
    check(server.client.post("/index/rebuild", json={"method": "LSH"}), 422, "invalid_fields", "method")


# Batches


def test_batch_that_does_not_fit_together(server: Any, photo_files: dict[str, bytes]) -> None:
    parts = [("images", photo_files["coffee"]), ("labels", (None, "a")), ("labels", (None, "b"))]
    check(server.client.post("/gallery/batch", files=parts), 422, "invalid_fields", "labels", "2 times")
    check(server.client.post("/gallery/batch", files=parts[:1]), 422, "invalid_fields", "labels")
    check(server.client.post("/gallery/batch", files=parts[1:]), 422, "invalid_fields", "images")
    extra = [*parts[:2], ("ids", (None, "a")), ("ids", (None, "b"))]
    check(server.client.post("/gallery/batch", files=extra), 422, "invalid_fields", "ids")


def test_batch_of_nothing(server: Any) -> None:
    check(server.client.post("/gallery/batch", json={"items": []}), 422, "invalid_fields", "items")
    check(server.client.post("/gallery/batch", json={}), 422, "invalid_fields", "items")


def test_batch_of_too_many(server: Any) -> None:
    pictured = [{"label": "x", "code": "00"}] * server.settings.max_batch_images
    pictured.append({"label": "x", "image_base64": "AAAA"})
    check(server.client.post("/gallery/batch", json={"items": pictured}), 422, "invalid_fields", "256", "with pictures")
    items = [{"label": "x", "code": "00"}] * (server.settings.max_batch_codes + 1)
    check(server.client.post("/gallery/batch", json={"items": items}), 422, "invalid_fields", "10000")
    parts = [("images", b"x"), ("labels", (None, "x"))] * (server.settings.max_batch_images + 1)
    check(server.client.post("/gallery/batch", files=parts), 422, "invalid_fields", "256")


def test_batch_in_which_everything_is_bad(server: Any, known: dict[str, Any]) -> None:
    items = [
        {"label": "x"},
        {"label": "x" * 513, "code": known["code"]},
        {"label": "x", "code": "00"},
        {"label": "x", "image_base64": base64.b64encode(b"text").decode()},
        {"label": "x", "image_base64": base64.b64encode(png_bomb(30_000)).decode()},
        {"label": "x", "code": known["code"], "id": "known"},
        {"label": "x", "code": known["code"], "surplus": 1},
        {"label": "x", "code": known["code"], "model_fingerprint": "another"},
        {"label": "nul \0", "code": known["code"]},
    ]
    answer = server.client.post("/gallery/batch", json={"items": items})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(result["status"], result["problem"]["code"]) for result in results] == [
        (422, "invalid_fields"),
        (422, "invalid_fields"),
        (422, "invalid_fields"),
        (415, "unsupported_picture"),
        (413, "too_many_pixels"),
        (409, "item_exists"),
        (422, "invalid_fields"),
        (409, "foreign_code"),
        (422, "invalid_item"),
    ]
    assert all("item" not in result for result in results)
    assert all(result["problem"]["request_id"] == answer.headers["x-request-id"] for result in results)


# Paths and methods


@pytest.mark.parametrize("path", ["/", "/nope", "/gallery/", "/gallery/a/b", "/search/", "/Search", "/gallery/known/x"])
def test_unknown_path(server: Any, path: str) -> None:
    check(server.client.get(path), 404, "not_found", "/docs")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/search", "POST"),
        ("DELETE", "/gallery", "GET, POST"),
        ("POST", "/gallery/known", "DELETE, GET, PUT"),
        ("PUT", "/livez", "GET"),
        ("POST", "/docs", "GET"),
    ],
)
def test_wrong_method(server: Any, method: str, path: str, allowed: str) -> None:
    answer = server.client.request(method, path)
    check(answer, 405, "method_not_allowed", method)
    assert sorted(answer.headers["allow"].split(", ")) == allowed.split(", ")
