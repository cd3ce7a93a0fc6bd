"""The training of a main-body detector, as the loop sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import paddle

from models.inference import DETECTION

from ..checkpoint import Weights
from ..config import ConfigError, Stage
from ..data.loader import begun_ahead
from ..devices import Devices
from ..model import Trunk as TrunkLayer
from ..model import fit_weights, freeze
from ..task import Trunk
from .boxes import Boxes
from .config import DetectionConfig
from .criterion import Criterion
from .detector import build_detector, in_memory_detector
from .evaluation import evaluate_detector, open_evaluated
from .pretrained import initial_detector
from .sources import BoxRow, Source, open_source, shares
from .views import Sample, lit, mirrored


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step sees.

    Attributes:
        views: float32 (B, 3, height, width), normalized.
        objects: boxes of each picture, float32 (n, 5) in pixels, with the share of the object that is seen.
        ignored: of each, regions that are neither object nor background, float32 (m, 4).
    """

    views: npt.NDArray[np.float32]
    objects: Sequence[Boxes]
    ignored: Sequence[Boxes]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.objects)

    def first(self, count: int) -> Batch:
        """Give the first pictures only."""
        return Batch(self.views[:count], self.objects[:count], self.ignored[:count])


@dataclass(frozen=True)
class Detection:
    """A main-body detector and its pictures; a :class:`~models.training.task.Task`. Use :meth:`open`."""

    config: DetectionConfig
    devices: Devices
    sources: Sequence[Source]
    evaluated: Sequence[BoxRow] | None
    criterion: Criterion
    best_figure: ClassVar[str] = "hit@1"

    @classmethod
    def open(cls, config: DetectionConfig, devices: Devices) -> Detection:
        """Open what ``DataLoader`` names.

        Raises:
            DatasetError: it cannot be used.
        """
        sources = [open_source(source) for source in config.sources]
        evaluated = open_evaluated(config.evaluated) if config.evaluated is not None else None
        return cls(config, devices, sources, evaluated, Criterion(*config.image_shape, config.loss))

    def describe(self) -> str:
        """Say how much there is to learn from."""
        text = f"{self.config.epoch_pictures} pictures of {len(self.sources)} sources an epoch"
        return text + (f", evaluated on {len(self.evaluated)} photos" if self.evaluated is not None else "")

    def build(self, first_block: int = 0) -> paddle.nn.Layer:
        """Make the network."""
        return build_detector(self.config, first_block)

    def initial_weights(self, say: Callable[[str], Any]) -> tuple[Weights, list[str]]:
        """Make the weights that the training starts from."""
        return initial_detector(self.config, say)

    def epoch_steps(self, stage: Stage) -> int:
        """Count the steps of an epoch."""
        return max(1, self.config.epoch_pictures // (stage.batch_size * self.devices.world))

    def epoch(self, stage: Stage, seed: tuple[int, ...], start: int) -> Iterator[Batch]:
        """Draw the batches of an epoch.

        A picture depends on the seed, the step and its place in the batch of all devices together, and nothing else.
        """
        first = self.devices.rank * stage.batch_size
        places = range(first, first + stage.batch_size)

        def begin(pool: ThreadPoolExecutor, step: int) -> list[Future[tuple[npt.NDArray[np.float32], Sample]]]:
            return [pool.submit(self._draw, (*seed, step, place)) for place in places]

        for futures in begun_ahead(begin, range(start, self.epoch_steps(stage)), self.config.num_workers):
            views, samples = zip(*(future.result() for future in futures), strict=True)
            yield Batch(np.stack(views), [each.objects for each in samples], [each.ignored for each in samples])

    def freeze_trunk(self, weights: Weights, first_block: int) -> Trunk:
        """Put backbone, or backbone and the neck's way down, on Paddle Inference."""
        network = self.build()
        fit_weights(network, weights, "the stage")
        return freeze(TrunkLayer(network, first_block), (3, *self.config.image_shape))

    def forward(self, network: Any, batch: Batch, trunk: Trunk | None) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Give the logits of scores and distances."""
        if trunk is None:
            return network(paddle.to_tensor(batch.views))
        return network([paddle.to_tensor(each) for each in trunk(batch.views)])

    def losses(
        self, output: tuple[paddle.Tensor, paddle.Tensor], batch: Batch
    ) -> tuple[dict[str, paddle.Tensor], dict[str, float]]:
        """Evaluate the parts of the loss."""
        logits, distances = (tensor.astype("float32") for tensor in output)
        return self.criterion(logits, distances, batch.objects, batch.ignored), {}

    @property
    def can_evaluate(self) -> bool:
        """Whether the configuration has photos to measure on."""
        return self.evaluated is not None

    def evaluate(self, weights: Weights, tick: Callable[[], Any]) -> dict[str, float]:
        """Find the objects of the photos to measure on, as the exported detector would."""
        if self.evaluated is None:
            raise ConfigError("there is no DataLoader.Eval to evaluate on")
        with in_memory_detector(self.config, weights) as detector:
            return evaluate_detector(detector, self.evaluated, lambda *_: tick())

    def _draw(self, seed: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], Sample]:
        rng = np.random.default_rng(seed)
        source = self.sources[rng.choice(len(self.sources), p=shares(self.config.sources))]
        sample = source.draw(rng, *self.config.image_shape)
        if rng.random() < 0.5:
            sample = mirrored(sample)
        return normalized(lit(rng, sample.picture)), sample


def normalized(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Bring pixels (H, W, 3) from 0 to 255 to what the network takes: float32 (3, H, W)."""
    mean, std = np.float32(DETECTION.mean), np.float32(DETECTION.std)
    return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1))
