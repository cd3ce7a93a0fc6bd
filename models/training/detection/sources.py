"""Where a detector's pictures come from: photos with boxes, and scenes composed on the fly."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import PIL.Image

from ..data.errors import DatasetError
from ..data.pictures import read_rgb
from .boxes import Boxes, areas, intersections, overlaps
from .config import BoxPhotos, ComposedScenes
from .cutouts import Rgb, Rgba
from .scenes import SceneMaker
from .views import Sample, blurred, padded, placed, resized

_PHOTO_SIDE = 320  # longer side that photos are kept at in memory; views are about as large
_SCENE_SIDE = 288  # of a scene, square root of its area
_PART_OF = 0.8  # share of a box inside of a better one from which it is a part and no object of its own
_LEAST_MEMBER, _MOST_MEMBER = 0.12, 0.6  # area of a member of a group, beside the group's
_SHARED_BY_MEMBERS = 0.2  # overlap (IoU) of two members that lie apart, at most


@dataclass(frozen=True)
class BoxRow:
    """A line of a boxes file: the picture, and float32 (n, 5) x1, y1, x2, y2, score; 1 where the line has none."""

    path: Path
    boxes: Boxes


class Source(Protocol):
    """Draws samples."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Sample:
        """Draw a sample of height x width pixels."""


def open_source(config: BoxPhotos | ComposedScenes) -> Source:
    """Open a source; its pictures are read into memory, at the size that views need.

    Raises:
        DatasetError: something is missing or cannot be read.
    """
    return PhotoSource(config) if isinstance(config, BoxPhotos) else SceneSource(config)


class PhotoSource:
    """Photos with boxes, moved and scaled a little."""

    def __init__(self, config: BoxPhotos) -> None:
        self._samples = [_small_sample(row, config) for row in read_boxes(config)]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._samples)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Sample:
        """Draw a photo."""
        return placed(rng, self._samples[rng.integers(len(self._samples))], height, width)


class SceneSource:
    """Scenes of cutouts before photos, of several ratios, some letterboxed or coarse."""

    def __init__(self, config: ComposedScenes) -> None:
        self._maker = SceneMaker(read_cutouts(config.cutouts), read_photos(config.photos))

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Sample:
        """Compose a scene."""
        ratio = math.exp(rng.normal(0, 0.2))
        size = round(_SCENE_SIDE / math.sqrt(ratio)), round(_SCENE_SIDE * math.sqrt(ratio))
        sample = Sample(*self._maker.make(rng, *size))
        if rng.random() < 0.3:
            sample = blurred(rng, sample)
        if rng.random() < 0.15:
            sample = padded(rng, sample)
        return resized(sample, height, width)


def read_boxes(config: BoxPhotos) -> list[BoxRow]:
    """Read a boxes file.

    Raises:
        DatasetError: it is missing, empty or not as :class:`BoxPhotos` says; the text names file and line.
    """
    path = config.boxes_path
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    rows = [
        _row(line, f"{path}:{number}", config.image_root) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not rows:
        raise DatasetError(f"{path} has no pictures")
    return rows


def read_cutouts(folder: Path) -> list[list[Rgba]]:
    """Read groups of cutouts: a folder a group, RGBA uint8 (h, w, 4) each.

    Raises:
        DatasetError: there is none, or one is no RGBA picture.
    """
    groups = [sorted(group.glob("*.png")) for group in sorted(folder.glob("*")) if group.is_dir()]
    if not any(groups):
        raise DatasetError(f"{folder} has no folders with cutouts (PNG pictures with an alpha channel)")
    return [[_read_cutout(path) for path in group] for group in groups if group]


def read_photos(list_file: Path) -> list[Rgb]:
    """Read the photos that a list file names, relative to it.

    Raises:
        DatasetError: the list or a photo cannot be read, or the list is empty.
    """
    try:
        names = [line.strip() for line in list_file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{list_file} cannot be read: {error}") from error
    if not names:
        raise DatasetError(f"{list_file} names no photo")
    return [_small(read_rgb(list_file.parent / name))[0] for name in names]


def objects_of(boxes: Boxes, least_score: float, ignored_score: float) -> tuple[Boxes, Boxes]:
    """Part a teacher's boxes (n, 5) into objects (m, 4) and regions that are neither object nor background (k, 4).

    A box that lies mostly inside of a better one is a part of it, and one around several others is a group: neither.
    """
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    boxes = boxes[boxes[:, 4] >= ignored_score]
    objects: list[Boxes] = []
    ignored: list[Boxes] = []
    for row in boxes:
        box = row[:4]
        is_part = len(objects) and intersections(box[None], np.stack(objects)).max() > _PART_OF * areas(box)
        is_object = row[4] >= least_score and not is_part and not _is_group(box, boxes[:, :4])
        (objects if is_object else ignored).append(box)
    return np.float32(objects).reshape(-1, 4), np.float32(ignored).reshape(-1, 4)


def _is_group(box: Boxes, others: Boxes) -> bool:
    """Whether a box (4,) is around two others that lie apart and are not small beside it."""
    sizes = areas(others)
    inside = intersections(box[None], others)[0] > _PART_OF * sizes
    members = others[inside & (sizes > _LEAST_MEMBER * areas(box)) & (sizes < _MOST_MEMBER * areas(box))]
    return bool((overlaps(members, members) < _SHARED_BY_MEMBERS).any())


def _row(line: str, where: str, root: Path) -> BoxRow:
    try:
        content: Any = json.loads(line)
        path = root / content["image"]
        boxes = [[*map(float, box), 1.0][:5] for box in content["boxes"]]
    except (ValueError, TypeError, KeyError) as error:
        expected = '{"image": path, "boxes": [[x1, y1, x2, y2], ...]}'
        raise DatasetError(f"{where}: must be {expected}, not {line[:80]!r}") from error
    array = np.float32(boxes).reshape(-1, 5) if all(len(box) == 5 for box in boxes) else None
    if array is None or not np.isfinite(array).all() or (array[:, 2:4] <= array[:, :2]).any():
        raise DatasetError(f"{where}: a box must be x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2")
    return BoxRow(path, array)


def _small_sample(row: BoxRow, config: BoxPhotos) -> Sample:
    picture, scale = _small(read_rgb(row.path))
    objects, ignored = objects_of(row.boxes, config.least_score, config.ignored_score)
    seen = np.ones((len(objects), 1), np.float32)
    return Sample(picture, np.hstack([objects * np.float32(scale), seen]), ignored * np.float32(scale))


def _small(picture: Rgb) -> tuple[Rgb, float]:
    """Shrink a picture to what views need, and say by which factor."""
    scale = min(1.0, _PHOTO_SIDE / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, scale
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def _read_cutout(path: Path) -> Rgba:
    try:
        with PIL.Image.open(path) as image:
            pixels = np.array(image)
    except Exception as error:  # decoders raise whatever a torn file makes them stumble over
        raise DatasetError(f"{path} cannot be decoded as a picture: {error}") from error
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        raise DatasetError(f"{path} has no alpha channel: a cutout is an RGBA picture")
    return pixels


def shares(sources: Sequence[BoxPhotos | ComposedScenes]) -> list[float]:
    """Give the share of each source in an epoch; they add up to 1."""
    total = sum(source.share for source in sources)
    return [source.share / total for source in sources]
