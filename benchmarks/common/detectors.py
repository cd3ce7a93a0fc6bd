"""The detectors that are measured: the one of ``--detector``, and PP-PicoDet-S as it was trained on COCO."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.inference import DETECTION, STARTER_DETECTOR, Detector, Engine, Manifest, ModelError, select_boxes
from models.training.detection.boxes import Boxes, suppress

LEAST_SCORE, MOST_BOXES = 0.03, 100
"""What a detector is asked for where ranks and average precision are measured."""
COCO_WEIGHTS = "pretrained/picodet_s_416_coco.npz"
"""Within the evaluation data."""
_COCO_SIDE = 416
_COCO_CLASSES = 80
_COCO_CANDIDATES = 1000
_COCO_IOU = 0.6


def chosen_folder(folder: Path | None) -> Path:
    """The folder of ``--detector``, or of the bundled one; ends the script, exit code 0, where none is bundled."""
    if folder is None and not STARTER_DETECTOR.is_dir():
        print("Skipped: no detector is bundled; --detector names the folder of one.", file=sys.stderr)
        raise SystemExit(0)
    return folder or STARTER_DETECTOR


def load(folder: Path, threads: int | None = None) -> Detector:
    """The detector of a folder on the CPU; ends the script with a message when it cannot be loaded."""
    try:
        return Detector.load(folder, "cpu", threads=threads)
    except ModelError as error:
        print(f"The detector cannot be loaded: {error}", file=sys.stderr)
        raise SystemExit(1) from error


class CocoDetector:
    """PP-PicoDet-S 416 from COCO as a main-body detector: a box's score is the greatest of its 80 classes'."""

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        """Wrap loaded parts; use :meth:`load`."""
        self._engine = engine
        self._preprocessing = manifest.preprocessing

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> CocoDetector:
        """Load what :func:`export_coco` wrote, on the CPU, and run it once."""
        detector = cls(Engine.load(folder, "cpu", threads=threads), Manifest.read(folder, "detector"))
        detector.detect(np.zeros((_COCO_SIDE, _COCO_SIDE, 3), np.uint8), 0.0, 1)
        return detector

    def detect(self, image: npt.NDArray[np.uint8], threshold: float, max_objects: int) -> Boxes:
        """Find objects of any kind, as :meth:`models.inference.Detector.detect` does."""
        height, width = image.shape[:2]
        scores, boxes = (output[0] for output in self._engine.run([self._preprocessing(image)[None]]))
        boxes = boxes * np.float32([width, height, width, height]) / _COCO_SIDE
        rows = np.column_stack([np.zeros_like(scores), scores, boxes])
        found = select_boxes(rows, width, height, threshold, _COCO_CANDIDATES)
        return found[suppress(found[:, :4], found[:, 4], _COCO_IOU, max_objects)]


def export_coco(weights: Path, folder: Path) -> Path:
    """Write the COCO network as a graph of scores float32 (N, cells) and boxes (N, cells, 4) in input pixels."""
    import paddle
    from paddle import nn

    from models import nets
    from models.nets.picodet import cell_centres, decode_boxes
    from models.training.detection.pretrained import from_layers
    from models.training.pretrained import load_pretrained

    class AnyObject(nn.Layer):
        """The network with its boxes decoded and its classes put together."""

        def __init__(self) -> None:
            super().__init__()
            self.network = nets.build("PicoDetS", class_num=_COCO_CLASSES)
            layers = load_pretrained("PicoDetS", str(weights))
            self.network.set_state_dict(from_layers(self.network, layers, str(weights)))
            centres, strides = cell_centres(_COCO_SIDE, _COCO_SIDE)
            self.register_buffer("centres", centres)
            self.register_buffer("strides", strides)

        def forward(self, image: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
            logits, distances = self.network(image)
            scores = nn.functional.sigmoid(paddle.topk(logits, 1)[0][..., 0])
            return scores, decode_boxes(distances, self.centres, self.strides)

    layer = AnyObject()
    layer.eval()
    spec = [paddle.static.InputSpec([None, 3, _COCO_SIDE, _COCO_SIDE], "float32", name="image")]
    paddle.jit.save(layer, str(folder / "inference"), input_spec=spec)
    size = (_COCO_SIDE, _COCO_SIDE)
    Manifest("detector", replace(DETECTION, size=size), name="picodet-s-416-coco").write(folder)
    return folder
