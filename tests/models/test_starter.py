"""The bundled hash model: what ships, what it was made of, and that it finds products it never saw."""

from pathlib import Path

import cv2
import numpy as np
import paddle

from models.inference import STARTER_HASHER, Hasher

MAX_BYTES = 17 * 2**20


def test_it_is_small_and_described() -> None:
    assert sum(path.stat().st_size for path in STARTER_HASHER.iterdir()) <= MAX_BYTES
    card = (STARTER_HASHER / "README.md").read_text("utf-8")
    for needed in ("Apache-2.0", "MIT", "CC BY 4.0", "make starter-hasher", "Limits"):
        assert needed in card
    hasher = Hasher.load(STARTER_HASHER, "cpu")
    assert hasher.fingerprint in card
    assert hasher.recommended_radius is not None
    assert f"{hasher.recommended_radius} of {hasher.bits}" in card


def test_every_layer_was_trained_on(shared: Path) -> None:
    shipped = paddle.jit.load(str(STARTER_HASHER / "inference")).state_dict()
    arrays = [np.asarray(tensor.numpy()) for tensor in shipped.values()]
    with np.load(shared / "data" / "pretrained" / "mobilenet_v1_1.0_224_imagenet.npz") as initial:
        for name in initial.files:
            nearest = min(np.abs(array - initial[name]).max() for array in arrays if array.shape == initial[name].shape)
            assert nearest > 1e-5, f"{name} is still what training began with"


def test_it_finds_products_it_never_saw(shared: Path) -> None:
    gallery = shared / "data" / "drink" / "gallery"
    paths = sorted(path for path in gallery.glob("*/*.jpg") if int(path.parent.name) % 2 == 1)
    products = np.array([path.parent.name for path in paths])
    hasher = Hasher.load(STARTER_HASHER, "cpu")
    photos = (np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1]) for path in paths)
    codes = np.concatenate([hasher.hash([photo]) for photo in photos])
    right = 0
    for index, code in enumerate(codes):
        distances = np.bitwise_count(codes ^ code).sum(axis=1, dtype=np.int64)
        distances[index] = hasher.bits + 1
        right += products[distances.argmin()] == products[index]
    assert len(paths) >= 550
    assert right / len(paths) >= 0.88
