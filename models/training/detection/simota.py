"""SimOTA (YOLOX, Ge et al., arXiv 2107.08430, section 2.1; with PicoDet's cost, arXiv 2111.00902, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .boxes import Boxes, inside, overlaps

_CENTRE_RADIUS = 2.5  # strides from an object's centre within which a cell is a candidate
_MOST_CELLS = 10  # of an object
_IOU_WEIGHT = 6.0  # of the box's part of the cost, against the score's
_FAR = 1e5  # the cost of cells that are not both inside of the box and near its centre


@dataclass(frozen=True)
class Assignment:
    """Which cells find which object of one picture.

    Attributes:
        cells: int64 (k,), the cells that find one.
        objects: int64 (k,), which.
        quality: float32 (k,), the overlap of the cell's box with its object: what its score is to be.
    """

    cells: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float32]


def assign(
    scores: npt.NDArray[np.float32],
    boxes: Boxes,
    objects: Boxes,
    centres: npt.NDArray[np.float32],
    strides: npt.NDArray[np.float32],
) -> Assignment:
    """Assign to each object the cells that find it at the least cost, as many as their boxes deserve.

    Args:
        scores: float32 (cells,), predicted, 0 to 1.
        boxes: float32 (cells, 4), predicted, in pixels.
        objects: float32 (n, 4), in pixels.
        centres: float32 (cells, 2), in pixels.
        strides: float32 (cells,).
    """
    near = inside(centres, objects)
    middles = (objects[:, :2] + objects[:, 2:4]) / 2
    reach = _CENTRE_RADIUS * strides[:, None]
    is_central = np.abs(centres[:, None] - middles[None]).max(axis=2) < reach
    candidates = np.flatnonzero((near | is_central).any(axis=1)) if len(objects) else np.zeros(0, np.int64)
    if not len(candidates):
        return Assignment(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    shared = overlaps(boxes[candidates], objects)
    probability = np.clip(scores[candidates, None], 1e-6, 1 - 1e-6)
    # Quality focal loss of the score against the overlap, as the training has it.
    surprise = -(shared * np.log(probability) + (1 - shared) * np.log(1 - probability))
    cost = surprise * np.abs(shared - probability) ** 2 - _IOU_WEIGHT * np.log(shared + 1e-7)
    cost += _FAR * ~(near & is_central)[candidates]
    chosen = np.zeros(cost.shape, bool)
    most = min(_MOST_CELLS, len(candidates))
    counts = np.maximum(1, np.sort(shared, axis=0)[-most:].sum(axis=0).astype(int))
    for number, count in enumerate(counts):
        chosen[np.argpartition(cost[:, number], min(count, len(cost)) - 1)[:count], number] = True
    chosen &= shared > 0
    # A cell that several objects claim goes to the one it finds most cheaply.
    disputed = chosen.sum(axis=1) > 1
    cheapest = np.where(chosen, cost, np.inf).argmin(axis=1)
    chosen[disputed] = np.arange(len(objects)) == cheapest[disputed, None]
    rows, numbers = np.nonzero(chosen)
    return Assignment(candidates[rows], numbers, shared[rows, numbers].astype(np.float32))
