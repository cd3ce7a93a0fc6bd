"""``POST /gallery/batch`` over HTTP."""

from __future__ import annotations

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np


def test_a_form_enrols_pictures_in_order(server: Any, photo_files: dict[str, bytes]) -> None:
    names = list(photo_files)
    parts: list[tuple[str, Any]] = [("images", (name, photo_files[name])) for name in names]
    parts += [("labels", (None, name)) for name in names]
    before = server.count()
    answer = server.client.post("/gallery/batch", files=parts)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(result["status"], result["item"]["label"]) for result in results] == [(201, name) for name in names]
    assert all("problem" not in result for result in results)
    assert server.count() == before + len(names)
    for name, result in zip(names, results, strict=True):
        assert result["item"] == server.client.get(f"/gallery/{result['item']['id']}").json()
        found = server.search(photo_files[name], label=name, hamming_radius=str(server.bits // 64))
        assert result["item"]["id"] in [match["id"] for match in found[0]["matches"]]


def test_a_form_may_give_ids_and_metadata(server: Any, photo_files: dict[str, bytes]) -> None:
    parts: list[tuple[str, Any]] = []
    for number, name in enumerate(("coffee", "rocket")):
        parts += [
            ("images", photo_files[name]),
            ("labels", (None, name)),
            ("ids", (None, f"given-{number}")),
            ("metadata", (None, f'{{"n": {number}}}')),
        ]
    results = server.client.post("/gallery/batch", files=parts).json()["results"]
    assert [(result["item"]["id"], result["item"]["metadata"]) for result in results] == [
        ("given-0", {"n": 0}),
        ("given-1", {"n": 1}),
    ]


def test_bad_ones_get_a_problem_and_the_others_go_in(server: Any, photo_files: dict[str, bytes]) -> None:
    server.enrol(photo_files["coffee"], "there", id="taken")
    pictures = [
        photo_files["coffee"],
        b"text",
        photo_files["rocket"][:1000],
        b"",
        photo_files["chelsea"],
        photo_files["rocket"],
    ]
    labels = ["good", "bad", "bad", "bad", "x" * 513, "also good"]
    parts: list[tuple[str, Any]] = [("images", picture) for picture in pictures]
    parts += [("labels", (None, label)) for label in labels]
    parts += [("ids", (None, f"mixed-{number}")) for number in range(6)]
    before = server.count()
    results = server.client.post("/gallery/batch", files=parts).json()["results"]
    assert [result["status"] for result in results] == [201, 415, 400, 400, 422, 201]
    codes = [result["problem"]["code"] for result in results if "problem" in result]
    assert codes == ["unsupported_picture", "undecodable_picture", "empty_picture", "invalid_fields"]
    assert [result["item"]["id"] for result in results if "item" in result] == ["mixed-0", "mixed-5"]
    assert server.count() == before + 2


def test_one_picture_that_is_too_large_does_not_fail_the_batch(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes]
) -> None:
    small = min(photo_files.values(), key=len)
    with serve(tmp_path, max_upload_bytes=len(small)) as server:
        parts = [("images", small + b"x"), ("images", small), ("labels", (None, "large")), ("labels", (None, "small"))]
        results = server.client.post("/gallery/batch", files=parts).json()["results"]
        assert [result["status"] for result in results] == [413, 201]
        assert results[0]["problem"]["code"] == "picture_too_large"
        encoded = [base64.b64encode(file).decode() for file in (small + b"x", small)]
        items = [{"image_base64": each, "label": "x"} for each in encoded]
        results = server.client.post("/gallery/batch", json={"items": items}).json()["results"]
        assert [result["status"] for result in results] == [413, 201]
        assert server.count() == 2


def test_a_batch_has_its_own_limit(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    total = sum(len(file) for file in photo_files.values())
    parts: list[tuple[str, Any]] = [("images", file) for file in photo_files.values()]
    parts += [("labels", (None, name)) for name in photo_files]
    with serve(tmp_path, max_batch_bytes=total) as server:
        answer = server.client.post("/gallery/batch", files=parts)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert server.count() == 0
    with serve(
        tmp_path, max_batch_bytes=total + 10_000, max_upload_bytes=max(map(len, photo_files.values()))
    ) as server:
        assert server.client.post("/gallery/batch", files=parts).status_code == 200
        assert server.count() == len(photo_files)


def test_json_takes_pictures_and_codes(server: Any, photo_files: dict[str, bytes]) -> None:
    encoded = base64.b64encode(photo_files["coffee"]).decode()
    code = np.random.default_rng(0).bytes(server.bits // 8).hex()
    items = [{"code": code, "label": "a code"}, {"image_base64": encoded, "label": "a picture", "metadata": {"n": 2}}]
    results = server.client.post("/gallery/batch", json={"items": items}).json()["results"]
    assert [(result["status"], result["item"]["label"]) for result in results] == [(201, "a code"), (201, "a picture")]
    assert results[0]["item"]["code"] == code


def test_duplicates_within_a_batch_and_with_the_gallery(server: Any) -> None:
    codes = [np.random.default_rng(number).bytes(server.bits // 8).hex() for number in (11, 12)]
    server.enrol_code(bytes.fromhex(codes[0]), "old", id="old")
    items = [{"code": code, "label": "new"} for code in (codes[0], codes[1], codes[1])]

    rejected = server.client.post("/gallery/batch", json={"items": items, "on_duplicate": "reject"}).json()["results"]
    assert [result["status"] for result in rejected] == [409, 201, 409]
    assert rejected[0]["problem"]["existing_id"] == "old"
    assert rejected[2]["problem"]["existing_id"] == rejected[1]["item"]["id"]

    before = server.count()
    returned = server.client.post("/gallery/batch", json={"items": items, "on_duplicate": "return"}).json()["results"]
    assert [result["status"] for result in returned] == [200, 200, 200]
    assert [result["item"]["id"] for result in returned] == ["old", *[rejected[1]["item"]["id"]] * 2]
    assert server.count() == before


def test_one_of_equal_codes_in_a_batch_is_made_and_answers_the_others(server: Any) -> None:
    code = np.random.default_rng(14).bytes(server.bits // 8).hex()
    items = [{"code": code, "label": label} for label in ("first", "second", "third")]
    results = server.client.post("/gallery/batch", json={"items": items, "on_duplicate": "return"}).json()["results"]
    assert [result["status"] for result in results] == [201, 200, 200]
    assert [result["item"] for result in results] == [results[0]["item"]] * 3


def test_ids_that_repeat_within_a_batch(server: Any) -> None:
    code = np.random.default_rng(13).bytes(server.bits // 8).hex()
    items = [{"code": code, "label": "x", "id": "twice"}] * 2
    results = server.client.post("/gallery/batch", json={"items": items}).json()["results"]
    assert [result["status"] for result in results] == [201, 409]
    assert results[1]["problem"]["code"] == "item_exists"


def test_detect_applies_to_every_picture(
    serve: Any, tmp_path: Path, detector_dir: Path, photos: dict[str, np.ndarray], encode: Any
) -> None:
    pixels = photos["astronaut"][:240, :320]
    crop = np.ascontiguousarray(pixels[60:180, 80:240])
    with serve(tmp_path, detector_dir=detector_dir) as server:
        parts = [("images", encode(pixels)), ("labels", (None, "x")), ("detect", (None, "true"))]
        (result,) = server.client.post("/gallery/batch", files=parts).json()["results"]
        assert result["item"]["code"] == server.enrol(encode(crop), "crop")["code"]


def test_more_pictures_than_fit_in_one_group(server: Any, photos: dict[str, np.ndarray], encode: Any) -> None:
    patches = [
        encode(photos["hubble_deep_field"][y : y + 64, x : x + 64])
        for y in range(0, 320, 64)
        for x in range(0, 320, 64)
    ]
    parts: list[tuple[str, Any]] = [("images", patch) for patch in patches]
    parts += [("labels", (None, f"patch {number}")) for number in range(len(patches))]
    results = server.client.post("/gallery/batch", files=parts).json()["results"]
    assert [result["item"]["label"] for result in results] == [f"patch {number}" for number in range(len(patches))]
    ids = [result["item"]["id"] for result in results]
    assert ids == sorted(ids)
    (found,) = server.search(patches[13], label="patch 13", hamming_radius=str(server.bits // 64))
    assert [match["id"] for match in found["matches"]] == [ids[13]]


def test_a_search_does_not_wait_for_a_whole_batch(server: Any, photo_files: dict[str, bytes]) -> None:
    parts: list[tuple[str, Any]] = [("images", file) for file in photo_files.values()] * 20
    parts += [("labels", (None, "many"))] * len(parts)
    finished: list[float] = []

    def enrol() -> None:
        assert server.client.post("/gallery/batch", files=parts).status_code == 200
        finished.append(time.monotonic())

    batch = threading.Thread(target=enrol)
    batch.start()
    while server.metric("shitu_requests_under_way") == 0:
        time.sleep(0.01)
    time.sleep(0.2)  # its body arrives and its first pictures are hashed
    sent = time.monotonic()
    server.search(photo_files["coffee"])
    answered = time.monotonic()
    batch.join(60)
    assert answered - sent < (finished[0] - sent) / 2


def test_codes_alone_may_be_many_more_than_pictures(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path, max_batch_images=2, max_batch_codes=5) as server:
        codes = [{"code": np.random.default_rng(n).bytes(server.bits // 8).hex(), "label": "x"} for n in range(6)]
        answer = server.client.post("/gallery/batch", json={"items": codes[:5]})
        assert [result["status"] for result in answer.json()["results"]] == [201] * 5
        picture = {"image_base64": base64.b64encode(photo_files["coffee"]).decode(), "label": "y"}
        for items in (codes, [*codes[:2], picture]):
            assert server.client.post("/gallery/batch", json={"items": items}).status_code == 422
        assert server.count() == 5
        limits = server.client.get("/health").json()["limits"]
        assert (limits["max_batch_images"], limits["max_batch_codes"]) == (2, 5)


def test_searches_are_answered_beside_a_batch_of_codes(server: Any) -> None:
    rng = np.random.default_rng(21)
    items = [{"code": rng.bytes(server.bits // 8).hex(), "label": f"label {n % 7}"} for n in range(4000)]
    with ThreadPoolExecutor(1) as thread:
        batch = thread.submit(server.client.post, "/gallery/batch", json={"items": items})
        answered_beside = 0
        while not batch.done():
            server.search_json(code=items[0]["code"], hamming_radius=0)
            answered_beside += not batch.done()
            time.sleep(0.01)
    results = batch.result().json()["results"]
    assert [result["item"]["code"] for result in results] == [item["code"] for item in items]
    assert answered_beside > 1
