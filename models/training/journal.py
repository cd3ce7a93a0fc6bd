"""What a training tells: a JSONL log, a progress bar, a live table of epochs, and curves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .reports.training_log import cut_log

LOG_NAME = "train.jsonl"
CURVES_NAME = "curves.png"
_SHOWN_ROWS = 12


class Journal:
    """The log and the screen of one process.

    Args:
        folder: where ``train.jsonl`` and ``curves.png`` go.
        console: where progress is shown: live on a terminal, else a line every ``print_batch_step`` steps.
        total_steps: of all stages together.
        completed_steps: of them, those that an earlier run took.
        print_batch_step: see ``console``.
        done: (stage, step) that the training goes on from; later records of the log are cut off.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        total_steps: int,
        completed_steps: int,
        print_batch_step: int,
        done: tuple[int, int],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG_NAME
        self._curves: Path | None = folder / CURVES_NAME
        self._console = console
        self._print_batch_step = print_batch_step
        self._rows: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._pictures = 0
        self._epoch_started = time.monotonic()
        cut_log(self._path, done)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
        )
        self._task = self._progress.add_task("", total=total_steps, completed=completed_steps, status="")
        self._live: Live | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show progress while the block runs."""
        with self._path.open("a", encoding="utf-8") as self._log:
            if not self._console.is_terminal:
                yield
                return
            with Live(console=self._console, get_renderable=self._render, refresh_per_second=4) as self._live:
                yield

    def step(self, place: Mapping[str, Any], figures: Mapping[str, float], pictures: int) -> None:
        """Note one optimiser step.

        Args:
            place: ``stage`` (its name), ``number`` (which), ``epoch`` (of the stage, a fraction) and ``step``.
            figures: learning rate, losses, accuracy.
            pictures: taken in this step by all devices.
        """
        self._write({"event": "step", **place, **figures})
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._pictures += pictures
        status = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        rate = self._pictures / max(1e-9, time.monotonic() - self._epoch_started)
        self._progress.update(
            self._task, advance=1, description=str(place["stage"]), status=f"{status} | {rate:.0f} pictures/s"
        )
        if self._live is None and place["step"] % self._print_batch_step == 0:
            task = self._progress.tasks[0]
            self._say(f"{place['stage']} {task.completed}/{task.total} epoch {place['epoch']:.2f} {status}")

    def epoch(self, place: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Add a row for the steps since the last row, with what was evaluated after them, and draw the curves."""
        if metrics is not None:
            self._write({"event": "eval", **place, **metrics})
        means = {name: value / max(1, self._steps) for name, value in self._sums.items()}
        seconds = time.monotonic() - self._epoch_started
        row = {"stage": place["stage"], "epoch": f"{place['epoch']:.2f}"}
        row |= {name: f"{value:.4g}" for name, value in (means | dict(metrics or {})).items()}
        self._rows.append(row | {"seconds": f"{seconds:.0f}"})
        if self._live is None:
            self._say(" ".join(f"{name} {value}" for name, value in self._rows[-1].items()))
        self._sums, self._steps, self._pictures, self._epoch_started = {}, 0, 0, time.monotonic()
        self._draw()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            self._log.write(json.dumps(record) + "\n")
            self._log.flush()
        except OSError as error:
            raise OSError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def _render(self) -> Group:
        if not self._rows:
            return Group(self._progress)
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        table = Table(*names)
        for row in self._rows[-_SHOWN_ROWS:]:
            table.add_row(*(escape(row.get(name, "")) for name in names))
        return Group(table, self._progress)

    def _draw(self) -> None:
        if self._curves is None:
            return
        try:
            # Matplotlib takes a second to import; nothing but this needs it.
            from .reports.plots import plot_training

            plot_training(self._path, self._curves)
        except (ImportError, OSError) as error:  # no reason to end a training
            self._say(f"{self._curves} is not drawn: {error}; `make install` installs what draws")
            self._curves = None
