"""The training loop, which reads from top to bottom: stages, epochs, steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import paddle
from rich.console import Console

from .checkpoint import BEST_NAME, FINAL_NAME, LAST_NAME, save_checkpoint
from .config import ConfigError, TrainingConfig
from .data.errors import DatasetError
from .devices import Devices, start_devices
from .earlier import find_checkpoint, read_checkpoint, set_aside
from .journal import Journal
from .stage_run import StageRun
from .task import Task
from .tasks import open_task


class Interrupted(Exception):
    """The training was asked to stop; its checkpoint has been written."""


def train(config: TrainingConfig, console: Console, *, resume: bool = False) -> Path:
    """Run all stages and write the weights, averaged where averages are kept.

    Args:
        config: what to train.
        console: where progress goes.
        resume: go on from ``output_dir/last.pdparams`` if it is there, else from ``Global.checkpoints`` if it is set.

    Returns:
        The path of the final weights.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint written.
        FloatingPointError: the loss became infinite or undefined; the last checkpoint is kept.
        ConfigError, DatasetError, ModelError, PretrainedError: something that the configuration names cannot be used.
        OSError: something cannot be written; the last checkpoint is kept.
    """
    devices = start_devices(config.device)
    console = console if devices.leads else Console(quiet=True)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    paddle.seed(config.seed)
    task = open_task(config, devices)
    epoch_steps = [task.epoch_steps(stage) for stage in config.stages]
    begun = find_checkpoint(config, resume)
    state = None if begun is None else read_checkpoint(task, begun)
    say(f"{task.describe()}; {devices.world} x {devices.device}; writing to {config.output_dir}")
    if state is None:
        weights, pretrained = task.initial_weights(say)
    else:
        weights, pretrained = state["frozen"] | state["model"], state["pretrained"]
        say(f"going on from step {state['step']} of stage {config.stages[state['stage']].name}, as {begun} has it")
    devices.wait()  # until all have read what may be moved now
    if devices.leads and (begun is None or begun.parent.resolve() != config.output_dir.resolve()):
        set_aside(config.output_dir, say)
    journal = _open_journal(config, epoch_steps, console, state) if devices.leads else None
    with journal.open() if journal else nullcontext(), _stop_on_signal() as stopped:
        progress = Progress(task, devices, journal, stopped, pretrained, state)
        for number in range(state["stage"] if state else 0, len(config.stages)):
            run = StageRun(task, number, weights, pretrained, devices, epoch_steps[number])
            if state is not None:
                run.restore(state)
                state = None
            progress.train_stage(run)
            weights = run.weights()
    path = config.output_dir / FINAL_NAME
    if devices.leads:
        save_checkpoint(path, weights)
        say(f"wrote {path}")
    devices.wait()
    return path


class Progress:
    """How far the training is: takes steps, and evaluates, logs and saves between them."""

    def __init__(
        self,
        task: Task,
        devices: Devices,
        journal: Journal | None,
        stopped: list[int],
        pretrained: list[str],
        state: dict[str, Any] | None,
    ) -> None:
        self._task = task
        self._config = config = task.config
        self._devices = devices
        self._journal = journal
        self._stopped = stopped
        self._pretrained = pretrained
        # Where the best weights are not here any more, the best of those to come are wanted.
        has_best = state is not None and (config.output_dir / BEST_NAME).is_file()
        self._best: float | None = state["best"] if has_best else None
        self._epoch_closed: bool = state["epoch_closed"] if state else True
        self._saved_at = time.monotonic()

    def train_stage(self, run: StageRun) -> None:
        """Train a stage to its end; what is trained when something fails is kept."""
        try:
            if not self._epoch_closed:  # it was stopped while it evaluated
                self._after_step(run)
            self._take_steps(run)
        except Interrupted:
            self._save(run)
            raise Interrupted(f"stopped at step {run.step} of stage {run.stage.name}; go on with --resume") from None
        except FloatingPointError as error:
            # The steps that led here may have spoilt the weights already: an earlier checkpoint is the better one.
            kept = self._keep(run, if_there_is_none=True)
            what = f"{kept}; lower Optimizer.lr.learning_rate, or set Optimizer.clip_norm_global"
            raise FloatingPointError(f"{error}{what}") from None
        except (ConfigError, DatasetError) as error:
            raise type(error)(f"{error}{self._keep(run)}") from error

    def _take_steps(self, run: StageRun) -> None:
        if run.done:  # resumed after its last step
            return
        for batch in self._batches_from(run):
            figures, stop = run.train_on(batch, bool(self._stopped))
            if self._journal is not None:
                self._journal.step(self._place(run), figures, len(batch) * self._devices.world)
            self._after_step(run)
            if stop:
                raise Interrupted
            if run.done:
                return

    def _batches_from(self, run: StageRun) -> Iterator[Any]:
        """Batches from the run's step on, epoch after epoch, each in an order and with views of its own."""
        for epoch in count(run.step // run.epoch_steps):
            yield from self._task.epoch(run.stage, (self._config.seed, run.number, epoch), run.step % run.epoch_steps)

    def _after_step(self, run: StageRun) -> None:
        """Evaluate and save where it is time to."""
        if run.step % run.epoch_steps == 0 or run.done:
            self._epoch_closed = False
            self._close_epoch(run)
            self._epoch_closed = True
        if run.done or time.monotonic() - self._saved_at > self._config.save_interval_s:
            self._save(run)

    def _close_epoch(self, run: StageRun) -> None:
        epoch, rest = divmod(run.step, run.epoch_steps)
        wanted = self._config.eval_during_train and epoch % self._config.eval_interval == 0
        metrics = self._evaluate(run) if wanted or run.done else None
        if self._journal is not None:
            self._journal.epoch(self._place(run), metrics)
        if self._config.save_interval and rest == 0 and epoch % self._config.save_interval == 0 and self._devices.leads:
            stage = "" if len(self._config.stages) == 1 else f"{run.stage.name.replace('/', '_')}_"
            save_checkpoint(self._config.output_dir / f"{stage}epoch_{epoch}.pdparams", run.weights())

    def _evaluate(self, run: StageRun) -> dict[str, float] | None:
        """Measure the network as it is now, and keep its weights if it is the best so far; the first process does it.

        Raises:
            Interrupted: a process was asked to stop meanwhile.
        """
        if not self._task.can_evaluate:
            return None
        if not self._devices.leads:
            while not self._meet():
                pass
            return None
        metrics = self._task.evaluate(run.weights(), self._meet)
        self._meet(done=True)
        if self._best is None or metrics[self._task.best_figure] > self._best:
            self._best = metrics[self._task.best_figure]
            save_checkpoint(self._config.output_dir / BEST_NAME, run.weights())
        return metrics

    def _meet(self, done: bool = False) -> bool:
        """Meet the other processes during an evaluation: gloo gives up on one that is silent for 30 seconds.

        Args:
            done: whether it is done, as the first process knows.

        Returns:
            Whether it is done.

        Raises:
            Interrupted: one of them was asked to stop.
        """
        ended, stop = self._devices.mean([float(done), float(bool(self._stopped))])
        if stop > 0:
            raise Interrupted
        return ended > 0

    def _save(self, run: StageRun) -> None:
        if not run.is_finite():  # and better the checkpoint before than a broken one
            raise FloatingPointError(f"weights became infinite or undefined at step {run.step} of {run.stage.name}")
        self._saved_at = time.monotonic()
        if self._devices.leads:
            own = {"pretrained": self._pretrained, "best": self._best, "epoch_closed": self._epoch_closed}
            save_checkpoint(self._config.output_dir / LAST_NAME, run.state() | own)

    def _keep(self, run: StageRun, if_there_is_none: bool = False) -> str:
        """See that a checkpoint is left behind after something went wrong, and say where."""
        path = self._config.output_dir / LAST_NAME
        is_wanted = self._devices.leads and run.number + run.step > 0 and run.is_finite()
        if is_wanted and not (if_there_is_none and path.is_file()):
            self._save(run)
        return f"; what was trained before is in {path}" if path.is_file() else ""

    def _place(self, run: StageRun) -> dict[str, Any]:
        return {
            "stage": run.stage.name,
            "number": run.number,
            "epoch": round(run.step / run.epoch_steps, 4),
            "step": run.step,
        }


def _open_journal(
    config: TrainingConfig, epoch_steps: Sequence[int], console: Console, state: dict[str, Any] | None
) -> Journal:
    totals = [max(1, round(stage.epochs * steps)) for stage, steps in zip(config.stages, epoch_steps, strict=True)]
    stage, step = (state["stage"], state["step"]) if state else (0, 0)
    completed = sum(totals[:stage]) + step
    return Journal(config.output_dir, console, sum(totals), completed, config.print_batch_step, (stage, step))


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second SIGINT does stop at once.

    SIGTERM is collected however often it comes: the launcher of several processes repeats it within a second.
    """
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
