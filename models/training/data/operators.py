"""The operators of PaddleClas's ``transform_ops``, checked when they are built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from models.inference import ModelInvalid, Preprocessing
from models.inference.preprocessing import parse_number

from ..config import ConfigError
from .augment import Image, random_view
from .pictures import PictureCache
from .sources import PictureFiles, open_names

Op = Callable[[Image, np.random.Generator], Image]

_BACKGROUNDS_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Kind:
    """An operator's entry in :data:`OPS`.

    Attributes:
        keys: what it knows.
        build: makes it of its arguments; None for what has no effect before the normalization.
        draws: whether it is random.
        fixes_size: whether a server resizes to its ``size`` instead, whatever came before.
    """

    keys: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], Op | None]
    draws: bool = False
    fixes_size: bool = False


@dataclass(frozen=True)
class Resize:
    """``ResizeImage``: to (height, width), or the shorter side to ``short`` pixels with the ratio kept."""

    size: tuple[int, int] | None
    short: int | None
    interpolation: int

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Resize as :class:`Preprocessing` does."""
        height, width = self.size or (0, 0)
        if self.short is not None:
            ratio = self.short / min(image.shape[:2])
            height, width = (max(1, round(side * ratio)) for side in image.shape[:2])
        return _resized(image, (height, width), self.interpolation)


@dataclass(frozen=True)
class CenterCrop:
    """``CropImage``: (height, width) from the middle."""

    size: tuple[int, int]

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Crop, or raise ModelInvalid where the picture is smaller."""
        (height, width), (have_height, have_width) = self.size, image.shape[:2]
        if have_height < height or have_width < width:
            raise ModelInvalid(f"CropImage {height} x {width} is larger than the picture {have_height} x {have_width}")
        top, left = (have_height - height) // 2, (have_width - width) // 2
        return image[top : top + height, left : left + width]


@dataclass(frozen=True)
class RandomCrop:
    """``RandCropImage``: a part of random area and ratio, resized (Szegedy et al., arXiv 1409.4842, Sec. 6).

    As in PaddleClas the ratio of width to height is drawn first, and areas whose rectangle of that ratio would not
    fit in the picture are cut from the range, so that no draw is rejected.

    Attributes:
        size: (height, width) of the result.
        scale: least and largest share of the picture's area.
        ratio: least and largest width divided by height.
        interpolation: OpenCV's number.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: int

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Draw ratio, area and place."""
        height, width = image.shape[:2]
        ratio = rng.uniform(*self.ratio)
        largest = min(width / height / ratio, height / width * ratio)
        area = width * height * rng.uniform(min(self.scale[0], largest), min(self.scale[1], largest))
        # Rounding may not lift a side over the picture's.
        across = min(width, max(1, int(math.sqrt(area * ratio))))
        down = min(height, max(1, int(math.sqrt(area / ratio))))
        left, top = rng.integers(width - across + 1), rng.integers(height - down + 1)
        return _resized(image[top : top + down, left : left + across], self.size, self.interpolation)


@dataclass(frozen=True)
class RandomFlip:
    """``RandFlipImage``: every other picture, left-right (code 1), upside down (0) or both (-1)."""

    code: int

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Flip or not."""
        return np.asarray(cv2.flip(image, self.code), np.uint8) if rng.random() < 0.5 else image


@dataclass(frozen=True)
class RandomView:
    """``RandomView``: our own, :func:`models.training.data.augment.random_view`."""

    size: int
    strength: float
    backgrounds: Sequence[Image]

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Draw a view."""
        return random_view(image, self.size, rng, self.backgrounds, self.strength)


class _Backgrounds(Sequence[Image]):
    """Pictures of a list, decoded when they are asked for."""

    def __init__(self, source: PictureFiles) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source.names)

    def __getitem__(self, index: int) -> Image:  # type: ignore[override]
        return self._source.read(index)


def read_preprocessing(ops: Sequence[Mapping[str, Any]]) -> Preprocessing:
    """Read what a server does, as :meth:`Preprocessing.from_ops` does, but raise ConfigError."""
    try:
        return Preprocessing.from_ops(ops)
    except ModelInvalid as error:
        raise ConfigError(f"transform_ops: {error}") from None


def _decode(arguments: Mapping[str, Any]) -> None:
    """Check what says how pictures are decoded; they always come as RGB, height x width x 3."""
    if arguments.get("to_rgb", True) is not True:
        raise ConfigError("transform_ops: DecodeImage: to_rgb must be true; the service gives the model RGB pixels")
    if arguments.get("channel_first", False) is not False:
        raise ConfigError("transform_ops: DecodeImage: channel_first must be false; the result is always CHW")


def _resize(arguments: Mapping[str, Any]) -> Resize:
    _check_backend("ResizeImage", arguments)
    # With any crop, or resize_short would not fix the size.
    read = read_preprocessing([{"ResizeImage": arguments}, {"CropImage": {"size": 1}}])
    return Resize(read.size, read.resize_short, read.interpolation)


def _crop(arguments: Mapping[str, Any]) -> CenterCrop:
    return CenterCrop(_size("CropImage", arguments))


def _random_crop(arguments: Mapping[str, Any]) -> RandomCrop:
    _check_backend("RandCropImage", arguments)
    size = _size("RandCropImage", arguments)
    scale = _range("RandCropImage", "scale", arguments.get("scale", (0.08, 1.0)))
    ratio = _range("RandCropImage", "ratio", arguments.get("ratio", (3 / 4, 4 / 3)))
    if scale[1] > 1:
        raise ConfigError(
            f"transform_ops: RandCropImage: scale must not be above 1, the whole picture, as {scale[1]} is"
        )
    read = read_preprocessing([{"ResizeImage": only(arguments, "size", "interpolation")}])
    return RandomCrop(size, scale, ratio, read.interpolation)


def _random_flip(arguments: Mapping[str, Any]) -> RandomFlip:
    code = arguments.get("flip_code", 1)
    if isinstance(code, bool) or code not in (1, 0, -1):
        raise ConfigError(f"transform_ops: RandFlipImage: flip_code must be 1, 0 or -1, not {code!r}")
    return RandomFlip(code)


def _random_view(arguments: Mapping[str, Any]) -> RandomView:
    height, width = _size("RandomView", arguments)
    if height != width:
        raise ConfigError(f"transform_ops: RandomView: size must be square, not {height} x {width}")
    strength = _number("RandomView", "strength", arguments.get("strength", 1.0))
    if not 0 <= strength <= 1:
        raise ConfigError(f"transform_ops: RandomView: strength must be from 0 to 1, not {strength}")
    backgrounds: Sequence[Image] = ()
    if listing := arguments.get("backgrounds"):
        path = Path(listing)
        backgrounds = _Backgrounds(open_names(path.parent, path, PictureCache(_BACKGROUNDS_CACHE_BYTES)))
    return RandomView(height, strength, backgrounds)


def _nothing(arguments: Mapping[str, Any]) -> None:
    """NormalizeImage and ToCHWImage are done by :class:`Preprocessing`."""


OPS: Mapping[str, Kind] = MappingProxyType(
    {
        "DecodeImage": Kind(("to_rgb", "channel_first", "to_np", "backend"), _decode),
        "ResizeImage": Kind(("size", "resize_short", "interpolation", "backend"), _resize),
        "CropImage": Kind(("size",), _crop),
        "RandCropImage": Kind(
            ("size", "scale", "ratio", "interpolation", "backend"), _random_crop, draws=True, fixes_size=True
        ),
        "RandFlipImage": Kind(("flip_code",), _random_flip, draws=True),
        "RandomView": Kind(("size", "strength", "backgrounds"), _random_view, draws=True, fixes_size=True),
        "NormalizeImage": Kind(("scale", "mean", "std", "order"), _nothing),
        "ToCHWImage": Kind((), _nothing),
    }
)
"""The operators by name."""


def _resized(image: Image, size: tuple[int, int], interpolation: int) -> Image:
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), np.uint8)


def only(arguments: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Keep the arguments that have these keys."""
    return {key: value for key, value in arguments.items() if key in keys}


def _check_backend(name: str, arguments: Mapping[str, Any]) -> None:
    if arguments.get("backend", "cv2") != "cv2":
        raise ConfigError(
            f"transform_ops: {name}: backend must be cv2, with which the service resizes, not {arguments['backend']!r}"
        )


def _size(name: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    if "size" not in arguments:
        raise ConfigError(f"transform_ops: {name}: size is missing")
    try:
        size = Preprocessing.from_ops([{"CropImage": {"size": arguments["size"]}}]).crop
    except ModelInvalid as error:
        raise ConfigError(f"transform_ops: {str(error).replace('CropImage', name)}") from None
    return size or (0, 0)


def _number(name: str, key: str, value: object) -> float:
    try:
        return parse_number(f"{name}: {key}", value)
    except ModelInvalid as error:
        raise ConfigError(f"transform_ops: {error}") from None


def _range(name: str, key: str, value: object) -> tuple[float, float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ConfigError(f"transform_ops: {name}: {key} must be two numbers, not {value!r}")
    low, high = (_number(name, key, number) for number in value)
    if not 0 < low <= high:
        raise ConfigError(f"transform_ops: {name}: {key} must be positive and rise, not {value!r}")
    return low, high
