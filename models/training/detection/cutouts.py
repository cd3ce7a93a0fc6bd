"""Objects cut out of photos, to be laid into scenes: RGBA pictures whose alpha is the object's mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]
Rgba = npt.NDArray[np.uint8]

_LONG_SIDE = 320  # of a cutout; scenes are not much larger
_LEAST_SIDE = 24  # of a box with its margin; smaller ones show too little to be told from what is around
_ROUNDS = 4  # of GrabCut
_LEAST_FILL, _MOST_FILL = 0.35, 0.995  # of the box, by a mask that can be believed
_LEAST_WHOLE = 0.92  # of the mask, in its largest piece
_WHITE = 236  # from here on a pixel of a pack shot's background
_LEAST_WHITE_BORDER = 0.97


def cut_out(picture: Rgb, box: npt.ArrayLike) -> Rgba | None:
    """Cut an object out of a photo by GrabCut (Rother et al., SIGGRAPH 2004), started from its box.

    Args:
        picture: RGB uint8 (H, W, 3).
        box: x1, y1, x2, y2 in pixels, around the object.

    Returns:
        RGBA uint8 (h, w, 4), cropped to the mask; None where the mask fills too little or nearly all of the box, or
        is in pieces: then it is no outline of an object.
    """
    x1, y1, x2, y2 = (float(side) for side in box)
    margin = 0.12 * max(x2 - x1, y2 - y1)  # the background's colours are learned from here
    left, top = int(max(0, x1 - margin)), int(max(0, y1 - margin))
    right, bottom = int(min(picture.shape[1], x2 + margin)), int(min(picture.shape[0], y2 + margin))
    crop = picture[top:bottom, left:right]
    scale = min(1.0, _LONG_SIDE / max(1, *crop.shape[:2]))
    if min(crop.shape[:2]) * scale < _LEAST_SIDE:
        return None
    crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = crop.shape[:2]
    x, y = max(1, round((x1 - left) * scale)), max(1, round((y1 - top) * scale))
    inner = (x, y, min(width - 1, round((x2 - left) * scale)) - x, min(height - 1, round((y2 - top) * scale)) - y)
    mask = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)  # its clusters start at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(crop[..., ::-1]), mask, inner, *models, _ROUNDS, cv2.GC_INIT_WITH_RECT)
    return _masked(crop, np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)), inner[2] * inner[3])


def cut_from_white(picture: Rgb) -> Rgba | None:
    """Cut an object off its white background, as pack shots have it.

    Args:
        picture: RGB uint8 (H, W, 3).

    Returns:
        RGBA uint8 (h, w, 4), cropped to the object; None where the border is not white all around, or the object
        fills too little or nearly all of the picture, or is in pieces.
    """
    scale = min(1.0, _LONG_SIDE / max(picture.shape[:2]))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    white = (picture >= _WHITE).all(axis=2)
    border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if border.mean() < _LEAST_WHITE_BORDER:
        return None
    # White that hangs together with the border; white inside of the object stays.
    framed = np.pad(white, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(framed, None, (0, 0), 2)
    return _masked(picture, framed[1:-1, 1:-1] != 2, picture.shape[0] * picture.shape[1])


def _masked(picture: Rgb, mask: npt.NDArray[np.bool_], area: float) -> Rgba | None:
    """Crop a picture to the largest piece of its mask; None where the mask is no outline of an object."""
    smooth = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(smooth)
    if len(statistics) < 2:
        return None
    pieces = statistics[1:, cv2.CC_STAT_AREA]
    largest = 1 + int(pieces.argmax())
    x, y, width, height, size = statistics[largest]
    fill = size / max(1.0, area)
    if not _LEAST_FILL <= fill <= _MOST_FILL or size < _LEAST_WHOLE * pieces.sum() or min(width, height) < 16:
        return None
    outline, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(smooth)
    cv2.drawContours(filled, outline, -1, 255, cv2.FILLED)
    # A pixel narrower and soft, so that nothing of the old background shines around the object.
    alpha = cv2.GaussianBlur(cv2.erode(filled, np.ones((3, 3), np.uint8)), (3, 3), 0)
    cut = np.dstack([picture, alpha])[y : y + height, x : x + width]
    return np.ascontiguousarray(cut)
