"""A trained network as a detector under PP-ShiTu's export contract."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paddle
from paddle import _C_ops, nn
from paddle.nn import functional as F

from models import nets
from models.inference import DETECTION, Detector, Manifest
from models.nets.picodet import cell_centres, decode_boxes

from ..checkpoint import Weights
from ..config import ConfigError
from ..devices import cpu_threads
from ..model import fit_weights
from ..model_folder import replaced_folder
from .config import DetectionConfig

_LEAST_SCORE = 0.025  # of a box before suppression
_CANDIDATES, _MOST_BOXES = 400, 100  # before and after suppression
_LARGEST_OVERLAP = 0.5  # IoU of two boxes that both stay


class ExportedDetector(nn.Layer):
    """A network with everything up to boxes in pixels of the original picture.

    Args:
        network: gives logits of scores and distances, see :class:`models.nets.PicoDetS`.
        height, width: of the pictures that it takes.

    Shape:
        inputs float32 ``image`` (N, 3, height, width), ``im_shape`` (N, 2) and ``scale_factor`` (N, 2), each (y, x);
        outputs float32 rows (class, score, x1, y1, x2, y2) of all pictures together, by descending score in each, and
        int32 (N,), the number of rows of each.
    """

    def __init__(self, network: nn.Layer, height: int, width: int) -> None:
        super().__init__()
        self.network = network
        centres, strides = cell_centres(height, width)
        self.register_buffer("centres", centres)
        self.register_buffer("strides", strides)

    def forward(
        self, image: paddle.Tensor, im_shape: paddle.Tensor, scale_factor: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Detect."""
        logits, distances = self.network(image)
        boxes = decode_boxes(distances, self.centres, self.strides)
        limits = im_shape.flip(axis=1).tile([1, 2]).unsqueeze(1)
        scale = scale_factor.flip(axis=1).tile([1, 2]).unsqueeze(1)
        boxes = paddle.minimum(boxes.clip(min=0.0), limits) / scale
        scores = F.sigmoid(logits).transpose([0, 2, 1])
        # The operator of PP-ShiTu's export, which Paddle has no public function for. Its public matrix_nms finds an
        # object among the five best boxes of fewer photos.
        settings = (_LEAST_SCORE, _CANDIDATES, _MOST_BOXES, _LARGEST_OVERLAP, False, 1.0, -1)
        rows, _, counts = _C_ops.multiclass_nms3(boxes, scores, None, *settings)
        return rows, counts


def build_detector(config: DetectionConfig, first_block: int = 0) -> nn.Layer:
    """Make the network of a configuration, with random weights.

    Raises:
        ConfigError: the architecture does not take a setting.
    """
    arch = dict(config.arch) | ({"first_block": first_block} if first_block else {})
    # Optimizer states are saved under the parameters' unique names: these must not depend on what was built before.
    with paddle.utils.unique_name.guard():
        try:
            return nets.build(**arch)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Arch: {error}") from None


def write_detector(config: DetectionConfig, weights: Weights, folder: Path, source: str = "the weights") -> None:
    """Write a detector's graph, parameters and ``inference.yml`` into a folder.

    Raises:
        ConfigError: the weights are of another architecture.
        OSError: the folder cannot be written.
    """
    network = build_detector(config)
    fit_weights(network, weights, source)
    height, width = config.image_shape
    layer = ExportedDetector(network, height, width)
    layer.eval()
    spec = [
        paddle.static.InputSpec([None, 3, height, width], "float32", name="image"),
        paddle.static.InputSpec([None, 2], "float32", name="im_shape"),
        paddle.static.InputSpec([None, 2], "float32", name="scale_factor"),
    ]
    paddle.jit.save(layer, str(folder / "inference"), input_spec=spec)
    # Its size, and else PP-ShiTu's: cubic, ImageNet mean and deviation.
    Manifest("detector", replace(DETECTION, size=config.image_shape), name=config.name).write(folder)


def export_detector(config: DetectionConfig, weights: Weights, target: Path, *, source: str = "the weights") -> Path:
    """Export a configuration's network with these weights as a folder that the service loads.

    Args:
        config: what was trained.
        weights: arrays by parameter name, as :func:`models.training.checkpoint.load_weights` reads them.
        target: folder to write or replace.
        source: where the weights come from, for messages.

    Returns:
        ``target``.

    Raises:
        ConfigError: the weights are of another architecture.
        ModelError: the exported graph does not load.
        OSError: the target cannot be written, or is no folder.
    """
    with replaced_folder(target) as folder:
        write_detector(config, weights, folder, source)
        Detector.load(folder, "cpu")
    return target


@contextmanager
def in_memory_detector(config: DetectionConfig, weights: Weights) -> Iterator[Detector]:
    """Export weights to a folder that is gone afterwards, and load them as the service would."""
    kind, _, _ = paddle.get_device().partition(":")
    with tempfile.TemporaryDirectory() as folder:
        write_detector(config, weights, Path(folder))
        # As many threads as the training has: loading sets the number for the whole process.
        yield Detector.load(folder, "gpu" if kind == "gpu" else "cpu", threads=cpu_threads())
