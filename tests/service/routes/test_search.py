"""``POST /search`` over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def items(server: Any, photo_files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The photographs, enrolled under their names."""
    return {name: server.enrol(file, name, metadata=f'{{"of": "{name}"}}') for name, file in photo_files.items()}


@pytest.fixture(scope="module")
def seeing_server(
    serve: Any, tmp_path_factory: pytest.TempPathFactory, detector_dir: Path, items: Any
) -> Iterator[Any]:
    """A service with a detector."""
    with serve(tmp_path_factory.mktemp("seeing"), detector_dir=detector_dir) as running:
        yield running


def hamming(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def flipped(code: str, bits: int) -> str:
    """A code at this distance from ``code``."""
    return f"{int(code, 16) ^ ((1 << bits) - 1):0{len(code)}x}"


def test_enrolled_pictures_are_found_by_their_files(
    server: Any, items: dict[str, dict[str, Any]], photo_files: dict[str, bytes]
) -> None:
    for name, file in photo_files.items():
        (found,) = server.search(file, hamming_radius="0")
        expected = {"id": items[name]["id"], "label": name, "distance": 0, "metadata": {"of": name}}
        assert expected in found["matches"]
        assert found["code"] == items[name]["code"]
        assert (found["is_whole_image"], found["det_score"]) == (True, None)


def test_the_answer_has_what_belongs_to_the_whole(server: Any, items: Any, photo_files: dict[str, bytes]) -> None:
    answer = server.client.post("/search", files={"image": photo_files["coffee"]}).json()
    index = server.client.get("/index").json()
    assert set(answer) == {"objects", "model_fingerprint", "index_items", "timings_ms"}
    assert answer["model_fingerprint"] == index["model_fingerprint"]
    assert answer["index_items"] == index["items"] == len(items)
    assert set(answer["timings_ms"]) == {"decode", "hash", "search"}
    assert all(0 <= value < 60_000 for value in answer["timings_ms"].values())
    assert set(answer["objects"][0]) == {"bbox", "det_score", "is_whole_image", "code", "matches", "truncated"}


def test_a_picture_in_json_is_the_same_as_in_a_form(server: Any, items: Any, photo_files: dict[str, bytes]) -> None:
    encoded = base64.b64encode(photo_files["rocket"]).decode()
    assert server.search_json(image_base64=encoded, top_k=3) == server.search(photo_files["rocket"], top_k="3")


def test_a_code_finds_what_its_picture_finds(
    server: Any, items: dict[str, dict[str, Any]], photo_files: dict[str, bytes]
) -> None:
    (by_picture,) = server.search(photo_files["coffee"])
    for code in (items["coffee"]["code"], items["coffee"]["code"].upper()):
        (by_code,) = server.search_json(code=code)
        assert by_code["matches"] == by_picture["matches"]
        assert (by_code["bbox"], by_code["is_whole_image"]) == (None, False)


def test_an_item_finds_itself_first(server: Any, items: dict[str, dict[str, Any]]) -> None:
    (found,) = server.search_json(item_id=items["chelsea"]["id"])
    assert found["bbox"] is None
    assert found["code"] == items["chelsea"]["code"]
    assert (found["matches"][0]["id"], found["matches"][0]["distance"]) == (items["chelsea"]["id"], 0)


def test_the_radius_is_inclusive_at_its_edge(
    server: Any, items: dict[str, dict[str, Any]], photo_files: dict[str, bytes]
) -> None:
    """A radius equal to the distance of a known item finds it; one less does not."""
    query, target = items["astronaut"], items["coffee"]
    distance = hamming(query["code"], target["code"])
    assert 0 < distance <= server.bits
    for radius, there in [(distance, True), (distance - 1, False)]:
        by_code = server.search_json(code=query["code"], hamming_radius=radius, top_k=1000)[0]["matches"]
        by_picture = server.search(photo_files["astronaut"], hamming_radius=str(radius), top_k="1000")[0]["matches"]
        for matches in (by_code, by_picture):
            assert [match["distance"] for match in matches if match["id"] == target["id"]] == [distance] * there


@pytest.mark.parametrize("distance", [1, 7, 100])
def test_the_radius_edge_at_chosen_distances(server: Any, items: dict[str, dict[str, Any]], distance: int) -> None:
    query = flipped(items["rocket"]["code"], distance)
    for radius, there in [(distance, True), (distance - 1, False)]:
        matches = server.search_json(code=query, hamming_radius=radius, label="rocket")[0]["matches"]
        assert [match["distance"] for match in matches] == [distance] * there


def test_the_radius_bits_finds_everything_in_order(server: Any, items: dict[str, dict[str, Any]]) -> None:
    query = items["chelsea"]["code"]
    (found,) = server.search_json(code=query, hamming_radius=server.bits, top_k=1000)
    expected = sorted((hamming(query, item["code"]), item["id"]) for item in items.values())
    assert [(match["distance"], match["id"]) for match in found["matches"]] == expected
    assert found["truncated"] is False


def test_top_k_says_when_there_is_more(server: Any, items: dict[str, dict[str, Any]]) -> None:
    call = {"code": items["chelsea"]["code"], "hamming_radius": server.bits}
    (everything,) = server.search_json(**call, top_k=1000)
    for top_k in range(1, len(items) + 1):
        (found,) = server.search_json(**call, top_k=top_k)
        assert found["matches"] == everything["matches"][:top_k]
        assert found["truncated"] is (top_k < len(items))


def test_the_label_applies_before_top_k(server: Any, items: dict[str, dict[str, Any]]) -> None:
    query = items["chelsea"]["code"]
    (found,) = server.search_json(code=query, hamming_radius=server.bits, top_k=1, label="rocket")
    assert [match["label"] for match in found["matches"]] == ["rocket"]
    assert found["truncated"] is False
    assert server.search_json(code=query, hamming_radius=server.bits, label="Rocket")[0]["matches"] == []


def test_explain_shows_what_lay_just_outside(server: Any, items: dict[str, dict[str, Any]]) -> None:
    query = items["chelsea"]["code"]
    distances = sorted((hamming(query, item["code"]), item["id"]) for item in items.values())
    answer = server.client.post("/search", json={"code": query, "hamming_radius": 0, "explain": True}).json()
    outside = next((distance, item_id) for distance, item_id in distances if distance > 0)
    nearest = answer["objects"][0]["nearest_outside"]
    assert (nearest["distance"], nearest["id"]) == outside
    assert answer["dropped"] == []
    everything = {"code": query, "hamming_radius": server.bits, "explain": True}
    assert server.client.post("/search", json=everything).json()["objects"][0]["nearest_outside"] is None


def test_defaults_are_the_configured_ones(serve: Any, tmp_path: Path, items: dict[str, dict[str, Any]]) -> None:
    with serve(tmp_path, hamming_radius=5, top_k=2) as server:
        code = items["coffee"]["code"]
        for label in "abc":
            server.enrol_code(bytes.fromhex(flipped(code, 5)), label)
        (found,) = server.search_json(code=code)
        assert [match["distance"] for match in found["matches"]] == [5, 5]
        assert found["truncated"] is True
        assert server.search_json(code=flipped(code, 11))[0]["matches"] == []
        assert server.client.get("/health").json()["hamming_radius"] == 5


def test_an_object_without_a_match_stays(server: Any, items: Any, encode: Any) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    (found,) = server.search(encode(noise), hamming_radius="0")
    assert found["matches"] == []
    assert found["truncated"] is False


def test_an_empty_gallery_answers_without_matches(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path) as server:
        answer = server.client.post("/search", files={"image": photo_files["coffee"]}).json()
        assert answer["index_items"] == 0
        assert [found["matches"] for found in answer["objects"]] == [[]]
        explained = server.client.post("/search", json={"code": answer["objects"][0]["code"], "explain": True})
        assert explained.json()["objects"][0]["nearest_outside"] is None


def test_detected_boxes_are_objects_in_pixels_of_the_picture(
    seeing_server: Any, photos: dict[str, np.ndarray], encode: Any
) -> None:
    file = encode(photos["coffee"][:240, :320])
    objects = seeing_server.search(file, det_threshold="0.05")
    assert [(found["bbox"], found["is_whole_image"]) for found in objects] == [
        ([80, 60, 240, 180], False),
        ([80, 60, 240, 120], False),
        ([0, 180, 80, 240], False),
        ([240, 180, 320, 240], False),
        ([0, 0, 320, 240], True),
    ]
    assert [found["det_score"] for found in objects] == pytest.approx([0.9, 0.8, 0.5, 0.1, None])
    assert len({found["code"] for found in objects}) > 1
    timings = seeing_server.client.post("/search", files={"image": file}).json()["timings_ms"]
    assert set(timings) == {"decode", "detect", "hash", "search"}


def test_boxes_are_in_pixels_of_the_upright_picture(
    seeing_server: Any, photos: dict[str, np.ndarray], encode: Any
) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    file = encode(photos["coffee"][:240, :320], "JPEG", exif=exif)
    objects = seeing_server.search(file)
    assert objects[-1]["bbox"] == [0, 0, 240, 320]
    assert objects[0]["bbox"] == [60, 80, 180, 240]


@pytest.mark.parametrize(
    ("fields", "count"),
    [({"detect": "false"}, 1), ({"det_threshold": "0.85"}, 2), ({"max_objects": "2"}, 3), ({}, 4)],
)
def test_detection_is_tuned_by_request(
    seeing_server: Any, photo_files: dict[str, bytes], fields: dict[str, str], count: int
) -> None:
    assert len(seeing_server.search(photo_files["rocket"], hamming_radius="0", **fields)) == count


@pytest.mark.parametrize(("setting", "field"), [(True, "false"), (False, None), (False, "false")])
def test_the_whole_picture_can_be_left_out(
    serve: Any, tmp_path: Path, detector_dir: Path, photo_files: dict[str, bytes], setting: bool, field: str | None
) -> None:
    fields = {} if field is None else {"whole_image": field}
    with serve(tmp_path, detector_dir=detector_dir, whole_image=setting) as server:
        file = photo_files["rocket"]
        assert [found["is_whole_image"] for found in server.search(file, **fields)] == [False] * 3
        image = base64.b64encode(file).decode()
        members = {} if field is None else {"whole_image": False}
        assert len(server.search_json(image_base64=image, **members)) == 3
        # Where nothing is detected it is the object all the same, and a request can ask for it.
        for nothing in ({"det_threshold": "0.95"}, {"detect": "false"}):
            assert [found["is_whole_image"] for found in server.search(file, **fields, **nothing)] == [True]
        assert [found["is_whole_image"] for found in server.search(file, whole_image="true")] == [False] * 3 + [True]


def test_the_whole_picture_competes_with_the_boxes(
    serve: Any, tmp_path: Path, detector_dir: Path, photos: dict[str, np.ndarray], encode: Any
) -> None:
    """Of overlapping objects with a match the nearest stays, be it the whole picture; those without a match stay."""
    file = encode(photos["astronaut"][:240, :320])
    with serve(tmp_path, detector_dir=detector_dir) as server:
        boxes = server.search(file, hamming_radius=str(server.bits))
        assert [found["matches"] for found in boxes] == [[]] * 4
        item = server.enrol(file, "the whole")
        near = server.search(file, hamming_radius="0")
        assert near[0]["is_whole_image"]
        assert [match["id"] for match in near[0]["matches"]] == [item["id"]]
        assert [found["matches"] for found in near[1:]] == [[]] * 3
        (alone,) = server.search(file, hamming_radius=str(server.bits))
        assert alone["is_whole_image"]
        # Without it the better of the two nested boxes and the corner, which overlaps none.
        kept = server.search(file, hamming_radius=str(server.bits), whole_image="false")
        assert len(kept) == 2
        assert [0, 180, 80, 240] in [found["bbox"] for found in kept]


def test_explain_finds_what_lay_just_outside_for_every_object(
    serve: Any, tmp_path: Path, detector_dir: Path, items: dict[str, dict[str, Any]], photo_files: dict[str, bytes]
) -> None:
    """Kept and dropped objects alike, against the distances counted bit by bit."""
    with serve(tmp_path, detector_dir=detector_dir) as server:
        for name, item in items.items():
            server.enrol_code(bytes.fromhex(item["code"]), name, id=name)
        codes = [found["code"] for found in server.search(photo_files["coffee"], hamming_radius="0")]
        nearest = sorted(min(hamming(code, item["code"]) for item in items.values()) for code in codes)
        for radius in (0, nearest[1], nearest[-1], server.bits):
            call = {"hamming_radius": str(radius), "explain": "true", "top_k": "1"}
            answer = server.client.post("/search", files={"image": photo_files["coffee"]}, data=call).json()
            assert len(answer["objects"]) + len(answer["dropped"]) == len(codes)
            for found in answer["objects"] + answer["dropped"]:
                distances = sorted((hamming(found["code"], item["code"]), name) for name, item in items.items())
                outside = next(((distance, name) for distance, name in distances if distance > radius), None)
                told = found["nearest_outside"]
                assert (None if told is None else (told["distance"], told["id"])) == outside
                inside = [distance for distance, _ in distances if distance <= radius]
                assert [match["distance"] for match in found["matches"]] == inside[:1]


def test_overlapping_objects_are_dropped_and_explained(
    serve: Any, tmp_path: Path, detector_dir: Path, photos: dict[str, np.ndarray], encode: Any
) -> None:
    pixels = photos["astronaut"][:240, :320]
    file, crop = encode(pixels), encode(np.ascontiguousarray(pixels[60:180, 80:240]))
    with serve(tmp_path, detector_dir=detector_dir) as server:
        item = server.enrol(crop, "face")
        call = {"hamming_radius": str(server.bits), "explain": "true"}
        answer = server.client.post("/search", files={"image": file}, data=call).json()
        kept, dropped = answer["objects"], answer["dropped"]
        # The enrolled crop wins over the box inside it and the whole picture around it; the corner lies apart.
        assert [found["bbox"] for found in kept] == [[80, 60, 240, 180], [0, 180, 80, 240]]
        assert kept[0]["matches"][0]["id"] == item["id"]
        assert kept[0]["matches"][0]["distance"] <= server.bits // 64
        assert sorted(found["bbox"] for found in dropped) == [[0, 0, 320, 240], [80, 60, 240, 120]]
        assert all(found["reason"].startswith("overlap: IoU ") for found in dropped)
        assert all(set(kept[0]) < set(found) for found in dropped)
        plain = server.client.post("/search", files={"image": file}, data={"hamming_radius": str(server.bits)}).json()
        assert [found["bbox"] for found in plain["objects"]] == [found["bbox"] for found in kept]
        assert "dropped" not in plain


def test_many_clients_at_once_get_their_own_answers(
    server: Any, items: dict[str, dict[str, Any]], photo_files: dict[str, bytes]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = list(photo_files) * 6
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: server.search(photo_files[name], hamming_radius="0"), names))
    for name, answer in zip(names, answers, strict=True):
        assert items[name]["id"] in [match["id"] for match in answer[0]["matches"]]
