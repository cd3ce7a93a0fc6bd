"""Whatever a detector puts out, every request is answered, with boxes that lie within the picture.

The real service with real graphs: one that picks its rows by how bright the picture is, and some that put out arrays of
odd shapes and dtypes. The boxes to expect come from a plain loop over the rows.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

INF, NAN = math.inf, math.nan
WIDTH, HEIGHT = 90, 60
MOST_ROWS = 100
GOOD = (0, 0.5, 10, 10, 40, 50)

CASES: dict[str, list[tuple[float, ...]]] = {
    "no rows": [],
    "one box": [GOOD],
    "a hundred boxes": [(0, 0.3 + 0.006 * i, i / 2, i / 3, i / 2 + 20, i / 3 + 20) for i in range(100)],
    "a hundred equal boxes": [GOOD] * 100,
    "the filler of an export that found nothing": [(-1, 0, 0, 0, 0, 0)],
    "a filler with a high score": [(-1, 0.9, 1, 1, 20, 20), GOOD],
    "scores that are no number": [(0, NAN, 1, 1, 20, 20), GOOD, (0, NAN, NAN, NAN, NAN, NAN)],
    "infinite scores": [(0, INF, 1, 1, 20, 20), GOOD, (0, -INF, 1, 1, 20, 20)],
    "coordinates that are no number": [(0, 0.9, NAN, 1, 20, 20), (0, 0.9, 1, 1, 20, NAN), GOOD],
    "infinite coordinates": [(0, 0.9, -INF, -INF, INF, INF), (0, 0.8, INF, 1, INF, 20), (0, 0.7, 5, -INF, INF, 9)],
    "huge coordinates": [(0, 0.9, -1e30, -1e30, 1e30, 1e30), (0, 0.8, 1e30, 1, 3e38, 9), (0, 0.7, 1, 1, 1e30, 1e-30)],
    "negative coordinates": [(0, 0.9, -50, -20, 30, 30), (0, 0.8, -50, -20, -1, -1), (0, 0.7, -3, 5, 0, 9)],
    "inverted boxes": [(0, 0.9, 40, 50, 10, 10), (0, 0.8, 40, 10, 10, 50), GOOD],
    "boxes outside": [(0, 0.9, 91, 1, 99, 9), (0, 0.8, 1, 61, 9, 99), (0, 0.7, 90, 60, 91, 61), GOOD],
    "boxes of no area": [(0, 0.9, 5, 5, 5, 5), (0, 0.8, 5, 5, 9, 5), (0, 0.7, 5, 5, 5, 9), (0, 0.6, 0, 0, 0, 0)],
    "one pixel": [(0, 0.9, 4, 4, 5, 5), (0, 0.8, 0, 0, 1, 1), (0, 0.7, 89, 59, 90, 60)],
    "lines of one pixel": [(0, 0.9, 0, 30, 90, 31), (0, 0.8, 45, 0, 46, 60)],
    "slivers at the edges": [
        (0, 0.9, 89.99999, 0, 91, 60),
        (0, 0.8, -1, -1, 1e-6, 60),
        (0, 0.7, 0, 59.99999, 90, 70),
        (0, 0.6, -5, -5, 1e-30, 1e-30),
        (0, 0.5, 44.4, 0.1, 44.6, 0.2),
    ],
    "scores beyond one": [(0, 7.5, 1, 1, 20, 20), (0, 1e30, 2, 2, 20, 20), (0, -0.5, 3, 3, 20, 20)],
    "other classes": [(7, 0.9, 1, 1, 20, 20), (1e9, 0.8, 2, 2, 20, 20), (NAN, 0.7, 3, 3, 20, 20)],
    "nothing but rubbish": [(NAN,) * 6, (INF,) * 6, (-INF,) * 6, (0, 0.9, INF, INF, -INF, -INF), (0,) * 6],
}
CALLS = [  # size, least score, most boxes
    ((WIDTH, HEIGHT), 0.2, 100),
    ((WIDTH, HEIGHT), 0.2, 5),
    ((WIDTH, HEIGHT), 0.0, 1),
    ((WIDTH, HEIGHT), 0.75, 100),
    ((1, 1), 0.2, 5),
    ((2, 1), 0.0, 5),
    ((5000, 1), 0.0, 10),
    ((1, 5000), 0.2, 10),
]


def expected_boxes(
    rows: list[tuple[float, ...]], size: tuple[int, int], threshold: float, max_objects: int
) -> list[list[int]]:
    """What a plain reading of the rows gives: whole pixels, by descending score."""
    found = []
    for label, score, *corners in np.float32(rows).reshape(-1, 6).tolist():
        if any(map(math.isnan, (label, score, *corners))) or math.isinf(score) or math.isinf(label):
            continue
        x1, y1, x2, y2 = (min(max(corner, 0), side) for corner, side in zip(corners, size * 2, strict=True))
        if label >= 0 and score >= threshold and x1 < x2 and y1 < y2:
            found.append((score, [math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)]))
    found.sort(key=lambda each: -each[0])
    return [box for _, box in found[:max_objects]]


def picture_of(case: str, size: tuple[int, int], encode: Any) -> bytes:
    grey = 2 * list(CASES).index(case)
    data: bytes = encode(np.full((size[1], size[0], 3), grey, np.uint8))
    return data


@pytest.fixture(scope="module")
def table_dir(export_detector: Callable[[Any], Path]) -> Path:
    """A detector that gives the rows of the n-th case for a picture that is all of grey 2 n."""
    import paddle

    paddle.disable_static()
    table = np.zeros((len(CASES), MOST_ROWS, 6), np.float32)
    for index, rows in enumerate(CASES.values()):
        table[index, : len(rows)] = np.float32(rows).reshape(-1, 6)

    class Table(paddle.nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = self.create_parameter(list(table.shape))
            self.table.set_value(table)
            self.counts = self.create_parameter([len(CASES)])
            self.counts.set_value(np.array([len(rows) for rows in CASES.values()], np.float32))

        def forward(self, image: Any, im_shape: Any, scale_factor: Any) -> Any:
            nothing = 0 * (im_shape[0, 0] + scale_factor[0, 0])
            grey = 255 * (image[0, 0, 0, 0] * 0.229 + 0.485)  # the normalisation undone
            case = paddle.round(grey / 2 + nothing).clip(0, len(CASES) - 1).astype("int64").reshape([1])
            count = paddle.index_select(self.counts, case)
            present = paddle.nonzero(paddle.arange(MOST_ROWS, dtype="float32") < count).reshape([-1])
            return paddle.gather(paddle.index_select(self.table, case)[0], present), count.astype("int32")

    return export_detector(Table())


@pytest.fixture(scope="module")
def odd_server(serve: Any, tmp_path_factory: pytest.TempPathFactory, table_dir: Path) -> Iterator[Any]:
    with serve(tmp_path_factory.mktemp("odd"), detector_dir=table_dir, max_objects=100) as running:
        yield running


def boxes_of(answer: Any, size: tuple[int, int]) -> list[list[int]]:
    """The detected boxes of an answer, after what goes for every answer is checked."""
    assert answer.status_code == 200, answer.text
    objects = answer.json()["objects"]
    for found in objects:
        x1, y1, x2, y2 = found["bbox"]
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert found["is_whole_image"] is (found["det_score"] is None)
    whole = [found["bbox"] for found in objects if found["is_whole_image"]]
    assert whole in ([], [[0, 0, *size]])
    return [found["bbox"] for found in objects if not found["is_whole_image"]]


@pytest.mark.parametrize("case", CASES)
def test_every_output_is_answered(odd_server: Any, encode: Any, case: str) -> None:
    for size, threshold, most in CALLS:
        fields = {"det_threshold": str(threshold), "max_objects": str(most), "hamming_radius": "0"}
        answer = odd_server.client.post("/search", files={"image": picture_of(case, size, encode)}, data=fields)
        assert boxes_of(answer, size) == expected_boxes(CASES[case], size, threshold, most)
        assert answer.json()["objects"][-1]["is_whole_image"]


@pytest.mark.parametrize("case", CASES)
def test_without_the_whole_picture_there_is_still_an_object(odd_server: Any, encode: Any, case: str) -> None:
    size = (WIDTH, HEIGHT)
    fields = {"whole_image": "false", "hamming_radius": "0", "explain": "true"}
    answer = odd_server.client.post("/search", files={"image": picture_of(case, size, encode)}, data=fields)
    expected = expected_boxes(CASES[case], size, 0.2, 100)
    assert boxes_of(answer, size) == expected
    assert len(answer.json()["objects"]) == max(1, len(expected))


@pytest.mark.parametrize("case", CASES)
def test_every_output_is_drawn_and_enrolled(odd_server: Any, encode: Any, case: str) -> None:
    for size in ((WIDTH, HEIGHT), (5000, 1)):
        file = picture_of(case, size, encode)
        drawn = odd_server.client.post("/search", files={"image": file}, data={"annotate": "true"})
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
        with Image.open(io.BytesIO(drawn.content)) as picture:
            assert picture.size == (min(size[0], 1600), size[1])
        odd_server.enrol(file, case, detect="true")


def test_the_boxes_are_counted(odd_server: Any, encode: Any) -> None:
    names = ("shitu_search_detected_boxes_count", "shitu_search_detected_boxes_sum")
    stage = 'shitu_stage_duration_seconds_count{stage="detect"}'
    before = [odd_server.metric(name) for name in (*names, stage)]
    for case in ("a hundred boxes", "no rows", "inverted boxes"):
        odd_server.search(picture_of(case, (WIDTH, HEIGHT), encode), whole_image="false")
    odd_server.search(picture_of("one box", (WIDTH, HEIGHT), encode), detect="false")
    after = [odd_server.metric(name) for name in (*names, stage)]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 101, 3]


@pytest.mark.parametrize(
    ("output", "boxes"),
    [
        (np.zeros((0, 6), np.float32), []),
        (np.full((1, 1), -1, np.float32), []),
        (np.full((1,), -1, np.float32), []),
        (np.array([GOOD, (0, 0.9, 90 - 1e-12, 1, 91, 9), (0, 1e300, 1, 1, 9, 9)], np.float64), [[10, 10, 40, 50]]),
    ],
    ids=["no rows", "lone filler", "lone filler in one axis", "float64"],
)
def test_outputs_of_odd_shapes_and_dtypes_are_answered(
    serve: Any,
    tmp_path: Path,
    constant_detector: Callable[[np.ndarray], Path],
    encode: Any,
    output: np.ndarray,
    boxes: list[list[int]],
) -> None:
    with serve(tmp_path, detector_dir=constant_detector(output)) as server:
        answer = server.client.post("/search", files={"image": picture_of("one box", (WIDTH, HEIGHT), encode)})
        assert boxes_of(answer, (WIDTH, HEIGHT)) == boxes
        assert server.client.get("/readyz").status_code == 200


@pytest.fixture(scope="module")
def official_server(
    serve: Any, tmp_path_factory: pytest.TempPathFactory, official: Callable[[str], Path]
) -> Iterator[Any]:
    """A service with PP-ShiTu's main-body detector, its parameters filled in by chance."""
    with serve(tmp_path_factory.mktemp("official"), detector_dir=official("mainbody")) as running:
        yield running


@pytest.mark.parametrize("threshold", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize(("size", "most"), [((400, 300), 5), ((64, 400), 30), ((400, 1), 1), ((1, 1), 10)])
def test_the_official_graph_with_random_parameters(
    official_server: Any,
    photos: dict[str, np.ndarray],
    encode: Any,
    threshold: float,
    size: tuple[int, int],
    most: int,
) -> None:
    file = encode(photos["coffee"][: size[1], : size[0]])
    fields = {"det_threshold": str(threshold), "max_objects": str(most), "hamming_radius": "0"}
    answer = official_server.client.post("/search", files={"image": file}, data=fields)
    assert len(boxes_of(answer, size)) <= most
    scores = [found["det_score"] for found in answer.json()["objects"][:-1]]
    assert scores == sorted(scores, reverse=True)
    assert all(score >= threshold for score in scores)
    assert scores or threshold > 0


@pytest.mark.parametrize("size", [(300, 400), (2, 3)])
def test_the_official_graph_sees_upright_pictures(
    official_server: Any, photos: dict[str, np.ndarray], encode: Any, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    pixels = np.resize(photos["rocket"], (size[0], size[1], 3))  # lies on its side in the file
    file = encode(pixels, "JPEG", exif=exif)
    fields = {"det_threshold": "0", "max_objects": "100", "hamming_radius": "0"}
    answer = official_server.client.post("/search", files={"image": file}, data=fields)
    boxes_of(answer, size)
