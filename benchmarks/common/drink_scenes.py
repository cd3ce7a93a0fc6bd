"""Scenes of several cut-out products before a photo, side by side, with their true boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from models.training.detection.boxes import Boxes
from models.training.detection.cutouts import Rgb, Rgba
from models.training.detection.scenes import Scene

SIDE = 512
"""Pixels of a scene, both ways."""
_LONG_SIDE = (0.4, 0.62)  # of an object, in shares of the scene; no more pixels than a cutout has
_WIDEST = 1.1  # of an object, in shares of its part of the scene's width: neighbours may hide a little of each other
_TURN = 5.0  # degrees, standard deviation
_TRIES = 100


def compose(rng: np.random.Generator, cutouts: Sequence[Rgba], background: Rgb) -> tuple[Rgb, Boxes]:
    """Lay each of the cutouts once, from left to right, so that at least half of every one is seen.

    Args:
        rng: of everything random.
        cutouts: RGBA uint8 (h, w, 4), few enough to stand side by side.
        background: RGB uint8 (H, W, 3).

    Returns:
        RGB uint8 (SIDE, SIDE, 3); boxes of what is seen of each cutout, in their order, float32 (n, 4) in pixels.

    Raises:
        ValueError: there are more than fit.
    """
    for _ in range(_TRIES):
        scene = Scene(_square(background))
        for number, cutout in enumerate(cutouts):
            scene.lay(cutout, _place(rng, cutout, number, len(cutouts)))
        objects = scene.boxes()[0][:, :4]
        if len(objects) == len(cutouts):
            return scene.picture, objects
    raise ValueError(f"{len(cutouts)} cutouts were not all seen in any of {_TRIES} scenes")


def _square(photo: Rgb) -> Rgb:
    """The middle of a photo, as large as a scene."""
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    return cv2.resize(photo[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _place(rng: np.random.Generator, cutout: Rgba, number: int, count: int) -> npt.NDArray[np.float64]:
    """Where a cutout comes to lie in its part of the width: (2, 3), from its pixels to the scene's."""
    height, width = cutout.shape[:2]
    part = SIDE / count
    scale = min(rng.uniform(*_LONG_SIDE) * SIDE / max(height, width), _WIDEST * part / width)
    x = part * (number + rng.uniform(0.4, 0.6))
    y = SIDE - scale * height / 2 - rng.uniform(0.0, 1.0) * max(0.0, SIDE - scale * height)
    middle = width / 2, height / 2
    matrix = cv2.getRotationMatrix2D(middle, rng.normal(0, _TURN), scale)
    matrix[:, 2] += [x - middle[0], y - middle[1]]
    return matrix
