"""The best boxes that do not look at the picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.training.detection.boxes import Boxes, overlaps
from models.training.detection.metrics import MATCH_IOU

Hits = npt.NDArray[np.bool_]


def box_grid(steps: int) -> Boxes:
    """All boxes with corners on a grid of ``steps`` by ``steps`` cells: float32 (n, 4), in shares of the sides."""
    marks = np.linspace(0, 1, steps + 1, dtype=np.float32)
    first, last = np.triu_indices(steps + 1, k=1)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(len(first)), np.arange(len(first))))
    return np.column_stack([marks[first[x]], marks[first[y]], marks[last[x]], marks[last[y]]])


def scaled(boxes: Boxes, height: int, width: int) -> Boxes:
    """Boxes (n, 4) in shares of the sides as pixels of a picture."""
    return boxes * np.float32([width, height, width, height])


def hits(boxes: Boxes, objects: Boxes) -> Hits:
    """Which of the boxes (n, 4) are one of the objects (m, 4), both in pixels: (n,)."""
    return np.asarray(overlaps(boxes, objects).max(axis=1, initial=0.0) >= MATCH_IOU)


def greedy_cover(is_hit: Hits, count: int) -> list[int]:
    """Choose boxes one by one, each the one that is right in the most photos where none before is.

    Args:
        is_hit: (photos, boxes).
        count: how many to choose.

    Returns:
        Indexes of boxes; of equally good ones the first.
    """
    open_photos = np.ones(len(is_hit), bool)
    chosen: list[int] = []
    for _ in range(count):
        best = int(is_hit[open_photos].sum(axis=0).argmax())
        chosen.append(best)
        open_photos &= ~is_hit[:, best]
    return chosen
