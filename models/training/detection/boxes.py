"""Boxes x1, y1, x2, y2 in pixels: overlap and suppression, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]


def areas(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Areas of boxes (..., 4); 0 for inverted ones."""
    return np.clip(boxes[..., 2] - boxes[..., 0], 0, None) * np.clip(boxes[..., 3] - boxes[..., 1], 0, None)


def intersections(first: Boxes, second: Boxes) -> npt.NDArray[np.float32]:
    """Areas that each of the first boxes (n, 4) shares with each of the second (m, 4): (n, m)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    sides = np.clip(bottom_right - top_left, 0, None)
    return sides[..., 0] * sides[..., 1]


def overlaps(first: Boxes, second: Boxes) -> npt.NDArray[np.float32]:
    """Intersection over union of each of the first boxes (n, 4) with each of the second (m, 4): (n, m)."""
    shared = intersections(first, second)
    union = areas(first)[:, None] + areas(second)[None] - shared
    return shared / np.maximum(union, 1e-9)


def inside(points: npt.NDArray[np.float32], boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Which points (n, 2), x and y, lie in which boxes (m, 4): (n, m)."""
    return ((points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:4])).all(axis=2)


def suppress(boxes: Boxes, scores: npt.NDArray[np.float32], threshold: float, most: int) -> npt.NDArray[np.int64]:
    """Non-maximum suppression: the best box, then the best that overlaps no better one by more than ``threshold``.

    Args:
        boxes: (n, 4).
        scores: (n,).
        threshold: overlap (IoU) up to which two boxes count as two objects.
        most: at most so many are kept.

    Returns:
        Indexes of those kept, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < most:
        best = order[0]
        kept.append(int(best))
        order = order[1:]
        order = order[overlaps(boxes[best : best + 1], boxes[order])[0] <= threshold]
    return np.array(kept, np.int64)
