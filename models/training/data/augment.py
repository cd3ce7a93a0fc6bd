"""Random views of a picture, as retrieval meets it: cropped, turned, seen at an angle, lit, blurred, covered.

Everything geometric is one homography, so the pixels are resampled once.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114])
_WHITE = 238  # border pixels from here on count as an empty studio background


def random_view(
    image: Image, size: int, rng: np.random.Generator, backgrounds: Sequence[Image] = (), strength: float = 1.0
) -> Image:
    """Draw one training view.

    Args:
        image: RGB uint8 (H, W, 3).
        size: side of the square view, in pixels; like serving, the picture's ratio is not kept.
        rng: all randomness comes from here.
        backgrounds: pictures that may replace a white background.
        strength: scales every distortion; 0 gives a plain resize.

    Returns:
        RGB uint8 (size, size, 3).
    """
    if strength <= 0:
        return _shrink_to(image, size, size)
    if backgrounds and rng.random() < 0.5:
        image = _on_background(image, backgrounds[rng.integers(len(backgrounds))], rng)
    view = _warp(image, size, rng, strength)
    view = _relight(view, rng, strength)
    if rng.random() < 0.25 * strength:
        view = _degrade(view, rng)
    if rng.random() < 0.25 * strength:
        _cover(view, rng)
    return view


def _warp(image: Image, size: int, rng: np.random.Generator, strength: float) -> Image:
    """Crop, turn, tilt and flip through one homography."""
    height, width = image.shape[:2]
    area = rng.uniform(1.0 - 0.65 * strength, 1.0)
    ratio = np.exp(rng.uniform(-0.3, 0.3) * strength)
    crop = np.minimum([np.sqrt(area * ratio), np.sqrt(area / ratio)], 1.0) * (width, height)
    center = crop / 2 + rng.random(2) * ((width, height) - crop)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * crop / 2
    corners += rng.uniform(-0.08, 0.08, (4, 2)) * strength * crop
    angle = np.deg2rad(rng.normal(0, 9) * strength)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    source = corners @ turn + center
    if rng.random() < 0.3:
        source = source[[1, 0, 3, 2]]
    shrink = min(1.0, 2.0 * size / crop.max())  # bilinear sampling aliases below half size: shrink by area first
    if shrink < 1.0:
        image = _shrink_to(image, max(1, round(height * shrink)), max(1, round(width * shrink)))
        source = source * shrink
    target = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    homography = cv2.getPerspectiveTransform(source.astype(np.float32), target)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.7 else cv2.BORDER_REFLECT_101
    return cv2.warpPerspective(image, homography, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def _relight(view: Image, rng: np.random.Generator, strength: float) -> Image:
    """Brightness, contrast, saturation and colour cast as one affine map of RGB; sometimes light from one side."""
    contrast, saturation = 1 + rng.uniform(-0.35, 0.35, 2) * strength
    cast = 1 + rng.uniform(-0.12, 0.12, 3) * strength
    if rng.random() < 0.05:
        saturation = 0.0
    gray = np.tile(_LUMA, (3, 1))
    matrix = contrast * cast[:, None] * (saturation * np.eye(3) + (1 - saturation) * gray)
    offset = 128 * (1 - contrast) + rng.uniform(-35, 35) * strength
    view = np.clip(cv2.transform(view, np.column_stack([matrix, np.full(3, offset)])), 0, 255).astype(np.uint8)
    if rng.random() < 0.2 * strength:  # light falls off to one side
        ramp = np.linspace(rng.uniform(0.45, 0.9), 1.1, view.shape[1], dtype=np.float32)
        ramp = ramp if rng.random() < 0.5 else ramp[::-1]
        shade = ramp[None, :, None] if rng.random() < 0.5 else ramp[:, None, None]
        view = np.clip(view * shade, 0, 255).astype(np.uint8)
    return view


def _degrade(view: Image, rng: np.random.Generator) -> Image:
    """Blur, low resolution, noise or compression."""
    kind = rng.integers(4)
    if kind == 0:
        return cv2.GaussianBlur(view, (0, 0), rng.uniform(0.5, 1.8))
    if kind == 1:
        side = int(view.shape[0] * rng.uniform(0.3, 0.7))
        return cv2.resize(_shrink_to(view, side, side), view.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    if kind == 2:
        noise = rng.normal(0, rng.uniform(3, 14), view.shape)
        return np.clip(view + noise, 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)


def _cover(view: Image, rng: np.random.Generator) -> None:
    """Hide a rectangle, as a hand or a price tag does (Zhong et al., arXiv 1708.04896)."""
    size = np.array(view.shape[:2])
    extent = (size * rng.uniform(0.12, 0.4, 2)).astype(int)
    top, left = (rng.random(2) * (size - extent)).astype(int)
    view[top : top + extent[0], left : left + extent[1]] = rng.integers(0, 256, 3)


def _on_background(image: Image, background: Image, rng: np.random.Generator) -> Image:
    """Put an object photographed on white onto another picture; other pictures come back unchanged."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    if (border.min(axis=1) >= _WHITE).mean() < 0.8:
        return image
    height, width = image.shape[:2]
    # Only white that touches the border is background: white labels in the middle stay.
    padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    mask = np.zeros((height + 4, width + 4), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    cv2.floodFill(padded, mask, (0, 0), (0, 0, 0), (16, 16, 16), (16, 16, 16), flags)
    alpha = cv2.GaussianBlur(mask[2:-2, 2:-2], (3, 3), 0)[:, :, None] / np.float32(255)
    behind = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        behind = behind[:, ::-1]
    return (image * (1 - alpha) + behind * alpha).astype(np.uint8)


def _shrink_to(image: Image, height: int, width: int) -> Image:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
