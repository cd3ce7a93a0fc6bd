"""Figures of a detector, by hand."""

import numpy as np
import pytest

from models.training.detection.metrics import average_precision, detection_metrics

OBJECT, OTHER, MISS = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def boxes(*rows: tuple[list[int], float]) -> np.ndarray:
    return np.float32([[*box, score] for box, score in rows]).reshape(-1, 5)


def objects(*rows: list[int]) -> np.ndarray:
    return np.float32(rows).reshape(-1, 4)


def test_hits_count_pictures_with_an_object_among_the_best() -> None:
    found = [
        boxes((OBJECT, 0.9), (MISS, 0.8)),
        boxes((MISS, 0.9), (MISS, 0.8), (OTHER, 0.7)),
        boxes((MISS, 0.9)),
        boxes(),
    ]
    truth = [objects(OBJECT, OTHER), objects(OTHER), objects(OBJECT), objects(OBJECT)]
    figures = detection_metrics(found, truth, ranks=(1, 2, 3))
    assert figures["hit@1"] == 0.25
    assert figures["hit@2"] == 0.25
    assert figures["hit@3"] == 0.5
    assert figures["boxes"] == 1.5


def test_average_precision_is_the_area_under_the_curve() -> None:
    """Right, wrong, right, of three objects: precision 1 up to a third, then 2/3 up to two thirds."""
    found = [boxes((OBJECT, 0.9), (MISS, 0.5)), boxes((OTHER, 0.4))]
    truth = [objects(OBJECT, OTHER), objects(OTHER)]
    assert average_precision(found, truth) == pytest.approx(1 / 3 + 2 / 9)


def test_a_second_box_of_an_object_is_wrong() -> None:
    found = [boxes((OBJECT, 0.9), (OBJECT, 0.8), (OTHER, 0.7))]
    truth = [objects(OBJECT, OTHER)]
    assert average_precision(found, truth) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_overlap_of_exactly_one_half_counts() -> None:
    found = [boxes(([0, 0, 10, 5], 0.9))]
    assert detection_metrics(found, [objects(OBJECT)], ranks=(1,))["hit@1"] == 1.0
    assert detection_metrics(found, [objects(OBJECT)], ranks=(1,), iou=0.51)["hit@1"] == 0.0


def test_needs_pictures() -> None:
    with pytest.raises(ValueError, match="0 and 0"):
        detection_metrics([], [])
    with pytest.raises(ValueError, match="1 and 2"):
        detection_metrics([boxes()], [objects(OBJECT), objects(OBJECT)])
