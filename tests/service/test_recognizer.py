"""Searching candidates and dropping what overlaps a better one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index_store import GalleryStore, Item, Match, open_gallery
from service.recognizer import Query, RecognizedObject, Recognizer, drop_overlapping
from service.timing import StageTimes
from service.vision import Box, Candidate

BITS = 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GalleryStore]:
    with open_gallery(tmp_path / "gallery", BITS, fingerprint="test") as store:
        yield store


def code(set_bits: int) -> bytes:
    """A code whose distance to all zeros is ``set_bits``."""
    return np.packbits(np.arange(BITS) < set_bits).tobytes()


def rows(*codes: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), BITS // 8)


def matched(box: Box, distance: int | None, score: float | None = 0.5) -> RecognizedObject:
    matches = [] if distance is None else [Match("id", "label", distance, {})]
    return RecognizedObject(Candidate(box, score), b"\0" * 8, matches, truncated=False)


def boxes(objects: list[RecognizedObject]) -> list[Box]:
    return [each.candidate.box for each in objects if each.candidate is not None]


def test_the_radius_is_inclusive(store: GalleryStore) -> None:
    store.add([Item(None, "ten bits away", code(10))])
    recognizer = Recognizer(store, 0.05)
    for radius, labels in [(9, []), (10, ["ten bits away"])]:
        found = recognizer.recognize([None], rows(code(0)), Query(radius, 5), StageTimes()).objects[0]
        assert [match.label for match in found.matches] == labels
        assert found.best_distance == (10 if labels else None)


def test_explain_tells_what_lay_just_outside(store: GalleryStore) -> None:
    store.add([Item(str(bits), "x", code(bits)) for bits in (3, 12, 20)])
    recognizer = Recognizer(store, 0.05)
    query = Query(5, 5, explain=True)
    found = recognizer.recognize([None], rows(code(0)), query, StageTimes()).objects[0]
    assert [match.id for match in found.matches] == ["3"]
    assert found.nearest_outside is not None
    assert (found.nearest_outside.id, found.nearest_outside.distance) == ("12", 12)
    plain = recognizer.recognize([None], rows(code(0)), Query(5, 5), StageTimes()).objects[0]
    assert plain.nearest_outside is None


def test_each_candidate_gets_its_own_matches(store: GalleryStore) -> None:
    store.add([Item("a", "a", code(0)), Item("b", "b", code(64))])
    candidates = [Candidate((0, 0, 10, 10), 0.9), Candidate((50, 50, 60, 60), 0.8)]
    times = StageTimes()
    found = Recognizer(store, 0.05).recognize(candidates, rows(code(1), code(62)), Query(8, 5), times)
    assert [(each.candidate, each.matches[0].id) for each in found.objects] == [
        (candidates[0], "a"),
        (candidates[1], "b"),
    ]
    assert [each.best_distance for each in found.objects] == [1, 2]
    assert set(times.seconds) == {"search"}


def test_of_overlapping_objects_the_smaller_distance_stays() -> None:
    worse, better = matched((0, 0, 10, 10), 30, 0.9), matched((0, 0, 10, 9), 20, 0.3)
    for objects in ([worse, better], [better, worse]):
        result = drop_overlapping(objects, 0.05)
        assert result.objects == [better]
        assert [each.object for each in result.dropped] == [worse]
        assert "IoU 0.900" in result.dropped[0].reason
        assert "distance 20, not 30" in result.dropped[0].reason


def test_of_equal_distances_the_better_detection_stays() -> None:
    worse, better = matched((0, 0, 10, 10), 20, 0.3), matched((0, 0, 10, 9), 20, 0.9)
    whole = matched((0, 0, 10, 10), 20, None)
    assert drop_overlapping([worse, better], 0.05).objects == [better]
    assert drop_overlapping([whole, worse], 0.05).objects == [worse]


def test_objects_apart_all_stay_by_distance() -> None:
    objects = [matched((0, 0, 10, 10), 30), matched((20, 0, 30, 10), 10), matched((10, 0, 20, 10), 20)]
    result = drop_overlapping(objects, 0.0)
    assert [each.best_distance for each in result.objects] == [10, 20, 30]
    assert result.dropped == []


def test_objects_without_a_match_stay_and_drop_nobody() -> None:
    lost, found = matched((0, 0, 10, 10), None, 0.99), matched((0, 0, 10, 10), 50, 0.1)
    whole = matched((0, 0, 11, 11), None, None)
    result = drop_overlapping([whole, lost, found], 0.05)
    assert result.objects == [found, lost, whole]
    assert result.dropped == []


def test_a_dropped_object_drops_nobody() -> None:
    best, middle, last = matched((0, 0, 10, 10), 1), matched((6, 0, 16, 10), 2), matched((12, 0, 22, 10), 3)
    assert boxes(drop_overlapping([best, middle, last], 0.2).objects) == [(0, 0, 10, 10), (12, 0, 22, 10)]


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 1), (1 / 3 - 1e-9, 1), (1 / 3, 2), (1.0, 2)])
def test_the_threshold_is_exclusive(threshold: float, kept: int) -> None:
    # Two of six pixels are shared.
    pair = [matched((0, 0, 4, 1), 1), matched((2, 0, 6, 1), 2)]
    assert len(drop_overlapping(pair, threshold).objects) == kept


def test_dropping_equals_a_plain_loop_over_pixels() -> None:
    generator = np.random.default_rng(5)
    for _ in range(40):
        objects = []
        for index in range(8):
            x, y = generator.integers(0, 12, 2)
            width, height = generator.integers(1, 9, 2)
            box = (int(x), int(y), int(x + width), int(y + height))
            objects.append(matched(box, int(generator.integers(0, 5)), 1 - index / 10))
        expected: list[RecognizedObject] = []
        for each in sorted(objects, key=lambda each: (each.best_distance, -(each.candidate.det_score or 0))):
            if all(pixel_overlap(each, other) <= 0.3 for other in expected):
                expected.append(each)
        result = drop_overlapping(objects, 0.3)
        assert result.objects == expected
        assert len(result.objects) + len(result.dropped) == len(objects)


def pixel_overlap(a: RecognizedObject, b: RecognizedObject) -> float:
    masks = []
    for each in (a, b):
        mask = np.zeros((32, 32), bool)
        x1, y1, x2, y2 = boxes([each])[0]
        mask[y1:y2, x1:x2] = True
        masks.append(mask)
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
