"""What the commands of this package share: their help, and one line about what went wrong instead of a traceback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

USAGE_ERROR = 2

# What Paddle warns of at every start and no user of these commands can do anything about.
_NEEDLESS_WARNINGS = ("No ccache found", "When training, we now always track global mean and variance")


def start(command: Callable[..., Any]) -> None:
    """Run a function as the command line of its module; its docstring is the help, with paragraphs refilled."""
    for message in _NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command()(command)
    app()


@contextmanager
def explained(console: Console, *expected: type[Exception]) -> Iterator[None]:
    """Print what went wrong if it is of an expected kind, and end the command with status 2."""
    try:
        yield
    except expected as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE_ERROR) from None
