"""Cutouts, and the scenes that are made of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from models.training.detection.cutouts import cut_from_white, cut_out
from models.training.detection.scenes import Scene, SceneMaker, printed_pack

HEIGHT, WIDTH = 120, 160


def solid(height: int, width: int, colour: tuple[int, int, int] = (200, 30, 30)) -> np.ndarray:
    cutout = np.full((height, width, 4), 255, np.uint8)
    cutout[..., :3] = colour
    return cutout


def shift(x: float, y: float) -> np.ndarray:
    return np.float64([[1, 0, x], [0, 1, y]])


@pytest.fixture
def scene() -> Scene:
    return Scene(np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_an_object_has_the_box_it_was_laid_into(scene: Scene) -> None:
    scene.lay(solid(40, 20), shift(30, 50))
    objects, ignored = scene.boxes()
    np.testing.assert_array_equal(objects, [[30, 50, 50, 90, 1]])
    assert len(ignored) == 0
    assert scene.picture[70, 40].tolist() == [200, 30, 30]
    assert scene.picture[20, 20].tolist() == [0, 0, 0]


def test_what_is_hidden_is_no_part_of_a_box(scene: Scene) -> None:
    """The second covers the right 40 % of the first, the third all but a fifth of the second."""
    scene.lay(solid(40, 50), shift(10, 10))
    scene.lay(solid(40, 50), shift(40, 10))
    scene.lay(solid(40, 50), shift(50, 10))
    objects, ignored = scene.boxes()
    np.testing.assert_allclose(objects, [[10, 10, 40, 50, 0.6], [50, 10, 100, 50, 1]], rtol=1e-6)
    np.testing.assert_array_equal(ignored, [[40, 10, 50, 50]])


def test_what_lies_outside_counts_as_hidden(scene: Scene) -> None:
    scene.lay(solid(40, 40), shift(WIDTH - 30, 0))
    scene.lay(solid(40, 40), shift(-28, 60))
    scene.lay(solid(40, 40), shift(500, 60))
    objects, ignored = scene.boxes()
    np.testing.assert_array_equal(objects, [[WIDTH - 30, 0, WIDTH, 40, 0.75]])
    np.testing.assert_array_equal(ignored, [[0, 60, 12, 100]])


def test_a_backdrop_hides_but_is_no_object(scene: Scene) -> None:
    scene.lay(solid(40, 40), shift(10, 10))
    scene.lay(solid(40, 10), shift(10, 10), counts=False)
    objects, _ = scene.boxes()
    np.testing.assert_array_equal(objects, [[20, 10, 50, 50, 0.75]])


def test_a_smaller_object_keeps_its_place(scene: Scene) -> None:
    scene.lay(solid(200, 100), np.float64([[0.2, 0, 40], [0, 0.2, 60]]))
    objects, _ = scene.boxes()
    np.testing.assert_allclose(objects[:, :4], [[40, 60, 60, 100]], atol=1)
    assert objects[0, 4] == pytest.approx(1.0, abs=0.1)


def maker() -> SceneMaker:
    return SceneMaker(
        [[solid(90, 40), solid(60, 60)], [solid(40, 90, (20, 200, 40))]], [data.astronaut(), data.coffee()]
    )


def test_scenes_have_objects_inside_of_the_picture() -> None:
    scenes = maker()
    counts = []
    for seed in range(60):
        picture, objects, ignored = scenes.make(np.random.default_rng(seed), HEIGHT, WIDTH)
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert picture.dtype == np.uint8
        assert objects.shape[1:] == (5,)
        assert ignored.shape[1:] == (4,)
        assert ((objects[:, 4] >= 0.5) & (objects[:, 4] <= 1)).all()
        for boxes in (objects, ignored):
            assert boxes.dtype == np.float32
            assert (boxes >= 0).all()
            assert (boxes[:, 2:4] <= [WIDTH, HEIGHT]).all()
            assert (boxes[:, 2:4] > boxes[:, :2]).all()
        counts.append(len(objects))
    assert np.mean(np.array(counts) > 0) > 0.9
    assert max(counts) >= 4


def test_a_scene_depends_on_the_seed_alone() -> None:
    first, second = (
        maker().make(np.random.default_rng(5), HEIGHT, WIDTH),
        maker().make(np.random.default_rng(5), HEIGHT, WIDTH),
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    other_picture, *_ = maker().make(np.random.default_rng(6), HEIGHT, WIDTH)
    assert not np.array_equal(first[0], other_picture)


def test_packs_come_in_many_shapes() -> None:
    packs = [printed_pack(np.random.default_rng(seed), data.coffee(), data.astronaut()) for seed in range(40)]
    assert all(pack.shape[0] == 256 and pack.shape[2] == 4 for pack in packs)
    ratios = [pack.shape[1] / 256 for pack in packs]
    assert min(ratios) < 0.5 < 1.0 < max(ratios)
    filled = [(pack[..., 3] > 127).mean() for pack in packs]
    assert min(filled) < 0.9
    assert max(filled) > 0.98


def photo_of_a_disc() -> np.ndarray:
    rng = np.random.default_rng(0)
    photo = (rng.normal(70, 6, (200, 260, 1)) + np.zeros(3)).clip(0, 255).astype(np.uint8)
    cv2.circle(photo, (130, 100), 50, (210, 60, 40), cv2.FILLED)
    return photo


def test_an_object_is_cut_out_along_its_outline() -> None:
    cutout = cut_out(photo_of_a_disc(), (78, 48, 182, 152))
    assert cutout is not None
    assert cutout.shape[:2] == pytest.approx((101, 101), abs=4)
    assert (cutout[..., 3] > 127).sum() == pytest.approx(np.pi * 50**2, rel=0.06)
    assert cutout[0, 0, 3] == 0
    assert cutout[50, 50].tolist() == [210, 60, 40, 255]


def test_what_has_no_outline_is_not_cut_out() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (100, 100, 3)).astype(np.uint8)
    assert cut_out(noise, (10, 10, 90, 90)) is None
    assert cut_out(photo_of_a_disc(), (3, 3, 12, 9)) is None
    assert cut_out(photo_of_a_disc(), (300, 300, 400, 400)) is None


def test_pack_shots_are_cut_from_white_with_the_white_inside() -> None:
    shot = np.full((150, 150, 3), 255, np.uint8)
    shot[20:140, 30:110] = (30, 90, 160)
    shot[60:80, 60:90] = 255
    cutout = cut_from_white(shot)
    assert cutout is not None
    assert cutout.shape[:2] == (120, 80)
    assert cutout[50, 40].tolist() == [255, 255, 255, 255]
    assert cut_from_white(data.coffee()) is None
    assert cut_from_white(np.full((90, 90, 3), 255, np.uint8)) is None
