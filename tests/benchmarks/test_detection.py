"""What the benchmarks of detection are made of: fixed boxes, labels of the shelf photos, shots, scenes, skipping."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.training.detection.boxes import overlaps


def test_the_grid_has_every_box_with_corners_on_it() -> None:
    from common.fixed_boxes import box_grid, scaled

    expected = [box for box in product(range(4), repeat=4) if box[0] < box[2] and box[1] < box[3]]
    grid = box_grid(3)
    assert sorted((grid * 3).round().astype(int).tolist()) == sorted(map(list, expected))
    np.testing.assert_allclose(scaled(np.float32([[0, 0.5, 1, 1]]), 40, 60), [[0, 20, 60, 40]])


def test_fixed_boxes_are_the_best_that_plain_loops_find() -> None:
    from common.fixed_boxes import box_grid, greedy_cover, hits, scaled

    rng = np.random.default_rng(4)
    corners = rng.integers(0, 40, (25, 2, 2))
    photos = [
        np.concatenate([each, each + rng.integers(10, 60, (2, 2))], axis=1).astype(np.float32) for each in corners
    ]
    grid = scaled(box_grid(4), 100, 100)
    chosen = greedy_cover(np.stack([hits(grid, objects) for objects in photos]), 3)
    covered: set[int] = set()
    for best in chosen:
        gains = [
            sum(number not in covered and _is_hit(box, objects) for number, objects in enumerate(photos))
            for box in grid
        ]
        assert best == gains.index(max(gains))
        covered |= {number for number, objects in enumerate(photos) if _is_hit(grid[best], objects)}


def _is_hit(box: np.ndarray, objects: np.ndarray) -> bool:
    for x1, y1, x2, y2 in objects.tolist():
        width, height = min(box[2], x2) - max(box[0], x1), min(box[3], y2) - max(box[1], y1)
        shared = max(0.0, width) * max(0.0, height)
        if shared / ((box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - shared) >= 0.5:
            return True
    return False


def test_every_shelf_photo_has_a_product_of_the_gallery(shared: Path) -> None:
    from common.datasets import drink, drink_names, drink_shelf

    data = shared / "data"
    photos = drink_shelf(data)
    assert {photo.path for photo in photos} == {path.name for path in (data / "drink" / "test_images").iterdir()}
    assert len(photos) == 13
    names = drink_names(data)
    assert {photo.label for photo in photos} <= {names[photo.label] for photo in drink(data)}


def test_a_crop_is_of_the_same_shot_and_another_photo_of_the_pack_is_not() -> None:
    from common.datasets import Photo
    from common.shots import same_shot

    rng = np.random.default_rng(5)
    pack, wall, light = (_blots(rng, side) for side in (160, 320, 4))

    def as_photo(picture: np.ndarray) -> Photo:
        return Photo("", "", cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())

    shot = wall.copy()
    shot[80:240, 80:240] = pack
    crop = cv2.resize(shot[60:260, 70:250], None, fx=1.3, fy=1.3)
    shade = cv2.resize(light, (160, 160), interpolation=cv2.INTER_CUBIC)
    other = cv2.flip(wall, 1)
    other[40:200, 120:280] = cv2.addWeighted(pack, 0.5, shade, 0.5, 0)
    assert same_shot(as_photo(crop), as_photo(shot))
    assert same_shot(as_photo(shot), as_photo(crop))
    assert not same_shot(as_photo(other), as_photo(shot))
    assert not same_shot(as_photo(wall), as_photo(np.full_like(shot, 128)))


def _blots(rng: np.random.Generator, side: int) -> np.ndarray:
    return cv2.resize(rng.integers(0, 256, (max(2, side // 8), max(2, side // 8), 3), dtype=np.uint8), (side, side))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_scenes_show_every_product_inside_and_are_the_same_again(count: int) -> None:
    from common.drink_scenes import SIDE, compose

    rng = np.random.default_rng(6)
    cutouts = [
        np.dstack([_blots(rng, 200)[:, :width], np.full((200, width), 255, np.uint8)]) for width in (60, 90, 120, 200)
    ]
    background = np.zeros((90, 130, 3), np.uint8)
    for seed in range(5):
        picture, boxes = compose(np.random.default_rng(seed), cutouts[:count], background)
        assert picture.shape == (SIDE, SIDE, 3)
        assert boxes.shape == (count, 4)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= SIDE).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= SIDE / 20).all()
        assert (np.diff(boxes[:, 0] + boxes[:, 2]) > 0).all()  # in the order of the cutouts
        again, same = compose(np.random.default_rng(seed), cutouts[:count], background)
        np.testing.assert_array_equal(again, picture)
        np.testing.assert_array_equal(same, boxes)


def test_more_cutouts_than_fit_are_refused() -> None:
    from common.drink_scenes import compose

    square = np.full((40, 40, 4), 255, np.uint8)
    with pytest.raises(ValueError, match="30 cutouts were not all seen"):
        compose(np.random.default_rng(0), [square] * 30, np.zeros((90, 130, 3), np.uint8))


def test_without_a_bundled_detector_a_benchmark_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from common import detectors

    assert detectors.chosen_folder(tmp_path) == tmp_path
    monkeypatch.setattr(detectors, "STARTER_DETECTOR", tmp_path / "nowhere")
    with pytest.raises(SystemExit) as ended:
        detectors.chosen_folder(None)
    assert ended.value.code == 0
    assert "--detector" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        detectors.load(tmp_path / "nowhere")
    assert ended.value.code == 1


def test_the_coco_detector_finds_the_published_boxes(shared: Path, tmp_path: Path) -> None:
    from common.datasets import drink_shelf
    from common.detectors import COCO_WEIGHTS, CocoDetector, export_coco

    data = shared / "data"
    detector = CocoDetector.load(export_coco(data / COCO_WEIGHTS, tmp_path), threads=1)
    photo = next(photo for photo in drink_shelf(data) if photo.path == "001.jpeg")
    found = detector.detect(photo.rgb(), 0.1, 20)
    with np.load(data / "pretrained" / "picodet_s_416_reference.npz") as reference:
        published = reference["photo_001_boxes"][:6]
    # Resized by another library: the same boxes, a few pixels off.
    shared_area = overlaps(published[:, :4], found[:, :4])
    assert (shared_area.max(axis=1) > 0.8).all()
    np.testing.assert_allclose(found[shared_area.argmax(axis=1), 4], published[:, 4], atol=0.03)
