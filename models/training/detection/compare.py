"""Measure detectors on the same photos and write what came out: figures as JSON and Markdown, and boxes on photos."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from models.inference import Detector

from ..config import ConfigError
from ..data.pictures import read_rgb
from .boxes import Boxes, overlaps
from .config import DetectionConfig
from .cutouts import Rgb
from .evaluation import THRESHOLD, evaluate_detector, open_evaluated
from .metrics import MATCH_IOU
from .sources import BoxRow

Figures = Mapping[str, float]
_SHOWN_PHOTOS, _COLUMNS, _TILE_PX, _BEST_BOXES = 24, 6, 240, 5
_WHITE, _GREEN, _VERMILLION = (255, 255, 255), (0, 158, 115), (213, 94, 0)
_HEADINGS = {
    "hit@1": "best box is an object",
    "hit@5": "one of the best five is",
    "AP": f"AP at IoU {MATCH_IOU}",
    "boxes": f"boxes a photo with a score from {THRESHOLD}",
}


@dataclass(frozen=True)
class Candidate:
    """A detector to measure: its ``name`` for people, where it comes from, and ``load``, which gives it for a while."""

    name: str
    source: Path
    load: Callable[[], AbstractContextManager[Detector]]


def compare_detectors(
    config: DetectionConfig,
    candidates: Sequence[Candidate],
    folder: Path,
    progress: Callable[[str, int, int], object],
) -> dict[str, Figures]:
    """Measure detectors, and write ``metrics.json``, ``metrics.md``, and ``boxes_NAME.png`` for each.

    Args:
        config: its ``DataLoader.Eval`` names the photos.
        candidates: of different names.
        folder: where it is written.
        progress: is told the name, how many photos are done, and how many there are.

    Returns:
        The figures by name, see :func:`~models.training.detection.evaluation.evaluate_detector`.

    Raises:
        ConfigError: there is nothing to measure on, or two have one name.
        DatasetError, ModelError, OSError: it cannot be measured or written.
    """
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise ConfigError(f"several models are called {max(names, key=names.count)!r}: name them with NAME=PATH")
    if config.evaluated is None:
        raise ConfigError("DataLoader.Eval says what to evaluate on, and is missing")
    rows = open_evaluated(config.evaluated)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Figures] = {}
    for candidate in candidates:
        with candidate.load() as detector:
            results[candidate.name] = evaluate_detector(detector, rows, partial(progress, candidate.name))
            PIL.Image.fromarray(contact_sheet(detector, rows)).save(folder / f"boxes_{candidate.name}.png")
    content = {one.name: {"source": str(one.source), **results[one.name]} for one in candidates}
    (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    lines = [["figure", *results], ["---", *["---:"] * len(results)], *table_rows(results)]
    text = "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
    (folder / "metrics.md").write_text(text, "utf-8")
    return results


def table_rows(results: Mapping[str, Figures]) -> list[list[str]]:
    """Give one row a figure: what it is, then its value for each detector."""
    return [[heading, *(f"{figures[name]:.3f}" for figures in results.values())] for name, heading in _HEADINGS.items()]


def contact_sheet(detector: Detector, rows: Sequence[BoxRow]) -> Rgb:
    """Show some photos with their objects (white) and the best boxes: green where they are right, red where not."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_SHOWN_PHOTOS, len(rows))).astype(int))
    tiles = [_tile(detector, rows[number]) for number in chosen]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % _COLUMNS)
    return np.vstack([np.hstack(tiles[first : first + _COLUMNS]) for first in range(0, len(tiles), _COLUMNS)])


def _tile(detector: Detector, row: BoxRow) -> Rgb:
    photo = read_rgb(row.path)
    found = detector.detect(photo, THRESHOLD, _BEST_BOXES)
    scale = _TILE_PX / max(photo.shape[:2])
    tile = np.full((_TILE_PX, _TILE_PX, 3), 255, np.uint8)
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:_TILE_PX, :_TILE_PX]
    tile[: small.shape[0], : small.shape[1]] = small
    _frame(tile, row.boxes * scale, [_WHITE] * len(row.boxes), 3)
    right = overlaps(found[:, :4], row.boxes[:, :4]).max(axis=1, initial=0.0) >= MATCH_IOU
    # The best one last, and thicker.
    colours = [_GREEN if each else _VERMILLION for each in right]
    _frame(tile, found[:0:-1] * scale, colours[:0:-1], 1)
    _frame(tile, found[:1] * scale, colours[:1], 2)
    return tile


def _frame(tile: Rgb, boxes: Boxes, colours: Sequence[tuple[int, int, int]], width: int) -> None:
    for box, colour in zip(boxes, colours, strict=True):
        x1, y1, x2, y2 = (round(float(side)) for side in box[:4])
        cv2.rectangle(tile, (x1, y1), (x2 - 1, y2 - 1), colour, width)
