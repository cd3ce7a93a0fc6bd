"""The drawn sample gallery: distinct, the same at every run, and in view where the shelf says it is."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from service.demo.gallery import gallery_photos, held_out_photo
from service.demo.packs import Pack, packs
from service.demo.shelf import ShelfPhoto, sample_boards, shelf_photo
from service.images import encode_jpeg


@pytest.fixture(scope="module")
def products() -> list[Pack]:
    return packs()


@pytest.fixture(scope="module")
def shelf(products: list[Pack]) -> ShelfPhoto:
    return shelf_photo(sample_boards(products))


def test_there_are_enough_products_of_many_forms_with_labels_of_their_own(products: list[Pack]) -> None:
    assert len(products) >= 24
    assert len({product.label for product in products}) == len(products)
    assert len({product.form for product in products}) >= 12


def test_no_two_products_look_alike(products: list[Pack]) -> None:
    """Small grey thumbnails of the fronts, stretched to one size, differ by more than light and noise would."""
    thumbnails = []
    for product in products:
        drawn = product.draw(4.0, 0.0, 5.0)
        on_grey = np.where(drawn[..., 3:] > 127, drawn[..., :3], 128).astype(np.uint8)
        thumbnails.append(cv2.resize(on_grey, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64))
    apart = [np.abs(a - b).mean() for a, b in itertools.combinations(thumbnails, 2)]
    assert min(apart) > 12.0


def test_a_pack_fills_its_picture_and_has_a_soft_outline(products: list[Pack]) -> None:
    for product in products:
        drawn = product.draw(6.0, -20.0, 10.0)
        assert drawn.dtype == np.uint8
        assert drawn.shape[2] == 4
        covered = drawn[..., 3] > 127
        assert covered.mean() > 0.4
        assert all(edge.any() for edge in (covered[:2], covered[-2:], covered[:, :2], covered[:, -2:]))


def test_turning_a_pack_changes_what_is_seen(products: list[Pack]) -> None:
    for product in products:
        left, right = (cv2.resize(product.draw(6.0, yaw, 8.0)[..., :3], (64, 64)).astype(float) for yaw in (-25, 25))
        assert np.abs(left - right).mean() > 3.0


def test_pictures_are_the_same_at_every_run(products: list[Pack]) -> None:
    again = packs()
    for first, second in zip(products[::6], again[::6], strict=True):
        pairs = zip(
            [*gallery_photos(first), held_out_photo(first)],
            [*gallery_photos(second), held_out_photo(second)],
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_array_equal(a.picture, b.picture)


def test_the_held_out_photo_is_none_of_the_gallery(products: list[Pack]) -> None:
    for product in products[::5]:
        held_out = held_out_photo(product).picture.astype(float)
        for photo in gallery_photos(product):
            assert np.abs(photo.picture.astype(float) - held_out).mean() > 10.0


def test_the_shelf_photo_is_deterministic_and_holds_every_pack(products: list[Pack], shelf: ShelfPhoto) -> None:
    again = shelf_photo(sample_boards(products))
    np.testing.assert_array_equal(shelf.picture, again.picture)
    np.testing.assert_array_equal(shelf.boxes, again.boxes)
    assert shelf.labels == [pack.label for board in sample_boards(products) for pack in board]
    assert len(shelf.labels) >= 12
    height, width = shelf.picture.shape[:2]
    x0, y0, x1, y1 = shelf.boxes.T
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= width).all() and (y1 <= height).all()
    assert ((x1 - x0) >= 40).all() and ((y1 - y0) >= 40).all()


def test_each_shelf_box_holds_its_own_pack(products: list[Pack], shelf: ShelfPhoto) -> None:
    """The colours in a box resemble the pack that it names more than nearly every other pack on the shelf."""
    fronts = {product.label: product.draw(5.0, -6.0, 5.0) for product in products}
    ranks = []
    for index, label in enumerate(shelf.labels):
        x0, y0, x1, y1 = shelf.boxes[index]
        crop = cv2.resize(shelf.picture[y0:y1, x0:x1], (12, 18), interpolation=cv2.INTER_AREA).astype(float)
        gaps = {}
        for other in shelf.labels:
            drawn = fronts[other]
            on_wall = np.where(drawn[..., 3:] > 127, drawn[..., :3], np.uint8(170))
            gaps[other] = np.abs(cv2.resize(on_wall, (12, 18), interpolation=cv2.INTER_AREA) - crop).mean()
        ranks.append(sorted(gaps, key=gaps.__getitem__).index(label))
    assert np.mean(np.array(ranks) == 0) > 0.8


def test_a_cut_is_square_and_holds_the_whole_box(shelf: ShelfPhoto) -> None:
    marked = ShelfPhoto(np.zeros_like(shelf.picture), shelf.boxes, shelf.labels)
    height, width = marked.picture.shape[:2]
    for index, (x0, y0, x1, y1) in enumerate(shelf.boxes):
        marked.picture[:] = 0
        marked.picture[y0:y1, x0:x1] = 255
        cut = marked.crop(index)
        assert (cut[..., 0] == 255).sum() == (x1 - x0) * (y1 - y0)
        reach = max(x1 - x0, y1 - y0)
        inside = reach < min((x0 + x1) // 2, (y0 + y1) // 2, width - x1, height - y1)
        assert not inside or cut.shape[0] == cut.shape[1]
        assert max(cut.shape[:2]) < 1.2 * reach


def test_a_shelf_of_other_packs_or_another_seed_is_another_picture(products: list[Pack], shelf: ShelfPhoto) -> None:
    small = shelf_photo([products[:3]], seed=1)
    other = shelf_photo([products[:3]], seed=2)
    assert small.picture.shape != shelf.picture.shape
    assert small.picture.shape != other.picture.shape or (small.picture != other.picture).any()


def test_pictures_travel_as_jpeg(products: list[Pack]) -> None:
    photo = held_out_photo(products[0])
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(photo.picture), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert decoded.shape == photo.picture.shape
    assert np.abs(decoded.astype(float) - photo.picture).mean() < 6.0
