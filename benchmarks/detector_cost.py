"""What does detection cost on a CPU, beside PP-ShiTu's official main-body detector?

The official graph runs with filled-in parameters, which cost what trained ones do, save that its suppression sees
meaningless boxes. Every detector takes its turn on each photo, so that a busy machine slows all of them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import datasets, detectors, options, tables
from common.progress import track

from models.inference import Detector, Engine, Manifest, ModelFiles

_OFFICIAL_GRAPH = "official_graphs/picodet_PPLCNet_x2_5_mainbody_lite_v1.0_infer/inference.pdmodel"
_FILL_GRAPH = options.ROOT / "tests" / "models" / "fill_graph.py"
_THRESHOLD, _MOST_OBJECTS = 0.2, 5  # the service's defaults
_THREADS = (2, 1)
_PARTS = ("preprocessing", "graph", "detect")
_OFFICIAL = "PP-ShiTu official"

Load = Callable[[Path, int], Detector | detectors.CocoDetector]
Times = npt.NDArray[np.float64]


class Measured:
    """A detector and, apart, its preprocessing and its graph; on the CPU with a number of threads."""

    def __init__(self, folder: Path, load: Load, threads: int) -> None:
        """Load the folder's model, with ``load`` as a whole."""
        self._preprocessing = Manifest.read(folder, "detector").preprocessing
        self._engine = Engine.load(folder, "cpu", threads=threads)
        self._detector = load(folder, threads)

    @property
    def input_side(self) -> str:
        """Pixels of the graph's input."""
        height, width = self._preprocessing.size or (0, 0)
        return f"{height}x{width}"

    def turn(self, picture: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
        """Milliseconds of preprocessing, graph and whole detection of a picture."""
        started = time.perf_counter()
        tensor = self._preprocessing(picture)[None]
        preprocessed = time.perf_counter()
        inputs = {"image": tensor, "scale_factor": np.ones((1, 2), np.float32)}
        inputs["im_shape"] = np.float32([tensor.shape[2:]])
        inputs = {name: inputs[name] for name in self._engine.input_names}
        ready = time.perf_counter()
        self._engine.run(inputs)
        ran = time.perf_counter()
        self._detector.detect(picture, _THRESHOLD, _MOST_OBJECTS)
        detected = time.perf_counter()
        return (preprocessed - started) * 1000, (ran - ready) * 1000, (detected - ran) * 1000


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_detector(arguments)
    options.add_shared(arguments)
    arguments.add_argument("--turns", type=int, default=60, help="photos that each detector sees (default 60)")
    chosen = arguments.parse_args()
    data = options.shared_data(chosen, "drink/test_images", _OFFICIAL_GRAPH, detectors.COCO_WEIGHTS)
    starter = detectors.chosen_folder(chosen.detector)
    pictures = [photo.rgb() for photo in datasets.drink_shelf(data)]
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as temporary:
        official, coco = Path(temporary) / "official", Path(temporary) / "coco"
        command = [sys.executable, "-W", "ignore", _FILL_GRAPH, data / _OFFICIAL_GRAPH, official]
        subprocess.run(command, check=True, stdout=sys.stderr)
        detectors.export_coco(data / detectors.COCO_WEIGHTS, coco)
        models: dict[str, tuple[Path, Load]] = {
            _OFFICIAL: (official, detectors.load),
            "COCO PicoDet-S": (coco, detectors.CocoDetector.load),
            "starter detector": (starter, detectors.load),
        }
        rows = [row for threads in _THREADS for row in _measure(models, threads, pictures, chosen.turns)]
    tables.show(
        f"Detection in milliseconds, median / 90th percentile of {chosen.turns} photos",
        ["detector", "threads", "input", "MB", *_PARTS, "graph, to official", "detect, to official"],
        rows,
        [
            "Detect: preprocessing, graph and the choice of boxes. MB: graph and parameters, 10^6 bytes.",
            "COCO PicoDet-S suppresses in NumPy, the others in their graphs.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _measure(
    models: dict[str, tuple[Path, Load]], threads: int, pictures: Sequence[npt.NDArray[np.uint8]], turns: int
) -> list[list[str]]:
    """The rows of one number of threads, which loading sets for the whole process."""
    measured = {name: Measured(folder, load, threads) for name, (folder, load) in models.items()}
    for each in measured.values():
        each.turn(pictures[0])  # warms up
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in measured}
    for number in track(range(turns), f"detecting, {threads} thread(s)"):
        for name, each in measured.items():
            times[name].append(each.turn(pictures[number % len(pictures)]))
    official = np.median(times[_OFFICIAL], axis=0)
    rows = []
    for name, each in measured.items():
        median, slow = np.median(times[name], axis=0), np.quantile(times[name], 0.9, axis=0)
        figures = [f"{middle:.1f} / {high:.1f}" for middle, high in zip(median, slow, strict=True)]
        ratios = [f"{ratio:.2f}" for ratio in (median / official)[1:]]
        rows.append([name, str(threads), each.input_side, f"{_bytes(models[name][0]) / 1e6:.1f}", *figures, *ratios])
    return rows


def _bytes(folder: Path) -> int:
    files = ModelFiles.find(folder)
    return files.graph.stat().st_size + files.params.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
