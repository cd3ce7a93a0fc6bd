"""The evaluation pictures, read in place: folders of drinks, tar files of everything else."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from common.shelf_products import SHELF_PRODUCTS

CALTECH_HELD_OUT = 12
"""How many Caltech-101 classes training leaves out; see `caltech_held_out`."""


@dataclass(frozen=True)
class Photo:
    """An encoded picture, its path within the data set, and its class."""

    path: str
    label: str
    data: bytes

    def rgb(self) -> npt.NDArray[np.uint8]:
        """The decoded picture, RGB ``uint8 (H, W, 3)``."""
        picture = cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError(f"{self.path} is not a picture")
        return np.ascontiguousarray(picture[..., ::-1])


def labels_of(photos: Sequence[Photo]) -> npt.NDArray[np.str_]:
    """The classes of photos, (n,)."""
    return np.array([photo.label for photo in photos])


@dataclass(frozen=True)
class BoxedPhoto:
    """A photo, and the boxes of its objects: float32 (n, 4), x1, y1, x2, y2 in pixels."""

    photo: Photo
    boxes: npt.NDArray[np.float32]


def drink(data: Path) -> list[Photo]:
    """The drink gallery: the photos that the label file lists and that exist, by product folder and number.

    The class is the product folder; the label texts part the photos in the same way.
    """
    gallery = data / "drink" / "gallery"
    paths = dict(_drink_lines(data))
    present = sorted((p for p in paths if (gallery / p).is_file()), key=_product_and_number)
    return [Photo(path, path.partition("/")[0], (gallery / path).read_bytes()) for path in present]


def drink_names(data: Path) -> dict[str, str]:
    """The label texts of the drink gallery, by product folder."""
    return {path.partition("/")[0]: name for path, name in _drink_lines(data)}


def drink_shelf(data: Path) -> list[Photo]:
    """The photos of drinks on shelves, on tables and in hands, with the label text of the product that they show."""
    folder = data / "drink" / "test_images"
    return [Photo(path, product, (folder / path).read_bytes()) for path, product in SHELF_PRODUCTS.items()]


def _drink_lines(data: Path) -> list[tuple[str, str]]:
    lines = (data / "drink" / "gallery" / "drink_label_all.txt").read_text(encoding="utf-8").splitlines()
    return [(path, name) for path, _, name in (line.partition("\t") for line in lines if line)]


def _product_and_number(path: str) -> tuple[int, int]:
    product, _, name = path.partition("/")
    return int(product), int(name.partition(".")[0])


def is_evaluation_product(photo: Photo) -> bool:
    """Whether a drink photo is of an odd-numbered product: training may use even ones only."""
    return int(photo.label) % 2 == 1


def grocery(data: Path) -> tuple[list[Photo], list[Photo]]:
    """GroceryStoreDataset: the training photos (the gallery) and the validation photos (the queries)."""
    with tarfile.open(data / "grocery.tar") as tar:
        return _listed(tar, "train.txt"), _listed(tar, "val.txt")


def _listed(tar: tarfile.TarFile, name: str) -> list[Photo]:
    photos = []
    for line in _member(tar, name).decode().splitlines():
        path, _, label = line.partition("\t")
        photos.append(Photo(path, label, _member(tar, path)))
    return photos


def caltech_held_out(data: Path) -> list[Photo]:
    """The photos of the Caltech-101 classes that training leaves out.

    These are the first `CALTECH_HELD_OUT` classes whose index among the alphabetically sorted ones is 3 modulo 6.
    """
    with tarfile.open(data / "caltech.tar") as tar:
        names = sorted(member.name for member in tar.getmembers() if member.isfile() and "/" in member.name)
        classes = sorted({name.partition("/")[0] for name in names})
        chosen = set(classes[3::6][:CALTECH_HELD_OUT])
        return [
            Photo(name, name.partition("/")[0], _member(tar, name))
            for name in names
            if name.partition("/")[0] in chosen
        ]


def freiburg(data: Path) -> list[BoxedPhoto]:
    """Supermarket photos of the Freiburg groceries with a box around each object, in the order of their list."""
    with tarfile.open(data / "freiburg_boxes.tar") as tar:
        rows = [json.loads(line) for line in _member(tar, "boxes.jsonl").decode().splitlines()]
        return [
            BoxedPhoto(Photo(row["image"], "", _member(tar, row["image"])), np.array(row["boxes"], np.float32))
            for row in rows
        ]


def distractors(data: Path) -> list[Photo]:
    """ImageNet photos, one a class, by path."""
    with tarfile.open(data / "distractors.tar") as tar:
        names = sorted(member.name for member in tar.getmembers() if member.isfile())
        return [Photo(name, name.partition("_")[0], _member(tar, name)) for name in names]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} in {tar.name!r} is not a file")
    with stream:
        return stream.read()


def embeddings(file: Path, photos: Sequence[Photo]) -> npt.NDArray[np.float32]:
    """The rows of an ``.npz`` of ``path`` and ``features`` that belong to photos, float32 (n, d)."""
    with np.load(file) as arrays:
        row = {str(path): number for number, path in enumerate(arrays["path"])}
        features = arrays["features"].astype(np.float32)
    return np.asarray(features[[row[photo.path] for photo in photos]])
