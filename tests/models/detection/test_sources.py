"""Photos with boxes and scenes as sources, and the views of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from models.training.data.errors import DatasetError
from models.training.detection.config import BoxPhotos, ComposedScenes
from models.training.detection.sources import objects_of, open_source, read_boxes, shares
from models.training.detection.views import Sample, blurred, lit, mirrored, padded, placed, resized


def photos(folder: Path) -> BoxPhotos:
    return BoxPhotos(folder / "boxes.jsonl", folder)


def marked(box: tuple[int, int, int, int], height: int = 100, width: int = 150) -> Sample:
    """A grey picture whose one object is red."""
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
    return Sample(picture, np.float32([[*box, 1]]), np.zeros((0, 4), np.float32))


def red_box(picture: np.ndarray) -> list[int]:
    rows, columns = np.nonzero((picture[..., 0] > 170) & (picture[..., 1] < 60))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_stay_on_their_objects() -> None:
    """Whatever is done to the picture, the box is where the red is."""
    rng = np.random.default_rng(0)
    sample = marked((40, 20, 100, 80))
    views = [mirrored(sample), resized(sample, 64, 128), padded(rng, sample), blurred(rng, sample)]
    views += [view for view in (placed(rng, sample, 96, 96) for _ in range(30)) if len(view.objects)]
    assert len(views) > 20
    for view in views:
        np.testing.assert_allclose(view.objects[0, :4], red_box(view.picture), atol=3)


def test_what_leaves_the_picture_is_an_object_no_more() -> None:
    rng = np.random.default_rng(1)
    lost = 0
    for _ in range(80):
        view = placed(rng, marked((0, 0, 30, 100)), 96, 96)
        assert len(view.objects) + len(view.ignored) <= 1
        lost += not len(view.objects)
        assert ((view.objects[:, 4] >= 0.5) & (view.objects[:, 4] <= 1)).all()
    assert lost > 0


def test_light_changes_pixels_within_their_range() -> None:
    pixels = [lit(np.random.default_rng(seed), marked((40, 20, 100, 80)).picture) for seed in range(20)]
    assert all(each.dtype == np.float32 and each.min() >= 0 and each.max() <= 255 for each in pixels)
    assert np.std([each.mean() for each in pixels]) > 5


def test_a_teachers_boxes_are_parted_by_their_scores() -> None:
    rows = np.float32(
        [[0, 0, 50, 50, 0.9], [10, 10, 30, 30, 0.8], [60, 0, 90, 50, 0.5], [0, 60, 20, 90, 0.3], [50, 60, 90, 90, 0.1]]
    )
    objects, ignored = objects_of(rows[::-1], 0.42, 0.2)
    np.testing.assert_array_equal(objects, rows[[0, 2], :4])
    np.testing.assert_array_equal(ignored, rows[[1, 3], :4])


def test_a_box_around_several_is_a_group() -> None:
    members = [[0, 0, 48, 100, 0.5], [52, 0, 100, 100, 0.3]]
    rows = np.float32([[0, 0, 100, 100, 0.9], *members])
    objects, ignored = objects_of(rows, 0.42, 0.2)
    np.testing.assert_array_equal(objects, rows[[1], :4])
    np.testing.assert_array_equal(ignored, rows[[0, 2], :4])
    # One member, or two that are nearly the same, or small ones: the whole is the object.
    for parts in ([members[0]], [members[0], [2, 0, 50, 100, 0.4]], [[0, 0, 20, 20, 0.5], [50, 0, 70, 20, 0.5]]):
        objects, _ = objects_of(np.float32([rows[0], *parts]), 0.42, 0.2)
        np.testing.assert_array_equal(objects, rows[[0], :4])


def test_sources_draw_by_the_seed(pictures: Path) -> None:
    for config in (photos(pictures), ComposedScenes(pictures / "cutouts", pictures / "photos.txt")):
        first, second = open_source(config), open_source(config)
        one, other = (source.draw(np.random.default_rng(3), 64, 128) for source in (first, second))
        assert one.picture.shape == (64, 128, 3)
        np.testing.assert_array_equal(one.picture, other.picture)
        np.testing.assert_array_equal(one.objects, other.objects)


def test_large_photos_are_kept_small_with_their_boxes(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.zeros((1000, 640, 3), np.uint8)).save(tmp_path / "large.png")
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "large.png", "boxes": [[100, 200, 300, 800]]}), "utf-8")
    (sample,) = open_source(photos(tmp_path))._samples
    assert max(sample.picture.shape) == 320
    np.testing.assert_allclose(sample.objects, [[32, 64, 96, 256, 1]], atol=0.5)


def test_shares_add_up() -> None:
    paths = Path("a"), Path("b")
    assert shares([BoxPhotos(*paths, share=1), ComposedScenes(*paths, share=3)]) == [0.25, 0.75]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "must be"),
        ("[]", "must be"),
        ('{"image": "0.png"}', "must be"),
        ('{"image": "0.png", "boxes": [[1, 2, 3]]}', "x1 < x2"),
        ('{"image": "0.png", "boxes": [[5, 2, 3, 9]]}', "x1 < x2"),
        ('{"image": "0.png", "boxes": [[1, 2, "a", 9]]}', "must be"),
        ('{"image": "0.png", "boxes": [[1, 2, NaN, 9]]}', "x1 < x2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = '{"image": "0.png", "boxes": []}\n\n'
    (tmp_path / "boxes.jsonl").write_text(good + line, "utf-8")
    with pytest.raises(DatasetError, match=rf"boxes\.jsonl:3: .*{message}"):
        read_boxes(photos(tmp_path))


def test_what_is_missing_is_named(pictures: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "boxes.jsonl").write_text("\n", "utf-8")
    with pytest.raises(DatasetError, match="has no pictures"):
        open_source(photos(empty))
    with pytest.raises(DatasetError, match="cannot be read"):
        open_source(photos(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="no folders with cutouts"):
        open_source(ComposedScenes(empty, pictures / "photos.txt"))
    (pictures / "none.txt").write_text("\n", "utf-8")
    with pytest.raises(DatasetError, match="names no photo"):
        open_source(ComposedScenes(pictures / "cutouts", pictures / "none.txt"))
    PIL.Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(pictures / "cutouts" / "tall" / "2.png")
    with pytest.raises(DatasetError, match=r"tall/2\.png has no alpha channel"):
        open_source(ComposedScenes(pictures / "cutouts", pictures / "photos.txt"))
    (pictures / "cutouts" / "tall" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"tall/2\.png cannot be decoded"):
        open_source(ComposedScenes(pictures / "cutouts", pictures / "photos.txt"))
