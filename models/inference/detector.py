"""Pictures to main-body boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .engine import Device, Engine
from .errors import ModelInvalid
from .manifest import Manifest
from .preprocessing import Image, Preprocessing

Boxes = npt.NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)


class Detector:
    """A main-body detector under PP-ShiTu's export contract. Not thread-safe; see :meth:`clone`.

    Inputs of the graph: ``image`` (N, 3, H, W), ``scale_factor`` (N, 2) as (y, x), and on most exports
    ``im_shape`` (N, 2). Outputs: rows (class, score, x1, y1, x2, y2) and the number of rows a picture.
    """

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        """Wrap loaded parts; use :meth:`load`."""
        self._engine = engine
        self._manifest = manifest

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: Device = "auto",
        *,
        threads: int | None = None,
        onednn: bool = True,
        preprocessing: Preprocessing | None = None,
    ) -> Detector:
        """Load an exported detector and run it once; the arguments are those of ``Hasher.load``.

        Raises:
            ModelNotFound, ModelInvalid, DeviceUnavailable.
        """
        engine = Engine.load(folder, device, threads=threads, onednn=onednn)
        unknown = set(engine.input_names) - {"image", "scale_factor", "im_shape"}
        if unknown or not {"image", "scale_factor"} <= set(engine.input_names):
            raise ModelInvalid(
                f"{folder} is no PP-ShiTu detector: its inputs are {engine.input_names}, not image and scale_factor"
            )
        manifest = Manifest.read(folder, "detector")
        if preprocessing is not None:
            manifest = Manifest("detector", preprocessing, name=manifest.name)
        if manifest.preprocessing.size is None or manifest.preprocessing.crop is not None:
            raise ModelInvalid(f"{folder}: a detector needs a resize to a fixed size and no crop")
        detector = cls(engine, manifest)
        height, width = manifest.preprocessing.size
        detector.detect(np.zeros((height, width, 3), np.uint8), threshold=0.0, max_objects=1)
        return detector

    def clone(self) -> Detector:
        """Load the same detector again, for another thread."""
        return Detector(self._engine.clone(), self._manifest)

    def describe(self) -> str:
        """Say in one line what was loaded and on what it runs."""
        size = self._manifest.preprocessing.size or (0, 0)
        return f"detector {self._engine.description}: input {size[0]} x {size[1]}"

    def detect(self, image: Image, threshold: float, max_objects: int) -> Boxes:
        """Find the main bodies in one picture.

        Args:
            image: RGB uint8 (H, W, 3).
            threshold: smallest score that counts, 0 to 1.
            max_objects: at most so many boxes, the best ones.

        Returns:
            float32 (n, 5): x1, y1, x2, y2 in pixels of ``image``, score; by descending score.
        """
        height, width = image.shape[:2]
        tensor = self._manifest.preprocessing(image)[None]
        input_height, input_width = tensor.shape[2:]
        inputs = {
            "image": tensor,
            "scale_factor": np.array([[input_height / height, input_width / width]], np.float32),
            "im_shape": np.array([[input_height, input_width]], np.float32),
        }
        rows = self._engine.run({name: inputs[name] for name in self._engine.input_names})[0]
        return select_boxes(rows, width, height, threshold, max_objects)


def select_boxes(rows: npt.NDArray[np.floating], width: int, height: int, threshold: float, max_objects: int) -> Boxes:
    """Keep what is a box among a detector's output rows.

    Boxes are clipped to the picture; those with a NaN, inverted, empty after the clip, below the threshold or
    of a negative class (an export's filler when it found nothing) are dropped. So are those whose score is no
    number, or larger than float32 holds.

    Args:
        rows: float (n, 6) of any precision: class, score, x1, y1, x2, y2 in pixels.
        width, height: of the picture, in pixels.
        threshold: smallest score that counts.
        max_objects: at most so many boxes.

    Returns:
        float32 (m, 5): x1, y1, x2, y2, score; by descending score, equal scores in the order of ``rows``.

    Raises:
        ModelInvalid: the rows are of another shape.
    """
    if rows.size <= 1:  # exports that find nothing give no rows, or one lone filler
        return np.zeros((0, 5), np.float32)
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise ModelInvalid(f"a detector must give rows (n, 6), not {rows.shape}: this is no PP-ShiTu detector")
    rows = rows[(np.abs(rows[:, :2]) <= _LARGEST).all(axis=1) & ~np.isnan(rows[:, 2:]).any(axis=1)]
    # Rounded before they are compared: a sliver of a float64 graph may have no width left as float32.
    boxes = np.clip(rows[:, 2:], 0, [width, height, width, height]).astype(np.float32)
    keep = (rows[:, 0] >= 0) & (rows[:, 1] >= threshold)
    keep &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    found: Boxes = np.concatenate([boxes, rows[:, 1:2].astype(np.float32)], axis=1)[keep]
    return found[np.argsort(-found[:, 4], kind="stable")][: max(0, max_objects)]
