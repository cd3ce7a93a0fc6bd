"""Photographs of drawn packs: surroundings, shadow, light, lens and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from service.demo.light import Floats
from service.demo.panel import Picture
from service.drawing import Colour


@dataclass(frozen=True)
class Shot:
    """How a picture is taken.

    ``tint`` multiplies red, green, blue; ``gradient`` brightens the left and darkens the right by that share;
    ``skew`` moves the corners by that share of the width; ``blur_px`` and ``noise`` are standard deviations (pixels,
    grey levels).
    """

    exposure: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gradient: float = 0.0
    skew: float = 0.0
    blur_px: float = 0.0
    noise: float = 0.0


def backdrop(kind: str, width: int, height: int, rng: np.random.Generator) -> Picture:
    """Something to stand on and before: ``studio``, ``wood``, ``stone`` or ``cloth``; RGB ``uint8``."""
    if kind == "studio":
        return _studio(width, height, (232, 232, 230), (196, 198, 200))
    if kind == "wood":
        return _wood(width, height, rng)
    if kind == "stone":
        return _mottled(width, height, rng, (150, 152, 150), 20.0)
    if kind == "cloth":
        return _cloth(width, height, rng)
    raise ValueError(f"unknown backdrop {kind!r}: use studio, wood, stone or cloth")


def _studio(width: int, height: int, wall: Colour, table: Colour) -> Picture:
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    blend = 1 / (1 + np.exp(-(down - 0.72) * 18))
    picture = np.array(wall, dtype=np.float32) * (1 - blend) + np.array(table, dtype=np.float32) * blend
    glow = 1 + 0.06 * np.cos(np.linspace(-1.4, 1.0, width, dtype=np.float32))[None, :, None]
    return np.asarray(np.clip(picture * glow - 8, 0, 255), dtype=np.uint8)


def _smooth(rng: np.random.Generator, cells: tuple[int, int], width: int, height: int) -> Floats:
    grain = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _wood(width: int, height: int, rng: np.random.Generator) -> Picture:
    grain = _smooth(rng, (max(4, height // 3), 4), width, height) * 0.5 + _smooth(rng, (12, 3), width, height)
    colour = np.array((150, 104, 64), dtype=np.float32) + grain[..., None] * np.array((16, 13, 10), dtype=np.float32)
    plank = max(24, height // 5)
    rows = np.arange(height)
    tone = 1 + 0.08 * rng.standard_normal(height // plank + 1)[rows // plank]
    colour *= tone[:, None, None].astype(np.float32)
    colour[rows % plank < 2] *= 0.55
    return np.clip(colour, 0, 255).astype(np.uint8)


def _mottled(width: int, height: int, rng: np.random.Generator, colour: Colour, depth: float) -> Picture:
    spots = sum(_smooth(rng, (n, n), width, height) / k for k, n in enumerate((4, 12, 40), start=1))
    picture = np.array(colour, dtype=np.float32) + np.asarray(spots)[..., None] * depth
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def _cloth(width: int, height: int, rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[0:height, 0:width]
    weave = 6.0 * np.sin(x * 1.3) * np.sin(y * 1.3) + 12.0 * _smooth(rng, (4, 5), width, height)
    check = np.where((x // max(18, width // 9) + y // max(18, width // 9)) % 2 == 0, 14.0, 0.0)
    picture = np.array((70, 96, 120), dtype=np.float32) + (weave + check)[..., None]
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def stand(scene: Picture, pack: Picture, left: int, foot: int, *, shadow: float = 0.55) -> None:
    """Put an RGBA pack into an RGB scene (in place), its lower edge at row ``foot``, with a soft shadow.

    Parts outside the scene are cut off.
    """
    rows, columns = pack.shape[:2]
    _shadow(scene, (left, foot), (columns, rows), shadow)
    top = foot - rows
    y0, y1 = max(0, top), min(scene.shape[0], foot)
    x0, x1 = max(0, left), min(scene.shape[1], left + columns)
    if y0 >= y1 or x0 >= x1:
        return
    part = pack[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:].astype(np.float32) / 255
    below = scene[y0:y1, x0:x1].astype(np.float32)
    scene[y0:y1, x0:x1] = np.round(below * (1 - alpha) + part[..., :3] * alpha).astype(np.uint8)


def _shadow(scene: Picture, place: tuple[int, int], size: tuple[int, int], depth: float) -> None:
    (left, foot), (columns, rows) = place, size
    shade = np.zeros(scene.shape[:2], dtype=np.float32)
    lift = max(3, round(0.09 * columns))
    cast = np.array(
        [
            [left + 0.02 * columns, foot - 1],
            [left + 0.98 * columns, foot - 1],
            [left + 1.3 * columns, foot - lift - 0.12 * rows],
            [left + 0.4 * columns, foot - lift - 0.12 * rows],
        ]
    )
    cv2.fillConvexPoly(shade, np.round(cast).astype(np.int32), 0.55)
    shade = cv2.GaussianBlur(shade, (0, 0), max(1.0, 0.06 * columns))
    contact = np.zeros_like(shade)
    centre = round(left + columns / 2), foot - max(1, lift // 3)
    cv2.ellipse(contact, centre, (max(1, round(columns * 0.5)), lift), 0, 0, 360, 1.0, -1)
    shade = np.maximum(shade, cv2.GaussianBlur(contact, (0, 0), max(1.0, 0.025 * columns)))
    scene[:] = np.round(scene * (1 - depth * shade[..., None])).astype(np.uint8)


def skew_matrix(width: int, height: int, skew: float, rng: np.random.Generator) -> Floats:
    """The homography of a camera held a little askew: every corner moves by up to ``skew`` widths, inwards out."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    moved = corners + (rng.uniform(-1, 1, (4, 2)) * skew * width).astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(corners, moved), dtype=np.float32)


def develop(scene: Picture, shot: Shot, rng: np.random.Generator) -> Picture:
    """What the sensor makes of a scene: RGB ``uint8`` of the same size."""
    height, width = scene.shape[:2]
    if shot.skew:
        warp = skew_matrix(width, height, shot.skew, rng)
        scene = cv2.warpPerspective(
            scene, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    light = scene.astype(np.float32) * np.array(shot.tint, dtype=np.float32) * shot.exposure
    if shot.gradient:
        light *= np.linspace(1 + shot.gradient, 1 - shot.gradient, width, dtype=np.float32)[None, :, None]
    if shot.blur_px:
        light = cv2.GaussianBlur(light, (0, 0), shot.blur_px)
    if shot.noise:
        # After demosaicing, what is left of a sensor's noise is mostly grey.
        light += rng.standard_normal((height, width, 1)).astype(np.float32) * shot.noise
    return np.clip(np.round(light), 0, 255).astype(np.uint8)
