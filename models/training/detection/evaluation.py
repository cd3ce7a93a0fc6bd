"""From photos with boxes to figures: detect, compare, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.inference import Detector

from ..data.errors import DatasetError
from ..data.pictures import read_rgb
from .boxes import Boxes
from .config import BoxPhotos
from .metrics import detection_metrics
from .sources import BoxRow, read_boxes

THRESHOLD = 0.2
"""Least score of a box where boxes are counted, as the service's default has it."""
_LEAST_SCORE, _MOST_BOXES = 0.03, 100  # for ranks and average precision


def open_evaluated(config: BoxPhotos) -> list[BoxRow]:
    """Read what to measure on.

    Raises:
        DatasetError: the boxes file cannot be used, a photo is missing, or one has no object.
    """
    rows = read_boxes(config)
    for row in rows:
        if not row.path.is_file():
            raise DatasetError(f"{config.boxes_path}: there is no photo {row.path}")
        if not len(row.boxes):
            raise DatasetError(f"{config.boxes_path}: {row.path} has no box; photos that are measured on need one")
    return rows


def evaluate_detector(
    detector: Detector, rows: Sequence[BoxRow], progress: Callable[[int, int], object] | None = None
) -> dict[str, float]:
    """Measure a detector.

    Args:
        detector: finds boxes.
        rows: photos with their objects.
        progress: is told how many photos are done, and how many there are.

    Returns:
        ``hit@1``, ``hit@5`` and ``AP`` (see :func:`~models.training.detection.metrics.detection_metrics`), and
        ``boxes``: those a photo with a score of at least :data:`THRESHOLD`.

    Raises:
        DatasetError: a photo cannot be decoded.
    """
    found: list[Boxes] = []
    for number, row in enumerate(rows):
        found.append(detector.detect(read_rgb(row.path), _LEAST_SCORE, _MOST_BOXES))
        if progress is not None:
            progress(number + 1, len(rows))
    figures = detection_metrics(found, [row.boxes[:, :4] for row in rows])
    figures["boxes"] = float(np.mean([(boxes[:, 4] >= THRESHOLD).sum() for boxes in found]))
    return figures
