"""The training of binary feature models, as the loop sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import paddle

from models import nets
from models.losses import NEED_LOGITS

from .checkpoint import Weights
from .config import Config, ConfigError, Stage
from .data.datasets import Dataset, load_datasets
from .data.loader import Batch, batches
from .data.samplers import epoch_batches
from .data.transforms import Transforms
from .devices import Devices
from .evaluation import evaluate, evaluated_size, match_labels, open_evaluated
from .hash_losses import build_loss, evaluate_loss
from .model import build_model, frozen_features, frozen_trunk, initial_weights
from .task import Trunk


@dataclass(frozen=True)
class Hashing:
    """A binary feature model and its pictures; a :class:`~models.training.task.Task`. Use :meth:`open`."""

    config: Config
    devices: Devices
    train: Dataset
    transforms: Transforms
    query: Dataset | None
    gallery: Dataset | None
    criterion: tuple[paddle.nn.Layer, ...]
    best_figure: ClassVar[str] = "mAP"

    @classmethod
    def open(cls, config: Config, devices: Devices) -> Hashing:
        """Open what ``DataLoader`` names, and see that it can be evaluated on, rather now than after an epoch.

        Raises:
            ConfigError, DatasetError: it cannot be used.
        """
        train = load_datasets(config.train.datasets, config.class_num)
        transforms = Transforms.from_ops(config.train.transform_ops)
        query = gallery = None
        if config.query is not None and config.gallery is not None:
            query, gallery = open_evaluated(config)
            match_labels(config, query, gallery)
            evaluated_size(config)
        criterion = tuple(build_loss(term) for term in config.losses)
        return cls(config, devices, train, transforms, query, gallery, criterion)

    def describe(self) -> str:
        """Say how much there is to learn from."""
        text = f"{len(self.train)} pictures of {len(self.train.class_names)} classes an epoch"
        if self.query is not None and self.gallery is not None:
            text += f", evaluated with {len(self.query)} queries in a gallery of {len(self.gallery)}"
        return text

    def build(self, first_block: int = 0) -> nets.RecModel:
        """Make the network; a head that no loss looks at is left as it is."""
        model = build_model(self.config, self._class_num, first_block)
        if model.head is not None and not any(term.name in NEED_LOGITS for term in self.config.losses):
            for parameter in model.head.parameters():
                parameter.stop_gradient = True  # processes would wait for its gradient, which never comes
        return model

    def initial_weights(self, say: Callable[[str], Any]) -> tuple[Weights, list[str]]:
        """Make the weights that the training starts from."""
        return initial_weights(self.config, self._class_num, say)

    def epoch_steps(self, stage: Stage) -> int:
        """Count the steps of an epoch."""
        return len(self._indexes(stage, (0,)))

    def epoch(self, stage: Stage, seed: tuple[int, ...], start: int) -> Iterator[Batch]:
        """Draw the batches of an epoch, in an order and with views of its own."""
        return batches(
            self.train,
            self.transforms,
            self._indexes(stage, seed),
            seed,
            start=start,
            workers=self.config.train.num_workers,
        )

    def freeze_trunk(self, weights: Weights, first_block: int) -> Trunk:
        """Put the blocks below ``first_block`` on Paddle Inference."""
        return frozen_trunk(self.config, weights, first_block, self.transforms.size)

    def forward(self, network: Any, batch: Batch, trunk: Trunk | None) -> dict[str, paddle.Tensor]:
        """Give ``features`` and perhaps ``logits``."""
        views = trunk(batch.views) if trunk else batch.views
        try:
            output = network(paddle.to_tensor(views), paddle.to_tensor(batch.labels))
        except ValueError as error:
            height, width = batch.views.shape[2:]
            raise ConfigError(f"DataLoader.Train: pictures of {height} x {width} pixels: {error}") from error
        return output if isinstance(output, dict) else {"features": output}

    def losses(
        self, output: dict[str, paddle.Tensor], batch: Batch
    ) -> tuple[dict[str, paddle.Tensor], dict[str, float]]:
        """Evaluate ``Loss.Train``, and the accuracy where the network has a head."""
        parts = {}
        for term, loss in zip(self.config.losses, self.criterion, strict=True):
            parts[term.name] = term.weight * evaluate_loss(loss, output, batch)
        return parts, {"accuracy": _accuracy(output["logits"], batch.labels)} if "logits" in output else {}

    @property
    def can_evaluate(self) -> bool:
        """Whether the configuration has queries and a gallery."""
        return self.query is not None and self.gallery is not None

    def evaluate(self, weights: Weights, tick: Callable[[], Any]) -> dict[str, float]:
        """Search the queries among the gallery."""
        if self.query is None or self.gallery is None:
            raise ConfigError("there is no DataLoader.Eval to evaluate on")
        network = frozen_features(self.config, weights, evaluated_size(self.config))

        def encode(views: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            tick()
            return network(views)

        return evaluate(self.config, encode, self.query, self.gallery).figures()

    @property
    def _class_num(self) -> int:
        """Classes that a head of ``class_num: auto`` has."""
        return len(self.train.class_names)

    def _indexes(self, stage: Stage, seed: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
        sampler = replace(self.config.train.sampler, batch_size=stage.batch_size)
        return epoch_batches(sampler, self.train.labels, seed, self.devices.rank, self.devices.world)


def _accuracy(logits: paddle.Tensor, labels: npt.NDArray[np.int64]) -> float:
    labelled = labels >= 0
    if not labelled.any():
        return 0.0
    # Where they are: of 185,341 classes the logits of a batch are hundreds of megabytes to copy from a GPU.
    named = logits.argmax(axis=1).numpy()
    return float((named[labelled] == labels[labelled]).mean())
