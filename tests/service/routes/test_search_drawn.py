"""``POST /search`` answered with the picture itself, and boxes where the content really is."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.drawing import Mark, draw_marks

PNG, JPEG, JSON = "image/png", "image/jpeg", "application/json"
UPRIGHT = (240, 320)


@pytest.fixture(scope="module")
def bright_spot_dir(export_detector: Callable[[Any], Path]) -> Path:
    """A detector that finds the bounding box of what is bright in a dark picture, with score 0.9."""
    import paddle

    paddle.disable_static()

    class BrightSpot(paddle.nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = self.create_parameter([2])  # class and score
            self.head.set_value(np.array([0, 0.9], np.float32))

        def forward(self, image: Any, im_shape: Any, scale_factor: Any) -> Any:
            bright = (image[0, 0] > 0.5).astype("float32")
            edges = []
            for along in (0, 1):
                line = bright.max(axis=along)
                edges += [line.argmax(), im_shape[0, 1 - along] - line.flip(0).argmax().astype("float32")]
            x1, x2, y1, y2 = (edge.astype("float32").reshape([1]) for edge in edges)
            scale_y, scale_x = scale_factor[0, 0], scale_factor[0, 1]
            row = paddle.concat([self.head, x1 / scale_x, y1 / scale_y, x2 / scale_x, y2 / scale_y])
            return row.reshape([1, 6]), paddle.full([1], 1, "int32")

    return export_detector(BrightSpot())


@pytest.fixture(scope="module")
def seeing_server(serve: Any, tmp_path_factory: pytest.TempPathFactory, bright_spot_dir: Path) -> Iterator[Any]:
    with serve(tmp_path_factory.mktemp("seeing"), detector_dir=bright_spot_dir) as running:
        yield running


def spot(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A textured bright rectangle on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = np.random.default_rng(2).integers(215, 256, (y2 - y1, x2 - x1, 3))
    return pixels


@pytest.fixture(scope="module")
def turned(encode: Any) -> bytes:
    """A JPEG that EXIF turns upright to 240 x 320."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file: bytes = encode(spot(320, 240, (40, 60, 140, 120)), "JPEG", quality=95, exif=exif)
    return file


def pixels_of(answer: Any, kind: str = "PNG") -> np.ndarray:
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == kind
        return np.asarray(picture.convert("RGB"))


def expected(file: bytes, objects: list[dict[str, Any]]) -> np.ndarray:
    """The picture that Pillow turns upright, drawn on as the JSON answer says."""
    marks = []
    for found in objects:
        best = found["matches"][0] if found["matches"] else {"label": None, "distance": None}
        marks.append(Mark(tuple(found["bbox"]), best["label"], best["distance"], found["is_whole_image"]))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    return draw_marks(np.asarray(upright.convert("RGB")), marks)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_pictures_are_upright(seeing_server: Any, encode: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(spot(320, 240, (40, 60, 140, 120)), "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    there = np.argwhere(np.asarray(upright.convert("L")) > 128)
    (y1, x1), (y2, x2) = there.min(axis=0), there.max(axis=0) + 1

    box, whole = seeing_server.search(file, hamming_radius="0")
    assert np.abs(np.array(box["bbox"]) - (x1, y1, x2, y2)).max() <= 2
    assert whole["bbox"] == [0, 0, *upright.size]
    drawn = pixels_of(seeing_server.client.post("/search", files={"image": file}, headers={"Accept": PNG}))
    assert (drawn.shape[1], drawn.shape[0]) == upright.size


def test_what_the_json_says_is_drawn(seeing_server: Any, turned: bytes) -> None:
    seeing_server.enrol(turned, "农夫山泉 / NFC橙汁_300ml…", detect="true")
    objects = seeing_server.search(turned)
    assert objects[0]["matches"][0]["distance"] == 0
    answer = seeing_server.client.post("/search", files={"image": turned}, data={"annotate": "true"})
    drawn = pixels_of(answer)
    assert np.array_equal(drawn, expected(turned, objects))
    assert not np.array_equal(drawn, expected(turned, []))


def test_labels_in_chinese_differ_on_the_picture(seeing_server: Any, turned: bytes) -> None:
    pictures = []
    for label in ("橙汁", "茶汁", "??"):
        seeing_server.enrol(turned, label, detect="true")
        data = {"annotate": "true", "label": label}
        pictures.append(pixels_of(seeing_server.client.post("/search", files={"image": turned}, data=data)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(pictures[a], pictures[b])


@pytest.mark.parametrize(
    ("annotate", "accept", "kind"),
    [
        (False, PNG, PNG),
        (False, JPEG, JPEG),
        (False, "image/*", PNG),
        (False, "*/*", JSON),
        (False, JSON, JSON),
        (False, "text/html", JSON),
        (False, f"{PNG};q=0.5, {JSON}", JSON),
        (True, "*/*", PNG),
        (True, JSON, PNG),
        (True, JPEG, JPEG),
        (True, "text/html", PNG),
    ],
)
def test_accept_and_annotate_choose_the_answer(
    seeing_server: Any, turned: bytes, annotate: bool, accept: str, kind: str
) -> None:
    headers = {"Accept": accept, "X-Request-ID": "mine"}
    image = base64.b64encode(turned).decode()
    answers = [
        seeing_server.client.post(
            "/search", files={"image": turned}, data={"annotate": str(annotate)}, headers=headers
        ),
        seeing_server.client.post("/search", json={"image_base64": image, "annotate": annotate}, headers=headers),
    ]
    for answer in answers:
        assert answer.headers["content-type"] == kind
        assert answer.headers["x-request-id"] == "mine"
        if kind == JSON:
            assert answer.json()["objects"]
        else:
            assert pixels_of(answer, kind.split("/")[1].upper()).shape == (UPRIGHT[1], UPRIGHT[0], 3)


def test_without_an_accept_header_the_answer_is_json(seeing_server: Any, turned: bytes) -> None:
    request = seeing_server.client.build_request("POST", "/search", files={"image": turned})
    del request.headers["accept"]
    assert seeing_server.client.send(request).headers["content-type"] == JSON


@pytest.mark.parametrize("query", ["code", "item_id"])
@pytest.mark.parametrize(("annotate", "accept"), [(True, "*/*"), (False, PNG)])
def test_a_code_has_nothing_to_draw_on(
    seeing_server: Any, turned: bytes, query: str, annotate: bool, accept: str
) -> None:
    item = seeing_server.enrol(turned, "item")
    call = {query: item["code" if query == "code" else "id"], "annotate": annotate}
    answer = seeing_server.client.post("/search", json=call, headers={"Accept": accept})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == ["annotate"]
    assert "needs a picture to draw on" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({"files": {"image": b"text"}}, 415),
        ({"files": {"image": b""}}, 400),
        ({"files": {"image": b"\x89PNG\r\n\x1a\n"}}, 400),
        ({"json": {"item_id": "nobody", "annotate": "yes"}}, 422),
        ({"json": {}}, 422),
    ],
)
def test_errors_stay_problem_documents(seeing_server: Any, call: dict[str, Any], status: int) -> None:
    answer = seeing_server.client.post("/search", headers={"Accept": PNG}, **call)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_large_pictures_are_reduced(seeing_server: Any, encode: Any) -> None:
    file = encode(spot(3000, 2000, (600, 400, 1800, 1200)), "JPEG")
    drawn = pixels_of(seeing_server.client.post("/search", files={"image": file}, headers={"Accept": PNG}))
    assert drawn.shape == (1067, 1600, 3)
    assert seeing_server.search(file)[-1]["bbox"] == [0, 0, 3000, 2000]


def test_drawing_is_measured(seeing_server: Any, turned: bytes) -> None:
    sample = 'shitu_stage_duration_seconds_count{stage="draw"}'
    before = seeing_server.metric(sample)
    seeing_server.search(turned)
    seeing_server.client.post("/search", files={"image": turned}, headers={"Accept": PNG})
    assert seeing_server.metric(sample) == before + 1


def test_without_a_detector_the_whole_picture_is_drawn(server: Any, turned: bytes) -> None:
    answer = server.client.post("/search", files={"image": turned}, data={"annotate": "true", "whole_image": "false"})
    objects = server.search(turned, whole_image="false")
    assert [found["is_whole_image"] for found in objects] == [True]
    assert np.array_equal(pixels_of(answer), expected(turned, objects))


def test_the_document_names_the_media_types(server: Any) -> None:
    document = server.client.get("/openapi.json").json()
    content = document["paths"]["/search"]["post"]["responses"]["200"]["content"]
    assert set(content) == {JSON, PNG, JPEG}
    assert content[PNG]["schema"] == {"type": "string", "format": "binary"}
    for schema in ("SearchForm", "SearchJson"):
        assert {"annotate", "whole_image"} <= set(document["components"]["schemas"][schema]["properties"])
