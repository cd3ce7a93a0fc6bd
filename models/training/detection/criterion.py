"""What a detector's outputs for a batch are worth: assignment, then the losses of scores, boxes and distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import paddle
from paddle.nn import functional as F

from models.losses.detection import distribution_focal_loss, giou_loss, quality_focal_loss
from models.nets.picodet import cell_centres, decode_boxes

from .boxes import Boxes, inside
from .config import LossWeights
from .simota import assign


class Criterion:
    """The losses for pictures of one size.

    Args:
        height, width: of the pictures, in pixels.
        weights: of the parts.
    """

    def __init__(self, height: int, width: int, weights: LossWeights) -> None:
        self._weights = weights
        self._centres, self._strides = cell_centres(height, width)
        self._centres_np, self._strides_np = self._centres.numpy(), self._strides.numpy()[:, 0]

    def __call__(
        self,
        logits: paddle.Tensor,
        distances: paddle.Tensor,
        objects: Sequence[Boxes],
        ignored: Sequence[Boxes],
    ) -> dict[str, paddle.Tensor]:
        """Evaluate the losses.

        Args:
            logits: float32 (B, cells, 1), of the scores.
            distances: float32 (B, cells, 4 * bins), of the distributions.
            objects: of each picture, float32 (n, 5): x1, y1, x2, y2 in pixels, and the share of the object that is
                seen, with which the quality that its cells are to have is multiplied.
            ignored: of each picture, regions (m, 4) in which a cell without object is neither right nor wrong.

        Returns:
            ``quality``, ``box`` and ``distribution``, weighted scalars; their sum is the loss.
        """
        boxes = decode_boxes(distances, self._centres, self._strides)
        scores = F.sigmoid(logits.detach())[..., 0].numpy()
        found = boxes.detach().numpy()
        quality = np.zeros(scores.shape, np.float32)
        counts = np.ones(scores.shape, np.float32)
        cells, targets = [], []
        for number in range(len(objects)):
            boxes_of, seen = objects[number][:, :4], objects[number][:, 4]
            assigned = assign(scores[number], found[number], boxes_of, self._centres_np, self._strides_np)
            counts[number][inside(self._centres_np, ignored[number]).any(axis=1)] = 0.0
            counts[number][assigned.cells] = 1.0
            quality[number][assigned.cells] = assigned.quality * seen[assigned.objects]
            cells.append(number * scores.shape[1] + assigned.cells)
            targets.append(boxes_of[assigned.objects])
        chosen, wanted = np.concatenate(cells), np.concatenate(targets)
        number_found = max(1.0, float(len(chosen)))
        per_cell = quality_focal_loss(logits[..., 0], paddle.to_tensor(quality)) * paddle.to_tensor(counts)
        parts = {"quality": self._weights.quality * per_cell.sum() / number_found}
        return parts | self._box_losses(boxes, distances, chosen, wanted)

    def _box_losses(
        self, boxes: paddle.Tensor, distances: paddle.Tensor, chosen: npt.NDArray[np.int64], wanted: Boxes
    ) -> dict[str, paddle.Tensor]:
        """The losses of the boxes of the chosen cells, which count by the scores that they deserve."""
        if not len(chosen):
            nothing = distances.sum() * 0.0  # a gradient of zero, which processes that train together wait for
            return {"box": nothing, "distribution": nothing}
        index = paddle.to_tensor(chosen)
        found = boxes.reshape([-1, 4]).index_select(index)
        goals = paddle.to_tensor(wanted)
        at = chosen % len(self._centres_np)
        strides = self._strides_np[at][:, None]
        sides = np.concatenate([self._centres_np[at] - wanted[:, :2], wanted[:, 2:] - self._centres_np[at]], axis=1)
        overlap_loss = giou_loss(found, goals)
        worth = (1 - overlap_loss.detach()).clip(min=0.05)
        total = worth.sum()
        bins = distances.shape[-1] // 4
        rows = distances.reshape([-1, 4 * bins]).index_select(index).reshape([-1, bins])
        distribution = distribution_focal_loss(rows, paddle.to_tensor((sides / strides).reshape(-1).astype(np.float32)))
        distribution = distribution.reshape([-1, 4]).mean(axis=1)
        return {
            "box": self._weights.box * (overlap_loss * worth).sum() / total,
            "distribution": self._weights.distribution * (distribution * worth).sum() / total,
        }
