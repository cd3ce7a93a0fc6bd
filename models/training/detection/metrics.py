"""How well main bodies are found: the best box, the best few, average precision; classes do not count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .boxes import Boxes, overlaps

MATCH_IOU = 0.5


def detection_metrics(
    found: Sequence[Boxes], truth: Sequence[Boxes], *, ranks: Sequence[int] = (1, 5), iou: float = MATCH_IOU
) -> dict[str, float]:
    """Measure the boxes of many pictures.

    Args:
        found: a picture's boxes (n, 5): x1, y1, x2, y2, score; by descending score.
        truth: a picture's objects (m, 4), at least one.
        ranks: for which k to say how often one of the best k boxes is an object.
        iou: overlap from which a box counts as an object.

    Returns:
        ``hit@k``: share of pictures with an object among the k best boxes; ``AP``: average precision over all pictures
        with one match an object, the area under the interpolated curve (Everingham et al., IJCV 2010, as of 2010);
        ``boxes``: boxes a picture.

    Raises:
        ValueError: the numbers of pictures differ, or there is none.
    """
    if len(found) != len(truth) or not truth:
        raise ValueError(f"as many pictures with boxes as with objects are needed, not {len(found)} and {len(truth)}")
    is_object = [_is_object(boxes, objects, iou) for boxes, objects in zip(found, truth, strict=True)]
    figures = {f"hit@{rank}": float(np.mean([hits[:rank].any() for hits in is_object])) for rank in ranks}
    figures["AP"] = average_precision(found, truth, iou)
    figures["boxes"] = float(np.mean([len(boxes) for boxes in found]))
    return figures


def average_precision(found: Sequence[Boxes], truth: Sequence[Boxes], iou: float = MATCH_IOU) -> float:
    """Average precision over all pictures; see :func:`detection_metrics`."""
    scores = np.concatenate([boxes[:, 4] for boxes in found])
    right = np.concatenate([_first_matches(boxes, objects, iou) for boxes, objects in zip(found, truth, strict=True)])
    right = right[np.argsort(-scores, kind="stable")]
    objects = sum(len(each) for each in truth)
    recall = np.cumsum(right) / objects
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _is_object(boxes: Boxes, objects: Boxes, iou: float) -> np.ndarray:
    return overlaps(boxes, objects).max(axis=1, initial=0.0) >= iou


def _first_matches(boxes: Boxes, objects: Boxes, iou: float) -> np.ndarray:
    """Which boxes are the best one of an object that no better box has taken."""
    shared = overlaps(boxes, objects)
    free = np.ones(len(objects), bool)
    right = np.zeros(len(boxes), bool)
    for number, row in enumerate(shared):
        candidates = np.where(free, row, -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou:
            free[best], right[number] = False, True
    return right
