"""The detector: PP-ShiTu's official graph, and every kind of row a detector may put out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from models.inference import Detector, ModelInvalid, select_boxes


def rows(*given: tuple[float, ...]) -> np.ndarray:
    return np.array(given, np.float32).reshape(-1, 6)


def select(given: np.ndarray, threshold: float = 0.2, max_objects: int = 5) -> list[list[float]]:
    """Of a picture 100 wide and 50 high."""
    return [[round(float(x), 3) for x in row] for row in select_boxes(given, 100, 50, threshold, max_objects)]


def test_clips_to_the_picture() -> None:
    assert select(rows((0, 0.5, -10, -5, 200, 300))) == [[0, 0, 100, 50, 0.5]]


def test_sorts_by_score_and_keeps_the_best() -> None:
    given = rows((0, 0.3, 0, 0, 9, 9), (0, 0.9, 1, 1, 9, 9), (0, 0.3, 2, 2, 9, 9), (0, 0.5, 3, 3, 9, 9))
    assert [box[0] for box in select(given)] == [1, 3, 0, 2]
    assert [box[0] for box in select(given, max_objects=2)] == [1, 3]
    assert select(given, max_objects=0) == []


def test_threshold_is_inclusive() -> None:
    given = rows((0, 0.25, 0, 0, 9, 9))
    assert len(select(given, threshold=0.25)) == 1
    assert select(given, threshold=0.2500001) == []


@pytest.mark.parametrize(
    "bad",
    [
        (0, 0.9, 10, 10, 10, 20),  # no width
        (0, 0.9, 10, 20, 20, 10),  # inverted
        (0, 0.9, 120, 10, 130, 20),  # outside
        (0, 0.9, -20, -20, -1, -1),
        (0, 0.9, np.nan, 1, 2, 3),
        (0, np.nan, 1, 1, 5, 5),
        (np.nan, 0.9, 1, 1, 5, 5),
        (0, np.inf, 1, 1, 5, 5),
        (0, -np.inf, 1, 1, 5, 5),
        (-1, 0.9, 1, 1, 5, 5),  # the filler of an export that found nothing
        (0, 0.1, 1, 1, 5, 5),
    ],
)
def test_drops_what_is_no_box(bad: tuple[float, ...]) -> None:
    good = (0, 0.3, 1, 1, 5, 5)
    assert select(rows(bad, good)) == [[1, 1, 5, 5, 0.3]]


def test_infinite_corners_are_clipped() -> None:
    assert select(rows((0, 0.9, -np.inf, 2, np.inf, 9))) == [[0, 2, 100, 9, 0.9]]


def test_corners_far_away_are_clipped() -> None:
    assert select(rows((0, 0.9, -1e30, -3e38, 1e30, 3e38))) == [[0, 0, 100, 50, 0.9]]
    assert select(rows((0, 0.9, 1e30, 1e30, 2e30, 2e30))) == []


@pytest.mark.parametrize(
    "row",
    [
        (0, 0.9, 100 - 1e-12, 10, 101, 20),  # nothing is left of it as float32
        (0, 0.9, 30 + 1e-12, 10, 30 + 2e-12, 20),
        (0, 1e300, 10, 10, 20, 20),  # a score that float32 cannot hold
        (1e300, 0.9, 10, 10, 20, 20),
    ],
)
def test_what_float32_cannot_hold_is_no_box(row: tuple[float, ...]) -> None:
    good = (0.0, 0.3, 1.0, 1.0, 5.0, 5.0)
    assert select(np.array([row, good], np.float64)) == [[1, 1, 5, 5, 0.3]]


@pytest.mark.parametrize("row", [(0, 0.9, 99.999, 10, 101, 20), (0, 0.9, 0, 0, 1e-6, 9), (0, 0.9, -1, -1, 1e-30, 9)])
def test_slivers_have_some_width(row: tuple[float, ...]) -> None:
    (box,) = select_boxes(rows(row), 100, 50, 0.2, 5)
    assert 0 <= box[0] < box[2] <= 100
    assert 0 <= box[1] < box[3] <= 50


def test_one_pixel_boxes_stay() -> None:
    assert select(rows((0, 0.9, 4, 4, 5, 5))) == [[4, 4, 5, 5, 0.9]]


@pytest.mark.parametrize("shape", [(0, 6), (0,), (1,), (1, 1), (0, 0)])
def test_nothing_found_in_any_shape(shape: tuple[int, ...]) -> None:
    found = select_boxes(np.full(shape, -1, np.float32), 100, 50, 0.2, 5)
    assert found.shape == (0, 5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 5), (12,), (2, 3, 6)])
def test_output_of_another_kind_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelInvalid, match="no PP-ShiTu detector"):
        select_boxes(np.ones(shape, np.float32), 100, 50, 0.2, 5)


GOOD = [0, 0.9, 10, 5, 60, 40]


@pytest.mark.parametrize(
    ("output", "boxes"),
    [
        (np.zeros((0, 6), np.float32), 0),
        (np.full((1, 1), -1, np.float32), 0),
        (np.full((1,), -1, np.float32), 0),
        (np.array([[-1, 0, 0, 0, 0, 0]], np.float32), 0),
        (np.array([GOOD], np.float32), 1),
        (np.array([GOOD, [0, 0.8, 79.9999999999, 5, 81, 40]], np.float64), 1),
        (np.array([GOOD] * 100, np.float64), 100),
        (np.full((100, 6), np.nan, np.float32), 0),
    ],
)
def test_graphs_with_any_output_run(
    constant_detector: Callable[[np.ndarray], Path], output: np.ndarray, boxes: int
) -> None:
    detector = Detector.load(constant_detector(output), "cpu")
    found = detector.detect(np.zeros((50, 80, 3), np.uint8), 0.2, 100)
    assert found.shape == (boxes, 5)
    np.testing.assert_allclose(found, np.tile(np.float32([10, 5, 60, 40, 0.9]), (boxes, 1)))


@pytest.mark.parametrize("onednn", [True, False])
def test_official_graph_runs(official: Callable[[str], Path], onednn: bool) -> None:
    detector = Detector.load(official("mainbody"), "cpu", onednn=onednn)
    image = skimage.data.chelsea()
    height, width = image.shape[:2]
    boxes = detector.clone().detect(image, threshold=0.0, max_objects=7)
    assert boxes.shape == (7, 5)
    assert boxes.dtype == np.float32
    assert (np.diff(boxes[:, 4]) <= 0).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    np.testing.assert_allclose(boxes, detector.detect(image, 0.0, 7))
    assert detector.detect(image, threshold=1.0, max_objects=7).shape == (0, 5)
    assert "640 x 640" in detector.describe()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2000, 3)])
def test_official_graph_takes_any_picture(official: Callable[[str], Path], shape: tuple[int, int, int]) -> None:
    boxes = Detector.load(official("mainbody"), "cpu").detect(np.zeros(shape, np.uint8), 0.0, 100)
    assert (boxes[:, 2] <= shape[1]).all()
    assert (boxes[:, 3] <= shape[0]).all()


def test_a_feature_model_is_refused(official: Callable[[str], Path]) -> None:
    with pytest.raises(ModelInvalid, match="no PP-ShiTu detector"):
        Detector.load(official("PPLCNet_x2_5_lite"), "cpu")
