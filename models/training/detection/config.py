"""What a detector's training is: one frozen object that the loop, the evaluation and the export read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainingConfig


@dataclass(frozen=True)
class LossWeights:
    """``Loss.Train``: weights of the parts of the loss; PicoDet's by default.

    Attributes:
        quality: of the quality focal loss of the scores.
        box: of the generalised IoU of the boxes.
        distribution: of the distribution focal loss of the distances.
    """

    quality: float = 1.0
    box: float = 2.0
    distribution: float = 0.25


@dataclass(frozen=True)
class BoxPhotos:
    """A source of photos with boxes.

    Attributes:
        boxes_path: JSON lines ``{"image": path, "boxes": [[x1, y1, x2, y2], ...]}`` in pixels; a box may have a score
            as a fifth number, as a teacher gives it.
        image_root: folder that the paths are relative to.
        share: of this source in an epoch, in proportion to the others' shares.
        least_score: boxes from this score on are objects.
        ignored_score: those from here to ``least_score`` are neither object nor background; lower ones are left out.
    """

    boxes_path: Path
    image_root: Path
    share: float = 1.0
    least_score: float = 0.42
    ignored_score: float = 0.2


@dataclass(frozen=True)
class ComposedScenes:
    """A source of scenes put together from cutouts.

    Attributes:
        cutouts: folder with a folder a group of objects, each with RGBA pictures.
        photos: list file of photos, one path a line, relative to it: backgrounds, and prints of packs.
        share: see :class:`BoxPhotos`.
    """

    cutouts: Path
    photos: Path
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainingConfig):
    """The checked configuration of a main-body detector.

    Attributes:
        arch: ``name`` and settings, for :func:`models.nets.build`.
        pretrained: False; a file or address of weights, ours or the COCO ones of PP-PicoDet by layer; or the folder of
            an exported detector.
        loss: weights of its parts.
        image_shape: (height, width) of the pictures, in training and in the export.
        sources: where pictures come from.
        epoch_pictures: how many make an epoch.
        num_workers: threads that draw them.
        evaluated: photos to measure on, or None.
    """

    arch: Mapping[str, Any]
    pretrained: bool | str
    loss: LossWeights
    image_shape: tuple[int, int]
    sources: tuple[BoxPhotos | ComposedScenes, ...]
    epoch_pictures: int
    num_workers: int
    evaluated: BoxPhotos | None
