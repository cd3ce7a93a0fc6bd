"""One table a benchmark, for the terminal or for a Markdown document."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], *, markdown: bool
) -> None:
    """Print a table; the first column is text, the others are figures."""
    notes = [*notes, f"Measured on {machine()}."]
    if markdown:
        print(f"**{title}**\n")
        print("| " + " | ".join(columns) + " |")
        print("|" + "|".join(["---", *["---:"] * (len(columns) - 1)]) + "|")
        for row in rows:
            print("| " + " | ".join(row) + " |")
        print("\n" + " ".join(notes))
        return
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own; a table folded to 80 columns is hard to read in a log.
    console = Console(width=None if os.isatty(1) else 120)
    console.print(table)
    for note in notes:
        console.print(f"  {note}", highlight=False, markup=False)


def machine() -> str:
    """The processor and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
