"""From a picture with boxes to what the network sees: placed, mirrored, lit, normalized."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .boxes import Boxes, areas
from .cutouts import Rgb

_LEAST_LEFT, _LEAST_NOTED = 0.5, 0.1  # share of a box inside of the picture, to count as object; as neither


@dataclass(frozen=True)
class Sample:
    """A picture with what is in it.

    Attributes:
        picture: RGB uint8 (H, W, 3).
        objects: float32 (n, 5): x1, y1, x2, y2 in pixels, and the share of the object that is seen. What is whole is
            more of a main body than what is cut off.
        ignored: float32 (m, 4), regions that are neither object nor background.
    """

    picture: Rgb
    objects: Boxes
    ignored: Boxes


def placed(rng: np.random.Generator, sample: Sample, height: int, width: int) -> Sample:
    """Move, scale and stretch a photo a little in a picture of height x width; what it does not cover is one grey."""
    have_height, have_width = sample.picture.shape[:2]
    zoom, stretch = rng.uniform(0.75, 1.3), np.exp(rng.normal(0, 0.12))
    scale = np.float64([width / have_width * zoom * stretch, height / have_height * zoom / stretch])
    offset = rng.random(2) * (np.float64([width, height]) - scale * [have_width, have_height])
    grey = int(rng.integers(0, 256))
    matrix = np.column_stack([np.diag(scale), offset])
    picture = cv2.warpAffine(sample.picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=[grey] * 3)
    objects, left = _moved(sample.objects, scale, offset, height, width)
    ignored, _ = _moved(sample.ignored, scale, offset, height, width)
    objects[:, 4] *= left
    cut_off = objects[(left < _LEAST_LEFT) & (left > _LEAST_NOTED), :4]
    return Sample(picture, objects[left >= _LEAST_LEFT], np.concatenate([ignored, cut_off]))


def padded(rng: np.random.Generator, sample: Sample) -> Sample:
    """Put bars on two sides of a picture, as letterboxes have them."""
    height, width = sample.picture.shape[:2]
    share = rng.uniform(0.05, 0.6)
    bars = (0, int(share * width / 2)) if rng.random() < 0.5 else (int(share * height / 2), 0)
    grey = int(rng.choice([0, 128, 255]))
    picture = cv2.copyMakeBorder(
        sample.picture, bars[0], bars[0], bars[1], bars[1], cv2.BORDER_CONSTANT, value=[grey] * 3
    )
    shift = np.float32([bars[1], bars[0]] * 2)
    return Sample(picture, *(_with_corners(each, each[:, :4] + shift) for each in (sample.objects, sample.ignored)))


def resized(sample: Sample, height: int, width: int) -> Sample:
    """Resize without keeping the ratio, as the detector does."""
    have_height, have_width = sample.picture.shape[:2]
    scale = np.float32([width / have_width, height / have_height] * 2)
    picture = cv2.resize(sample.picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return Sample(picture, *(_with_corners(each, each[:, :4] * scale) for each in (sample.objects, sample.ignored)))


def blurred(rng: np.random.Generator, sample: Sample) -> Sample:
    """Lose resolution, as small photos do that are enlarged."""
    height, width = sample.picture.shape[:2]
    share = rng.uniform(0.3, 0.9)
    small = cv2.resize(sample.picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return Sample(cv2.resize(small, (width, height)), sample.objects, sample.ignored)


def mirrored(sample: Sample) -> Sample:
    """Swap left and right."""
    width = sample.picture.shape[1]

    def mirror(boxes: Boxes) -> Boxes:
        return _with_corners(
            boxes, np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        )

    return Sample(sample.picture[:, ::-1], mirror(sample.objects), mirror(sample.ignored))


def lit(rng: np.random.Generator, picture: Rgb) -> npt.NDArray[np.float32]:
    """Change brightness, contrast and tint, and add noise: float32 (H, W, 3), 0 to 255."""
    pixels = picture.astype(np.float32) * np.float32(rng.uniform(0.7, 1.3)) + np.float32(rng.uniform(-25, 25))
    if rng.random() < 0.3:
        pixels *= rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.2:
        pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(2, 10))
    return np.clip(pixels, 0, 255)


def _moved(
    boxes: Boxes, scale: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], height: int, width: int
) -> tuple[Boxes, npt.NDArray[np.float32]]:
    """Scale, move and clip boxes; also tell the share of each that is left."""
    moved = boxes[:, :4] * np.float32([*scale, *scale]) + np.float32([*offset, *offset])
    clipped = np.clip(moved, 0, np.float32([width, height, width, height]))
    return _with_corners(boxes, clipped), areas(clipped) / np.maximum(areas(moved), 1e-6)


def _with_corners(boxes: Boxes, corners: Boxes) -> Boxes:
    """Give boxes (n, 4 or more) other corners (n, 4)."""
    return np.concatenate([corners, boxes[:, 4:]], axis=1)
