"""What the commands of this package share: their help, and one line about what went wrong instead of a traceback."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from models.inference import available_cores

USAGE_ERROR = 2

# What Paddle warns of at every start and no user of these commands can do anything about.
_NEEDLESS_WARNINGS = ("No ccache found", "When training, we now always track global mean and variance")


def start(command: Callable[..., Any]) -> None:
    """Run a function as the command line of its module; its docstring is the help, with paragraphs refilled."""
    for message in _NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    tune_cpu()
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


def tune_cpu() -> None:
    """Set what Paddle's mathematics library reads once, when it is loaded; what the user has set stays."""
    # Paddle would set one thread. Processes that train together share the cores.
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    # Paddle ships an old MKL that takes its slowest kernels on processors that are not Intel's: asked for AVX2,
    # a matrix product is five times as fast there.
    if "avx2" in (cpuinfo := _read_cpuinfo()) and "GenuineIntel" not in cpuinfo:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _read_cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8") if path.exists() else ""
