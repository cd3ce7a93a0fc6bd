"""Preprocessing, against the reference's tensors and against the formula written out."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from models.inference import DETECTION, RECOGNITION, ModelInvalid, Preprocessing


@pytest.fixture(scope="module")
def photo(shared: Path) -> np.ndarray:
    return np.array(Image.open(shared / "data" / "drink" / "test_images" / "001.jpeg").convert("RGB"))


def test_recognition_equals_the_reference(shared: Path, photo: np.ndarray) -> None:
    golden = np.load(shared / "parity" / "preprocess.npz")
    np.testing.assert_allclose(RECOGNITION(photo), golden["rec"], atol=1e-5)


def test_detection_equals_the_reference(shared: Path, photo: np.ndarray) -> None:
    golden = np.load(shared / "parity" / "preprocess.npz")
    tensor = DETECTION(photo)
    assert tensor.shape == tuple(golden["det_shape"])
    np.testing.assert_allclose(tensor[:, ::4, ::4], golden["det_stride4"], atol=1e-5)


def test_follows_the_formula() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    preprocessing = Preprocessing(size=(8, 6), scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    expected = ((image / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]).transpose(2, 0, 1)
    tensor = preprocessing(image)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, expected, atol=1e-6)


def test_short_side_and_centre_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    preprocessing = Preprocessing.from_ops(
        [{"ResizeImage": {"resize_short": 50}}, {"CropImage": {"size": 40}}, {"NormalizeImage": {}}]
    )
    resized = cv2.resize(image, (100, 50))[5:45, 30:70]
    assert preprocessing.input_size == (40, 40)
    np.testing.assert_allclose(preprocessing(image), Preprocessing(size=(40, 40))(resized), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (2, 50_000)])
def test_a_very_long_picture_costs_no_more_than_its_crop(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    middle = [slice(side // 2 - 20, side // 2 + 20) if side > 100 else slice(None) for side in shape]
    image[tuple(middle)] = 255
    tensor = Preprocessing(size=None, resize_short=256, crop=(224, 224), mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert tensor.shape == (3, 224, 224)
    assert (tensor == 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (3, 7)])
def test_takes_pictures_of_any_size(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 255, np.uint8)
    tensor = RECOGNITION(image)
    assert tensor.shape == (3, 224, 224)
    assert np.allclose(tensor[0], (1 - 0.485) / 0.229, atol=1e-5)


def test_reads_the_reference_vocabulary() -> None:
    recognition = [
        {"ResizeImage": {"size": 224}},
        {
            "NormalizeImage": {
                "scale": "1.0/255.0",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "order": "",
            }
        },
        {"ToCHWImage": None},
    ]
    detection = [
        {"DetResize": {"interp": 2, "keep_ratio": False, "target_size": [640, 640]}},
        {"DetNormalizeImage": {"is_scale": True, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
        {"DetPermute": {}},
    ]
    assert Preprocessing.from_ops(recognition) == RECOGNITION
    assert Preprocessing.from_ops(detection) == DETECTION


@pytest.mark.parametrize(
    "preprocessing", [RECOGNITION, DETECTION, Preprocessing(size=None, resize_short=256, crop=(224, 224))]
)
def test_written_operators_read_back_equal(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_ops(preprocessing.to_ops()) == preprocessing


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([{"ResizeImage": {"size": 224}}, {"Sharpen": {}}], "Sharpen"),
        ([{"ResizeImage": {"size": 224, "sizes": 3}}], "sizes"),
        ([{"ResizeImage": {"size": 0}}], "positive"),
        ([{"ResizeImage": {"size": True}}], "positive"),
        ([{"ResizeImage": {"size": [1, 2, 3, 4]}}], "one or two"),
        ([{"ResizeImage": {}}], "size"),
        ([{"ResizeImage": 224}], "map"),
        ([{"DetResize": {"target_size": [640, 640], "keep_ratio": True}}], "keep_ratio"),
        ([{"ResizeImage": {"size": 224, "interpolation": 9}}], "interpolation"),
        ([{"ResizeImage": {"size": 224}}, {"NormalizeImage": {"scale": "__import__('os')"}}], "not a number"),
        ([{"ResizeImage": {"size": 224}}, {"NormalizeImage": {"scale": "1/0"}}], "not a number"),
        ([{"ResizeImage": {"size": 224}}, {"NormalizeImage": {"mean": [0.5]}}], "three"),
        ([{"ResizeImage": {"size": 224}}, {"NormalizeImage": {"std": [1, 0, 1]}}], "positive"),
        ([{"ResizeImage": {"size": 100}}, {"PadStride": {"stride": 32}}], "PadStride"),
        ([{"NormalizeImage": {}}], "input size"),
        ([{"ResizeImage": {"resize_short": 256}}], "CropImage"),
        ([{}], "map"),
        ([{"a": {}, "b": {}}], "one name"),
    ],
)
def test_refuses_what_it_cannot_do(ops: list[Any], message: str) -> None:
    with pytest.raises(ModelInvalid, match=message):
        Preprocessing.from_ops(ops)


def test_refuses_a_crop_larger_than_the_picture() -> None:
    preprocessing = Preprocessing(size=(32, 32), crop=(64, 64))
    with pytest.raises(ModelInvalid, match="larger"):
        preprocessing(np.zeros((10, 10, 3), np.uint8))
