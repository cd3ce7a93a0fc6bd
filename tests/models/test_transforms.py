"""The operators of ``transform_ops``, against the reference's tensors and against plain code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from models.inference import RECOGNITION, Preprocessing
from models.training.config import ConfigError
from models.training.data.augment import random_view
from models.training.data.datasets import DatasetError
from models.training.data.operators import OPS
from models.training.data.transforms import Transforms

NORMALIZE: dict[str, Any] = {
    "NormalizeImage": {
        "scale": "1.0/255.0",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "order": "",
    }
}
PLAIN: dict[str, Any] = {"NormalizeImage": {"scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1], "order": ""}}
DECODE: dict[str, Any] = {"DecodeImage": {"to_rgb": True, "channel_first": False, "to_np": False}}
PHOTO = skimage.data.astronaut()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(tensor: np.ndarray) -> np.ndarray:
    """Back from CHW without normalization to RGB uint8 (H, W, 3)."""
    assert tensor.dtype == np.float32
    return tensor.transpose(1, 2, 0).astype(np.uint8)


def test_evaluation_equals_the_reference(shared: Path) -> None:
    photo = np.array(Image.open(shared / "data" / "drink" / "test_images" / "001.jpeg").convert("RGB"))
    transforms = Transforms.from_ops([DECODE, {"ResizeImage": {"size": 224}}, NORMALIZE, {"ToCHWImage": None}])
    golden = np.load(shared / "parity" / "preprocess.npz")["rec"]
    assert transforms.preprocessing == RECOGNITION
    assert not transforms.is_random
    for source in (None, rng()):
        np.testing.assert_allclose(transforms(photo, source), golden, atol=1e-5)


def test_training_of_the_reference_is_served_without_its_randomness() -> None:
    transforms = Transforms.from_ops(
        [DECODE, {"RandCropImage": {"size": 224}}, {"RandFlipImage": {"flip_code": 1}}, NORMALIZE]
    )
    assert transforms.preprocessing == RECOGNITION
    assert transforms.size == (224, 224)
    assert transforms.is_random
    np.testing.assert_array_equal(transforms(PHOTO), RECOGNITION(PHOTO))
    drawn = transforms(PHOTO, rng())
    assert drawn.shape == (3, 224, 224)
    assert not np.allclose(drawn, RECOGNITION(PHOTO))
    np.testing.assert_array_equal(drawn, transforms(PHOTO, rng()))


def test_what_comes_before_a_random_crop_is_not_served() -> None:
    ops = [{"ResizeImage": {"resize_short": 300}}, {"RandCropImage": {"size": [40, 50], "interpolation": "bicubic"}}]
    transforms = Transforms.from_ops([*ops, {"CropImage": {"size": 32}}, NORMALIZE])
    assert transforms.preprocessing == Preprocessing(size=(40, 50), crop=(32, 32), interpolation=cv2.INTER_CUBIC)
    assert transforms(PHOTO, rng()).shape == (3, 32, 32)


def test_short_side_crop_and_flip_follow_the_formula() -> None:
    transforms = Transforms.from_ops(
        [{"ResizeImage": {"resize_short": 96}}, {"CropImage": {"size": 64}}, {"RandFlipImage": {}}, NORMALIZE]
    )
    photo = PHOTO[:300]  # 300 x 512
    small = cv2.resize(photo, (round(512 * 96 / 300), 96), interpolation=cv2.INTER_LINEAR)
    left = (small.shape[1] - 64) // 2
    crop = small[16:80, left : left + 64]
    expected = ((crop / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    np.testing.assert_allclose(transforms(photo), expected, atol=1e-5)
    seen = set()
    for seed in range(20):
        view = transforms(photo, rng(seed))
        flipped = not np.allclose(view, expected, atol=1e-5)
        np.testing.assert_allclose(view[:, :, ::-1] if flipped else view, expected, atol=1e-5)
        seen.add(flipped)
    assert seen == {True, False}


@pytest.mark.parametrize(("code", "slices"), [(1, np.s_[:, ::-1]), (0, np.s_[::-1]), (-1, np.s_[::-1, ::-1])])
def test_every_other_picture_is_flipped(code: int, slices: Any) -> None:
    photo = PHOTO[:20, :30]
    ops = [{"ResizeImage": {"size": [20, 30]}}, {"RandFlipImage": {"flip_code": code}}, PLAIN]
    transforms = Transforms.from_ops(ops)
    flips = 0
    for seed in range(400):
        view = pixels(transforms(photo, rng(seed)))
        if not np.array_equal(view, photo):
            np.testing.assert_array_equal(view, photo[slices])
            flips += 1
    assert abs(flips - 200) < 5 * 10  # five standard deviations


def test_a_flip_before_an_uneven_crop_comes_before_it() -> None:
    photo = PHOTO[:9, :10]
    transforms = Transforms.from_ops([{"RandFlipImage": {}}, {"CropImage": {"size": [9, 7]}}, PLAIN])
    views = {pixels(transforms(photo, rng(seed))).tobytes() for seed in range(20)}
    assert views == {photo[:, 1:8].tobytes(), photo[:, ::-1][:, 1:8].tobytes()}


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose red is the row and whose green is the column."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 0] = np.arange(height)[:, None]
    picture[:, :, 1] = np.arange(width)[None, :]
    return picture


def crops(ops: dict[str, Any], height: int, width: int, count: int) -> np.ndarray:
    """Rectangles (top, left, height, width) that were cut, read off the pixels; enlarged by nearest neighbours."""
    transforms = Transforms.from_ops([{"RandCropImage": ops | {"size": 512, "interpolation": "nearest"}}, PLAIN])
    picture = coordinates(height, width)
    found = []
    for seed in range(count):
        view = pixels(transforms(picture, rng(seed)))
        (top, left), (bottom, right) = view[0, 0, :2].astype(int), view[-1, -1, :2].astype(int)
        found.append((top, left, bottom - top + 1, right - left + 1))
    return np.array(found)


def test_random_crops_draw_area_ratio_and_place() -> None:
    found = crops({}, 200, 200, 600)
    top, left, height, width = found.T
    area, ratio = height * width / 200**2, width / height
    assert (top + height).max() <= 200
    assert (left + width).max() <= 200
    # Sides are cut to whole pixels: 56 at the least.
    assert 0.078 < area.min() < 0.12
    assert area.max() > 0.9
    assert 0.74 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.36
    # The ratio is uniform, the area uniform below what fits, the place uniform in what is left.
    bound = np.minimum(ratio, 1 / ratio)
    for share in (
        (ratio - 3 / 4) / (4 / 3 - 3 / 4),
        (area - 0.08) / (bound - 0.08),
        (top / (201 - height)),
        left / (201 - width),
    ):
        histogram, _ = np.histogram(np.clip(share, 0, 1), bins=5, range=(0, 1))
        assert abs(histogram - 120).max() < 5 * np.sqrt(600 * 0.2 * 0.8)


@pytest.mark.parametrize(("height", "width"), [(30, 200), (200, 30), (1, 1), (1, 100), (3, 2)])
def test_random_crops_of_long_and_tiny_pictures_fit(height: int, width: int) -> None:
    for top, left, down, across in crops({}, height, width, 60).tolist():
        assert 0 <= top <= height - down
        assert 0 <= left <= width - across
        assert down >= 1
        assert across >= 1


def test_scale_and_ratio_are_taken() -> None:
    found = crops({"scale": [0.25, 0.25], "ratio": [1.0, 1.0]}, 200, 200, 20)
    assert (found[:, 2:] == 100).all()
    found = crops({"scale": [0.5, 0.5], "ratio": ["1.0/2.0", "1.0/2.0"]}, 200, 200, 20)
    assert (found[:, 2:] == (200, 100)).all()


def test_random_view_is_ours(tmp_path: Path) -> None:
    for name, part in (("a.png", PHOTO[:60, :60]), ("b.png", PHOTO[100:180, 100:180])):
        Image.fromarray(part).save(tmp_path / name)
    (tmp_path / "backgrounds.txt").write_text("a.png\nb.png\n", "utf-8")
    ops = {"size": 48, "strength": 0.7, "backgrounds": str(tmp_path / "backgrounds.txt")}
    transforms = Transforms.from_ops([{"RandomView": ops}, NORMALIZE])
    assert transforms.preprocessing == Preprocessing(size=(48, 48))
    white = np.full((80, 80, 3), 255, np.uint8)
    white[20:60, 20:60] = PHOTO[200:240, 200:240]
    backgrounds = [PHOTO[:60, :60], PHOTO[100:180, 100:180]]
    for seed in range(6):
        expected = transforms.preprocessing(random_view(white, 48, rng(seed), backgrounds, 0.7))
        np.testing.assert_array_equal(transforms(white, rng(seed)), expected)
    plain = Transforms.from_ops([{"RandomView": {"size": 48, "backgrounds": None}}, NORMALIZE])
    np.testing.assert_array_equal(plain(PHOTO, rng()), plain.preprocessing(random_view(PHOTO, 48, rng())))


def test_backgrounds_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "backgrounds.txt"
    op = {"RandomView": {"size": 48, "backgrounds": str(path)}}
    with pytest.raises(DatasetError, match=r"backgrounds\.txt"):
        Transforms.from_ops([op, NORMALIZE])
    path.write_text("a.png\n", "utf-8")
    with pytest.raises(DatasetError, match=r"backgrounds\.txt:1: a\.png"):
        Transforms.from_ops([op, NORMALIZE])


def test_takes_read_only_pictures_and_leaves_them() -> None:
    ops = [{"RandomView": {"size": 48}}, {"RandCropImage": {"size": 32}}, {"RandFlipImage": {}}, NORMALIZE]
    photo = PHOTO[:90, :80].copy()
    photo.setflags(write=False)
    for seed in range(20):
        Transforms.from_ops(ops)(photo, rng(seed))
    np.testing.assert_array_equal(photo, PHOTO[:90, :80])


RESIZE: dict[str, Any] = {"ResizeImage": {"size": 32}}


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([{"RandomErasing": {}}, RESIZE, NORMALIZE], f"'RandomErasing'; there are {', '.join(OPS)}"),
        ([{"ResizeImage": {"size": 32, "sizes": 3}}, NORMALIZE], "ResizeImage: unknown key.*sizes.*resize_short"),
        ([{"ToCHWImage": {"order": 3}}, RESIZE, NORMALIZE], "ToCHWImage: unknown key.*order.*none"),
        ([{"DecodeImage": {"to_rgb": False}}, RESIZE, NORMALIZE], "DecodeImage: to_rgb"),
        ([{"DecodeImage": {"channel_first": True}}, RESIZE, NORMALIZE], "DecodeImage: channel_first"),
        ([RESIZE, DECODE, NORMALIZE], "DecodeImage must be the first"),
        ([{"ResizeImage": {"size": 0}}, NORMALIZE], "ResizeImage: size must be a positive"),
        ([{"ResizeImage": {}}, NORMALIZE], "ResizeImage: give either size"),
        ([{"ResizeImage": {"size": 32, "backend": "pil"}}, NORMALIZE], "ResizeImage: backend must be cv2.*'pil'"),
        ([{"ResizeImage": {"size": 32, "interpolation": "random"}}, NORMALIZE], "ResizeImage: interpolation"),
        ([{"ResizeImage": {"resize_short": 32}}, NORMALIZE], "CropImage"),
        ([{"RandCropImage": {}}, NORMALIZE], "RandCropImage: size is missing"),
        ([{"RandCropImage": {"size": "big"}}, NORMALIZE], "RandCropImage: size must"),
        ([{"RandCropImage": {"size": 32, "scale": 0.5}}, NORMALIZE], "RandCropImage: scale must be two numbers"),
        ([{"RandCropImage": {"size": 32, "scale": [0.5, 1.5]}}, NORMALIZE], "RandCropImage: scale must not be above 1"),
        ([{"RandCropImage": {"size": 32, "scale": [0.5, "all"]}}, NORMALIZE], "RandCropImage: scale: 'all'"),
        (
            [{"RandCropImage": {"size": 32, "ratio": [2, 1]}}, NORMALIZE],
            "RandCropImage: ratio must be positive and rise",
        ),
        ([{"RandCropImage": {"size": 32, "backend": "pil"}}, NORMALIZE], "RandCropImage: backend"),
        ([RESIZE, {"RandFlipImage": {"flip_code": 2}}, NORMALIZE], "RandFlipImage: flip_code must be 1, 0 or -1"),
        ([{"RandomView": {"size": [32, 48]}}, NORMALIZE], "RandomView: size must be square"),
        ([{"RandomView": {"size": 32, "strength": 2}}, NORMALIZE], "RandomView: strength must be from 0 to 1"),
        ([RESIZE], "NormalizeImage .* must be there once"),
        ([RESIZE, NORMALIZE, NORMALIZE], "NormalizeImage .* must be there once"),
        ([NORMALIZE, RESIZE], "after NormalizeImage only ToCHWImage may come, not ResizeImage"),
        ([{"ToCHWImage": None}, RESIZE, NORMALIZE], "ToCHWImage must be the last"),
        ([RESIZE, {"NormalizeImage": {"std": [1, 0, 1]}}], "NormalizeImage: std must be positive"),
        ([RESIZE, RESIZE, NORMALIZE], "one ResizeImage.*here it is ResizeImage, ResizeImage"),
        ([{"CropImage": {"size": 8}}, RESIZE, NORMALIZE], "here it is CropImage, ResizeImage"),
        ([NORMALIZE], "here it is neither"),
        ([], "NormalizeImage"),
        (["ResizeImage"], "a map with one key"),
        ([{"ResizeImage": 32}, NORMALIZE], "ResizeImage: its arguments must be a map"),
        ([RESIZE | NORMALIZE], "a map with one key"),
    ],
)
def test_refuses_what_it_cannot_do(ops: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transforms.from_ops(ops)
