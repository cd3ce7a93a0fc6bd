"""A progress bar that leaves the standard output to the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.progress import track as rich_track

_Item = TypeVar("_Item")


def track(items: Sequence[_Item], doing: str) -> Iterable[_Item]:
    """Go through items while a bar on the standard error says how far it is."""
    return rich_track(items, doing, console=Console(stderr=True), transient=True)


@contextmanager
def bar(doing: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar; the block is given what tells how far of ``total`` it is."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)
