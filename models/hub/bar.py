"""The progress of a download, for people at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class DownloadBar:
    """A bar with bytes, speed and time left on standard error, from the first byte on; nothing where nobody looks."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        """Show it under a name, or not at all."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(stderr=True)
        disabled = quiet or not console.is_terminal
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=disabled)
        self._task = self._bar.add_task(name, total=None)
        self._started = False

    def __call__(self, received: int, total: int | None) -> None:
        """Show how far it is; see ``models.hub.download.Progress``."""
        if not self._started:
            self._bar.start()
            self._started = True
        self._bar.update(self._task, completed=received, total=total)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._started:
            self._bar.stop()
