"""The training loop, which reads from top to bottom: stages, epochs, steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from rich.console import Console

from .checkpoint import BEST_NAME, FINAL_NAME, LAST_NAME, load_checkpoint, save_checkpoint
from .config import Config, ConfigError, LoaderConfig, Stage
from .data.datasets import Dataset, DatasetError, load_datasets
from .data.loader import Batch, batches
from .data.samplers import epoch_batches
from .data.transforms import Transforms
from .devices import Devices, start_devices
from .evaluation import evaluate, match_labels
from .journal import LOG_NAME, Journal
from .model import initial_weights
from .stage_run import StageRun

_EVALUATION_CACHE_BYTES = 256 << 20


class Interrupted(Exception):
    """The training was asked to stop; its checkpoint has been written."""


def train(config: Config, console: Console, *, resume: bool = False) -> Path:
    """Run all stages and write the weights, averaged where averages are kept.

    Args:
        config: what to train.
        console: where progress goes.
        resume: go on from ``output_dir/last.pdparams`` if it is there.

    Returns:
        The path of the final weights.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint written.
        FloatingPointError: the loss became infinite or undefined; the last checkpoint is kept.
        ConfigError, DatasetError, PretrainedError: something that the configuration names cannot be used.
    """
    devices = start_devices(config.device)
    console = console if devices.leads else Console(quiet=True)
    paddle.seed(config.seed)
    data = Data.load(config, devices)
    state = _read_checkpoint(config, resume)
    console.print(f"{data.describe()}; {devices.world} x {devices.device}; writing to {config.output_dir}")
    if state is None:
        if devices.leads:
            _set_aside(config.output_dir, console)
        weights, pretrained = initial_weights(config, len(data.train.class_names), console.print)
    else:
        weights, pretrained = state["frozen"] | state["model"], state["pretrained"]
        console.print(f"going on from step {state['step']} of stage {config.stages[state['stage']].name}")
    first = state["stage"] if state else 0
    journal = _open_journal(config, data, devices, console, state)
    with journal.open() if journal else nullcontext(), _stop_on_signal() as stopped:
        progress = Progress(config, data, devices, journal, stopped, pretrained, state["best"] if state else None)
        for number in range(first, len(config.stages)):
            steps = data.epoch_steps(config.stages[number])
            shape = data.transforms.preprocessing.input_size
            run = StageRun(config, number, weights, pretrained, devices, steps, data.class_num, shape)
            if state is not None:
                run.restore(state)
                state = None
            progress.train_stage(run)
            weights = run.weights()
    path = config.output_dir / FINAL_NAME
    if devices.leads:
        save_checkpoint(path, weights)
        console.print(f"wrote {path}")
    devices.wait()
    return path


@dataclass(frozen=True)
class Data:
    """The pictures of a training, and this process's share of them."""

    config: Config
    devices: Devices
    train: Dataset
    transforms: Transforms
    query: Dataset | None
    gallery: Dataset | None

    @classmethod
    def load(cls, config: Config, devices: Devices) -> Data:
        """Open what ``DataLoader`` names."""

        def evaluated(loader: LoaderConfig | None) -> Dataset | None:
            # Their classes may be others than those trained on, and their pictures are read once an evaluation.
            return None if loader is None else load_datasets(loader.datasets, cache_bytes=_EVALUATION_CACHE_BYTES)

        train = load_datasets(config.train.datasets, config.class_num)
        transforms = Transforms.from_ops(config.train.transform_ops)
        query, gallery = evaluated(config.query), evaluated(config.gallery)
        if query is not None and gallery is not None:
            match_labels(config, query, gallery)  # rather now than after the first epoch
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
        steps = len(self._indexes(stage, (0,)))
        if steps == 0:
            raise DatasetError(
                f"{len(self.train)} pictures do not fill a batch of {stage.batch_size}: lower batch_size"
            )
        return steps

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


class Progress:
    """How far the training is: takes steps, and evaluates, logs and saves between them."""

    def __init__(
        self,
        config: Config,
        data: Data,
        devices: Devices,
        journal: Journal | None,
        stopped: list[int],
        pretrained: list[str],
        best: float | None,
    ) -> None:
        self._config = config
        self._data = data
        self._devices = devices
        self._journal = journal
        self._stopped = stopped
        self._pretrained = pretrained
        self._best = best
        self._saved_at = time.monotonic()

    def train_stage(self, run: StageRun) -> None:
        """Train a stage to its end."""
        for batch in self._data.batches_from(run):
            if run.done:  # resumed after its last step
                return
            try:
                figures, stop = run.train_on(batch, bool(self._stopped))
                if self._journal is not None:
                    self._journal.step(self._place(run), figures, len(batch.labels) * self._devices.world)
                self._after_step(run)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}; {self._rescue(run)}") from None
            if stop:
                self._save(run)
                raise Interrupted(f"stopped at step {run.step} of stage {run.stage.name}; go on with --resume")
            if run.done:
                return

    def _after_step(self, run: StageRun) -> None:
        """Evaluate and save where it is time to."""
        epoch, rest = divmod(run.step, run.epoch_steps)
        if rest == 0 or run.done:
            wanted = self._config.eval_during_train and epoch % self._config.eval_interval == 0
            metrics = self._evaluate(run) if wanted or run.done else None
            if self._journal is not None:
                self._journal.epoch(self._place(run), metrics)
            self._devices.wait()
        if self._config.save_interval and rest == 0 and epoch % self._config.save_interval == 0 and self._devices.leads:
            name = f"epoch_{epoch}" if len(self._config.stages) == 1 else f"{run.stage.name}_epoch_{epoch}"
            save_checkpoint(self._config.output_dir / f"{name}.pdparams", run.weights())
        if run.done or time.monotonic() - self._saved_at > self._config.save_interval_s:
            self._save(run)

    def _evaluate(self, run: StageRun) -> dict[str, float] | None:
        """Measure the network as it is now, and keep its weights if it is the best so far."""
        query, gallery = self._data.query, self._data.gallery
        if not self._devices.leads or query is None or gallery is None:
            return None
        transforms = Transforms.from_ops(self._config.query.transform_ops)
        encode = run.encoder(transforms.preprocessing.input_size)
        metrics = evaluate(self._config, encode, query, gallery).figures()
        score = metrics["mAP"]
        if self._best is None or score > self._best:
            self._best = score
            save_checkpoint(self._config.output_dir / BEST_NAME, run.weights())
        return metrics

    def _save(self, run: StageRun) -> None:
        if not run.is_finite():  # and better the checkpoint before than a broken one
            raise FloatingPointError(f"weights became infinite or undefined at step {run.step} of {run.stage.name}")
        self._saved_at = time.monotonic()
        if self._devices.leads:
            state = run.state() | {"pretrained": self._pretrained, "best": self._best}
            save_checkpoint(self._config.output_dir / LAST_NAME, state)

    def _rescue(self, run: StageRun) -> str:
        """See that a checkpoint is left behind after the loss went wrong, and say what to do."""
        path = self._config.output_dir / LAST_NAME
        # The steps that led here may have spoilt the weights already: an earlier checkpoint is the better one.
        if self._devices.leads and not path.is_file() and run.is_finite():
            self._save(run)
        kept = f"what was trained before is in {path}; " if path.is_file() else ""
        return f"{kept}lower Optimizer.lr.learning_rate, or set Optimizer.clip_norm_global"

    def _place(self, run: StageRun) -> dict[str, Any]:
        return {
            "stage": run.stage.name,
            "number": run.number,
            "epoch": round(run.step / run.epoch_steps, 4),
            "step": run.step,
        }


def _read_checkpoint(config: Config, resume: bool) -> dict[str, Any] | None:
    """Read the checkpoint that the training goes on from, or None to begin.

    Raises:
        ConfigError: it is not one, or of a configuration with fewer stages.
    """
    path = config.checkpoints
    if path is None:
        path = config.output_dir / LAST_NAME
        if not resume or not path.is_file():
            return None
    if not path.is_file() and path.with_name(path.name + ".pdparams").is_file():
        path = path.with_name(path.name + ".pdparams")
    if not path.is_file():
        raise ConfigError(f"Global.checkpoints: there is no {path}")
    state = load_checkpoint(path)
    if not isinstance(state, dict) or "optimizer" not in state:
        raise ConfigError(f"{path} holds weights only; to start from them set Global.pretrained_model instead")
    if state["stage"] >= len(config.stages):
        raise ConfigError(f"{path} is of stage {state['stage'] + 1}, and this configuration has {len(config.stages)}")
    return state


def _set_aside(folder: Path, console: Console) -> None:
    """Move what an earlier training left there out of the way: its best weights are not this training's."""
    found = [path for name in (LAST_NAME, BEST_NAME, FINAL_NAME, LOG_NAME) if (path := folder / name).is_file()]
    if not found:
        return
    target = folder / "previous"
    target.mkdir(exist_ok=True)
    for path in found:
        path.replace(target / path.name)
    console.print(f"an earlier training of {folder} is now in {target}; --resume would have gone on with it")


def _open_journal(
    config: Config, data: Data, devices: Devices, console: Console, state: dict[str, Any] | None
) -> Journal | None:
    if not devices.leads:
        return None
    total = sum(max(1, round(stage.epochs * data.epoch_steps(stage))) for stage in config.stages)
    done = (state["stage"], state["step"]) if state else (0, 0)
    return Journal(config.output_dir, console, total, config.print_batch_step, done)


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second one does stop at once."""
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
