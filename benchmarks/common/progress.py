"""A progress bar that leaves the standard output to the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

_Item = TypeVar("_Item")


def track(items: Sequence[_Item], doing: str) -> Iterable[_Item]:
    """Go through items while a bar on the standard error says how far it is."""
    return rich_track(items, doing, console=Console(stderr=True), transient=True)
