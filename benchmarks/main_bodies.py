"""Does the detector find the main bodies of photos?

1,500 supermarket photos with a box around each object, which no model here was trained on. "hit@k": share of the photos
in which one of the k best boxes is an annotated object (IoU of at least 0.5). All methods take turns on every photo.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import datasets, detectors, options, tables
from common.datasets import BoxedPhoto
from common.fixed_boxes import box_grid, greedy_cover, hits, scaled
from common.progress import track

from models.training.detection.boxes import Boxes
from models.training.detection.evaluation import THRESHOLD
from models.training.detection.metrics import detection_metrics

Find = Callable[[npt.NDArray[np.uint8]], Boxes]

_RANKS = (1, 2, 5, 10)
_GRID_STEPS = 16
_TUNED_ON = 300  # photos, the first ones
_STARTER, _COCO = "starter detector", "COCO PicoDet-S 416, any class"


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_detector(arguments)
    options.add_shared(arguments)
    arguments.add_argument("--limit", type=int, help="take so many photos only, the first ones")
    arguments.add_argument(
        "--parts",
        action="store_true",
        help=f"also the first {_TUNED_ON} photos, on which choices were made, and the rest",
    )
    chosen = arguments.parse_args()
    data = options.shared_data(chosen, "freiburg_boxes.tar", detectors.COCO_WEIGHTS)
    starter = detectors.load(detectors.chosen_folder(chosen.detector))
    photos = datasets.freiburg(data)[: chosen.limit]
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder:
        coco = detectors.CocoDetector.load(detectors.export_coco(data / detectors.COCO_WEIGHTS, Path(folder)))
    fixed = _fit_fixed(photos)
    networks: dict[str, Find] = {
        name: lambda picture, detector=detector: detector.detect(picture, detectors.LEAST_SCORE, detectors.MOST_BOXES)
        for name, detector in ((_COCO, coco), (_STARTER, starter))
    }
    others: dict[str, Find] = {
        "whole picture": lambda picture: _as_found(np.float32([[0, 0, 1, 1]]), picture),
        f"{len(fixed)} fixed boxes, fitted here": lambda picture: _as_found(fixed, picture),
    }
    found, times = _find(photos, others | networks)
    coco_ms = float(np.median(times[_COCO]))
    rows = [
        [name, *_figures(boxes, photos), *(_cost(times[name], coco_ms) if name in networks else ["", ""])]
        for name, boxes in found.items()
    ]
    if chosen.parts:
        rows += _parts(found[_STARTER], photos)
    objects = np.mean([len(each.boxes) for each in photos])
    tables.show(
        f"Main bodies: {len(photos)} supermarket photos with {objects:.1f} objects each",
        ["boxes", *(f"hit@{rank}" for rank in _RANKS), "AP50", "boxes/photo", "ms/photo", "to COCO's"],
        rows,
        [
            f"Boxes a photo: those with a score of at least {THRESHOLD}.",
            "Milliseconds: the median of preprocessing, graph and suppression, without decoding the file.",
            f"The fixed boxes were chosen one by one of all with corners on a grid of {_GRID_STEPS} x {_GRID_STEPS}.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _fit_fixed(photos: Sequence[BoxedPhoto]) -> Boxes:
    """The boxes, in shares of the sides, that are an object in the most photos."""
    grid = box_grid(_GRID_STEPS)
    is_hit = [
        hits(scaled(grid, *each.photo.rgb().shape[:2]), each.boxes) for each in track(photos, "fitting fixed boxes")
    ]
    return grid[greedy_cover(np.stack(is_hit), max(_RANKS))]


def _as_found(boxes: Boxes, picture: npt.NDArray[np.uint8]) -> Boxes:
    """Boxes in shares of the sides as a detector gives them, best first."""
    return np.column_stack([scaled(boxes, *picture.shape[:2]), np.linspace(1, 0.5, len(boxes), dtype=np.float32)])


def _find(
    photos: Sequence[BoxedPhoto], methods: dict[str, Find]
) -> tuple[dict[str, list[Boxes]], dict[str, list[float]]]:
    """The boxes of each method in each photo, and the milliseconds that they took."""
    found: dict[str, list[Boxes]] = {name: [] for name in methods}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for each in track(photos, "detecting"):
        picture = each.photo.rgb()
        for name, find in methods.items():
            before = time.perf_counter()
            found[name].append(find(picture))
            times[name].append((time.perf_counter() - before) * 1000)
    return found, times


def _figures(found: Sequence[Boxes], photos: Sequence[BoxedPhoto]) -> list[str]:
    figures = detection_metrics(found, [each.boxes for each in photos], ranks=_RANKS)
    boxes = float(np.mean([(each[:, 4] >= THRESHOLD).sum() for each in found]))
    return [*(f"{figures[f'hit@{rank}']:.3f}" for rank in _RANKS), f"{figures['AP']:.3f}", f"{boxes:.1f}"]


def _cost(times: Sequence[float], coco_ms: float) -> list[str]:
    median = float(np.median(times))
    return [f"{median:.1f}", f"{median / coco_ms:.2f}"]


def _parts(found: Sequence[Boxes], photos: Sequence[BoxedPhoto]) -> list[list[str]]:
    """The starter on the photos that choices were made on, and on those that nobody looked at."""
    parts = {f"the first {_TUNED_ON}": slice(_TUNED_ON), "the others": slice(_TUNED_ON, None)}
    return [
        [f"{_STARTER}, {name}", *_figures(found[part], photos[part]), "", ""]
        for name, part in parts.items()
        if photos[part]
    ]


if __name__ == "__main__":
    sys.exit(main())
