"""Pictures to candidates and codes, with real models."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.inference import Detector, Hasher
from service.errors import UndecodablePicture, UnsupportedPicture
from service.images import PictureDecoder
from service.settings import Settings
from service.timing import StageTimes
from service.vision import CodedPicture, DetectOptions, Vision

EVERYTHING = DetectOptions(detect=True, threshold=0.2, max_objects=5)
NOTHING = DetectOptions(detect=False, threshold=0.2, max_objects=5)


@pytest.fixture(scope="module")
def hasher(make_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Hasher:
    settings: Settings = make_settings(tmp_path_factory.mktemp("unused"))
    return Hasher.load(settings.hasher_dir)


@pytest.fixture(scope="module")
def vision(hasher: Hasher, detector_dir: Path) -> Vision:
    return Vision(PictureDecoder(2**24, 10**7), hasher, Detector.load(detector_dir), batch_size=3)


@pytest.fixture(scope="module")
def blind_vision(hasher: Hasher) -> Vision:
    return Vision(PictureDecoder(2**24, 10**7), hasher, None)


def distance(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def test_boxes_come_by_score_and_the_whole_picture_last(
    vision: Vision, hasher: Hasher, photos: dict[str, np.ndarray], encode: Any
) -> None:
    pixels = photos["coffee"][:240, :320]
    times = StageTimes()
    candidates, codes = vision.find(encode(pixels, "PNG"), EVERYTHING, times)

    assert [candidate.box for candidate in candidates] == [
        (80, 60, 240, 180),
        (80, 60, 240, 120),
        (0, 180, 80, 240),
        (0, 0, 320, 240),
    ]
    assert [candidate.det_score for candidate in candidates[:3]] == pytest.approx([0.9, 0.8, 0.5])
    assert [candidate.is_whole_image for candidate in candidates] == [False, False, False, True]
    for candidate, code in zip(candidates, codes, strict=True):
        x1, y1, x2, y2 = candidate.box
        alone = hasher.hash([np.ascontiguousarray(pixels[y1:y2, x1:x2])])[0]
        assert distance(code.tobytes(), alone.tobytes()) <= hasher.bits // 64
    assert set(times.seconds) == {"decode", "detect", "hash"}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (NOTHING, 1),
        (DetectOptions(detect=True, threshold=0.05, max_objects=5), 5),
        (DetectOptions(detect=True, threshold=0.85, max_objects=5), 2),
        (DetectOptions(detect=True, threshold=0.05, max_objects=2), 3),
    ],
)
def test_detection_can_be_tuned(
    vision: Vision, photo_files: dict[str, bytes], options: DetectOptions, count: int
) -> None:
    candidates, codes = vision.find(photo_files["coffee"], options, StageTimes())
    assert len(candidates) == count
    assert codes.shape == (count, vision.bits // 8)


def test_without_a_detector_the_whole_picture_is_the_object(
    blind_vision: Vision, photo_files: dict[str, bytes]
) -> None:
    times = StageTimes()
    candidates, _ = blind_vision.find(photo_files["coffee"], EVERYTHING, times)
    assert [candidate.is_whole_image for candidate in candidates] == [True]
    assert set(times.seconds) == {"decode", "hash"}


def test_boxes_keep_at_least_one_pixel(vision: Vision, encode: Any) -> None:
    candidates, codes = vision.find(encode(np.zeros((1, 2, 3), np.uint8)), EVERYTHING, StageTimes())
    assert all(x2 > x1 and y2 > y1 for x1, y1, x2, y2 in (candidate.box for candidate in candidates))
    assert len(codes) == len(candidates) == 4


def test_bad_pictures_do_not_disturb_the_others(vision: Vision, photo_files: dict[str, bytes]) -> None:
    good = list(photo_files.values())
    pictures = [good[0], b"text", good[1], good[2], good[3][:500], good[3], good[4]]
    outcomes = vision.code(pictures, NOTHING, StageTimes())
    kinds = [
        CodedPicture,
        UnsupportedPicture,
        CodedPicture,
        CodedPicture,
        UndecodablePicture,
        CodedPicture,
        CodedPicture,
    ]
    assert [type(outcome) for outcome in outcomes] == kinds
    for picture, outcome in zip(pictures, outcomes, strict=True):
        if isinstance(outcome, CodedPicture):
            alone = vision.code([picture], NOTHING, StageTimes())[0]
            assert isinstance(alone, CodedPicture)
            assert distance(outcome.code, alone.code) <= vision.bits // 64


def test_what_is_kept_hashes_to_the_same_code(vision: Vision, photo_files: dict[str, bytes]) -> None:
    whole, crop = (
        vision.code([photo_files["rocket"]], options, StageTimes(), keep=True)[0] for options in (NOTHING, EVERYTHING)
    )
    assert isinstance(whole, CodedPicture)
    assert isinstance(crop, CodedPicture)
    assert whole.hashed == photo_files["rocket"]
    assert crop.hashed.startswith(b"\x89PNG")
    assert crop.code != whole.code
    for coded in (whole, crop):
        again = vision.code([coded.hashed], NOTHING, StageTimes())[0]
        assert isinstance(again, CodedPicture)
        assert again.code == coded.code


def test_nothing_is_kept_unless_asked(vision: Vision, photo_files: dict[str, bytes]) -> None:
    for options in (NOTHING, EVERYTHING):
        coded = vision.code([photo_files["rocket"]], options, StageTimes())[0]
        assert isinstance(coded, CodedPicture)
        assert coded.hashed == b""


def test_no_pictures(vision: Vision) -> None:
    assert vision.code([], NOTHING, StageTimes()) == []


def test_clones_work_at_the_same_time(vision: Vision, photo_files: dict[str, bytes]) -> None:
    expected = {name: vision.find(file, EVERYTHING, StageTimes())[1] for name, file in photo_files.items()}
    wrong: list[str] = []

    def work(own: Vision) -> None:
        for name, file in list(photo_files.items()) * 3:
            codes = own.find(file, EVERYTHING, StageTimes())[1]
            if np.unpackbits(codes ^ expected[name], axis=1).sum(axis=1).max() > vision.bits // 64:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(vision.clone(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
