"""``/gallery`` over HTTP: enrolling, reading, listing, replacing, removing."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def code_of(server: Any, number: int) -> bytes:
    return np.random.default_rng(number).bytes(server.bits // 8)


def test_an_enrolled_item_is_there_and_found(server: Any, photo_files: dict[str, bytes]) -> None:
    before = server.count()
    item = server.enrol(photo_files["coffee"], "coffee", metadata='{"cup": 1}')
    assert set(item) == {"id", "label", "metadata", "code", "created_at"}
    assert (item["label"], item["metadata"]) == ("coffee", {"cup": 1})
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", item["id"])
    assert re.fullmatch(rf"[0-9a-f]{{{server.bits // 4}}}", item["code"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", item["created_at"])
    assert server.client.get(f"/gallery/{item['id']}").json() == item
    assert server.count() == before + 1
    assert server.search(photo_files["coffee"])[0]["matches"][0]["id"] == item["id"]


def test_form_and_json_enrol_alike(server: Any, photo_files: dict[str, bytes]) -> None:
    by_form = server.enrol(photo_files["rocket"], "alike", id="by-form", metadata='{"a": [1, 2]}')
    encoded = base64.b64encode(photo_files["rocket"]).decode()
    call = {"image_base64": encoded, "label": "alike", "id": "by-json", "metadata": {"a": [1, 2]}}
    by_json = server.client.post("/gallery", json=call).json()
    by_code = server.enrol_code(bytes.fromhex(by_form["code"]), "alike", id="by-code", metadata={"a": [1, 2]})
    for item in (by_form, by_json, by_code):
        assert item | {"id": "", "created_at": ""} == by_form | {"id": "", "created_at": ""}
    assert [by_form["id"], by_json["id"], by_code["id"]] == ["by-form", "by-json", "by-code"]


def test_a_code_may_come_with_the_fingerprint_of_its_model(server: Any) -> None:
    fingerprint = server.client.get("/index").json()["model_fingerprint"]
    server.enrol_code(code_of(server, 1), "own", model_fingerprint=fingerprint)
    assert server.search_json(code=code_of(server, 1).hex(), model_fingerprint=fingerprint)[0]["matches"]


@pytest.mark.parametrize("item_id", ["a", "A-Z.a_z:0-9", "x" * 128, "batch", "delete", "."])
def test_ids_of_all_allowed_forms(server: Any, item_id: str) -> None:
    item = server.enrol_code(code_of(server, 2), "named", id=item_id)
    path = "/gallery/%2E" if item_id == "." else f"/gallery/{item_id}"
    assert server.client.get(path).json() == item
    assert server.client.delete(path).status_code == 204
    assert server.client.get(path).status_code == 404


def test_a_duplicate_code_is_added_returned_or_rejected(server: Any) -> None:
    first = server.enrol_code(code_of(server, 3), "first", id="dup-1")
    second = server.enrol_code(code_of(server, 3), "second", id="dup-2", on_duplicate="add")
    assert second["id"] == "dup-2"
    call = {"code": code_of(server, 3).hex(), "label": "third"}
    before = server.count()
    returned = server.client.post("/gallery", json={**call, "on_duplicate": "return"})
    assert (returned.status_code, returned.json()) == (200, first)
    rejected = server.client.post("/gallery", json={**call, "on_duplicate": "reject"})
    assert (rejected.status_code, rejected.json()["code"]) == (409, "duplicate_code")
    assert server.count() == before
    fresh = {"code": code_of(server, 4).hex(), "label": "fourth", "on_duplicate": "return"}
    assert server.client.post("/gallery", json=fresh).status_code == 201
    assert server.count() == before + 1


def test_an_item_of_a_time_to_come_was_there_all_the_same(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock may step back."""
    ahead_ns = time.time_ns() + 3600 * 10**9
    with monkeypatch.context() as clock:
        clock.setattr("index_store.local.time.time_ns", lambda: ahead_ns)
        first = server.enrol_code(code_of(server, 8), "first", id="from-the-future")
    call = {"code": code_of(server, 8).hex(), "label": "second", "on_duplicate": "return"}
    returned = server.client.post("/gallery", json=call)
    assert (returned.status_code, returned.json()) == (200, first)


def test_detect_enrols_the_best_box_else_the_whole_picture(
    serve: Any, tmp_path: Path, detector_dir: Path, photos: dict[str, np.ndarray], encode: Any
) -> None:
    pixels = photos["astronaut"][:240, :320]
    file, crop = encode(pixels), encode(np.ascontiguousarray(pixels[60:180, 80:240]))
    with serve(tmp_path, detector_dir=detector_dir) as server:
        whole = server.enrol(file, "whole")
        detected = server.enrol(file, "detected", detect="true")
        assert detected["code"] == server.enrol(crop, "crop")["code"] != whole["code"]
    with serve(tmp_path, detector_dir=detector_dir, det_threshold=0.95) as server:
        assert server.enrol(file, "nothing found", detect="true")["code"] == whole["code"]
    with serve(tmp_path) as server:
        assert server.enrol(file, "no detector", detect="true")["code"] == whole["code"]


def test_listing_walks_over_everything_once_in_order(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        ids = [server.enrol_code(code_of(server, number), f"label {number % 2}")["id"] for number in range(7)]
        assert ids == sorted(ids)
        for limit in (1, 3, 7, 100):
            seen: list[str] = []
            cursor = None
            while True:
                query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
                page = server.client.get("/gallery", params=query).json()
                assert len(page["items"]) <= limit
                seen += [item["id"] for item in page["items"]]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
            assert seen == ids
        odd = server.client.get("/gallery", params={"label": "label 1"}).json()
        assert [item["id"] for item in odd["items"]] == ids[1::2]
        assert server.client.get("/gallery", params={"label": "none"}).json() == {"items": [], "next_cursor": None}


def test_a_walk_meets_what_stays_exactly_once_while_others_come_and_go(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        staying = [
            server.enrol_code(code_of(server, number), "stays", id=f"s{number:02d}")["id"] for number in range(10)
        ]
        going = [server.enrol_code(code_of(server, number), "goes", id=f"s{number:02d}x")["id"] for number in range(10)]
        seen: list[str] = []
        cursor = None
        while True:
            query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
            page = server.client.get("/gallery", params=query).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            server.client.delete(f"/gallery/{going.pop()}")
            server.client.delete(f"/gallery/{going.pop(0)}")
            server.enrol_code(code_of(server, 99), "new", id=f"a{len(seen)}")
        assert [item_id for item_id in seen if item_id in staying] == staying
        assert len(seen) == len(set(seen))


def test_replacing_changes_what_is_found(server: Any, photo_files: dict[str, bytes]) -> None:
    old = server.enrol(photo_files["chelsea"], "cat", id="changing", metadata='{"old": true}')
    before = server.count()
    call = {"files": {"image": photo_files["hubble_deep_field"]}, "data": {"label": "stars"}}
    answer = server.client.put("/gallery/changing", **call)
    assert answer.status_code == 200
    new = answer.json()
    assert (new["id"], new["label"], new["metadata"]) == ("changing", "stars", {})
    assert new["code"] != old["code"]
    assert server.client.get("/gallery/changing").json() == new
    assert server.count() == before
    found = server.search(photo_files["hubble_deep_field"], hamming_radius="0", top_k="1000")[0]["matches"]
    assert ("changing", "stars") in [(match["id"], match["label"]) for match in found]
    found = server.search(photo_files["chelsea"], hamming_radius="0", top_k="1000")[0]["matches"]
    assert "changing" not in [match["id"] for match in found]


def test_replacing_by_a_code(server: Any) -> None:
    server.enrol_code(code_of(server, 5), "before", id="put-code")
    call = {"code": code_of(server, 6).hex(), "label": "after", "metadata": {"n": 1}}
    answer = server.client.put("/gallery/put-code", json=call)
    assert answer.status_code == 200
    assert answer.json()["code"] == call["code"]


def test_removed_items_are_gone_at_once(server: Any) -> None:
    server.enrol_code(code_of(server, 7), "leaving", id="leaving")
    before = server.count()
    answer = server.client.delete("/gallery/leaving")
    assert (answer.status_code, answer.content) == (204, b"")
    assert server.count() == before - 1
    assert server.client.get("/gallery/leaving").status_code == 404
    assert server.client.delete("/gallery/leaving").status_code == 404
    assert server.search_json(code=code_of(server, 7).hex(), hamming_radius=0)[0]["matches"] == []


def test_many_items_are_removed_by_id_or_label(server: Any) -> None:
    for number in range(6):
        server.enrol_code(code_of(server, 20 + number), "group" if number < 4 else "others", id=f"g{number}")
    before = server.count()
    call = {"ids": ["g0", "g5", "nobody", "g0"]}
    assert server.client.post("/gallery/delete", json=call).json() == {"removed": 2}
    assert server.client.post("/gallery/delete", json={"label": "group"}).json() == {"removed": 3}
    assert server.client.post("/gallery/delete", json={"label": "group"}).json() == {"removed": 0}
    assert server.count() == before - 5
    assert server.client.get("/gallery/g4").status_code == 200


def test_the_gallery_survives_a_restart(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path) as server:
        item = server.enrol(photo_files["coffee"], "coffee")
        gone = server.enrol(photo_files["rocket"], "rocket")
        server.client.delete(f"/gallery/{gone['id']}")
    with serve(tmp_path) as server:
        assert server.client.get("/gallery").json()["items"] == [item]
        assert server.search(photo_files["coffee"])[0]["matches"][0]["id"] == item["id"]
