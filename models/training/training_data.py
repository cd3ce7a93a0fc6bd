"""What a training learns from and is measured on, and each process's share of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt

from .config import Config, Stage
from .data.datasets import Dataset, load_datasets
from .data.loader import Batch, batches
from .data.samplers import epoch_batches
from .data.transforms import Transforms
from .devices import Devices
from .evaluation import evaluated_size, match_labels, open_evaluated
from .stage_run import StageRun


@dataclass(frozen=True)
class TrainingData:
    """The pictures of a training, and this process's share of them."""

    config: Config
    devices: Devices
    train: Dataset
    transforms: Transforms
    query: Dataset | None
    gallery: Dataset | None

    @classmethod
    def load(cls, config: Config, devices: Devices) -> TrainingData:
        """Open what ``DataLoader`` names, and see that it can be evaluated on, rather now than after an epoch."""
        train = load_datasets(config.train.datasets, config.class_num)
        transforms = Transforms.from_ops(config.train.transform_ops)
        query = gallery = None
        if config.query is not None and config.gallery is not None:
            query, gallery = open_evaluated(config)
            match_labels(config, query, gallery)
            evaluated_size(config)
        return cls(config, devices, train, transforms, query, gallery)

    @property
    def class_num(self) -> int:
        """Classes that a head of ``class_num: auto`` has."""
        return len(self.train.class_names)

    def describe(self) -> str:
        """Say how much there is."""
        text = f"{len(self.train)} pictures of {self.class_num} classes an epoch"
        if self.query is not None and self.gallery is not None:
            text += f", evaluated with {len(self.query)} queries in a gallery of {len(self.gallery)}"
        return text

    def epoch_steps(self, stage: Stage) -> int:
        """Count the steps of an epoch, equally many on each device."""
        return len(self._indexes(stage, (0,)))

    def batches_from(self, run: StageRun) -> Iterator[Batch]:
        """Batches from the run's step on, epoch after epoch, each in an order and with views of its own."""
        for epoch in count(run.step // run.epoch_steps):
            seed = (self.config.seed, run.number, epoch)
            yield from batches(
                self.train,
                self.transforms,
                self._indexes(run.stage, seed),
                seed,
                start=run.step % run.epoch_steps,
                workers=self.config.train.num_workers,
            )

    def _indexes(self, stage: Stage, seed: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
        sampler = replace(self.config.train.sampler, batch_size=stage.batch_size)
        return epoch_batches(sampler, self.train.labels, seed, self.devices.rank, self.devices.world)
