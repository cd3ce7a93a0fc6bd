"""What the demonstration tells: the tables, the sum, and what to try next."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.demo.panel import Picture
from service.demo.shelf import ShelfPhoto
from service.demo.tour import Finding
from service.drawing import Mark, draw_marks

SHARE_EXPECTED = 0.7
"""Share of right answers below which the demonstration counts as failed."""

_RIGHT_SHOWN = 12
_GREEN, _RED = (10, 120, 50), (200, 40, 30)


def findings_table(title: str, findings: Sequence[Finding]) -> Table:
    """All the wrong answers and the first right ones, in the order in which they were searched."""
    right = [finding for finding in findings if finding.right]
    hidden = {id(finding) for finding in right[_RIGHT_SHOWN:]}
    table = Table(title=f"{title}: {len(right)} of {len(findings)} right", title_justify="left")
    table.add_column("query")
    table.add_column("found")
    table.add_column("Hamming distance", justify="right")
    table.add_column("right?", justify="center")
    for finding in findings:
        if id(finding) in hidden:
            continue
        found = finding.found or "nothing"
        distance = "" if finding.distance is None else str(finding.distance)
        mark = Text("yes", "green") if finding.right else Text("no", "red")
        table.add_row(Text(finding.label), Text(found), distance, mark)
    if hidden:
        table.caption = f"{len(hidden)} more right ones are not shown"
    return table


def annotate(shelf: ShelfPhoto, findings: Sequence[Finding]) -> Picture:
    """Draw onto a shelf photo what was found for each pack, and how far away: green where right, red where not."""
    marks = []
    for (x1, y1, x2, y2), finding in zip(shelf.boxes.tolist(), findings, strict=True):
        # The brand alone: packs stand closer than labels are long.
        brand = finding.found.split()[0] if finding.found is not None else None
        marks.append(Mark((x1, y1, x2, y2), brand, finding.distance, colour=_GREEN if finding.right else _RED))
    return draw_marks(shelf.picture, marks)


def sum_up(console: Console, findings: Sequence[Finding]) -> bool:
    """Print how many answers were right and how long requests took; returns whether that is enough."""
    right = sum(finding.right for finding in findings)
    times = sorted(finding.took_ms for finding in findings)
    console.print(
        f"[bold]{right} of {len(findings)} searches found the right product[/]; a whole request took "
        f"{statistics.median(times):.1f} ms (median), {times[int(0.95 * (len(times) - 1))]:.1f} ms (95 %)."
    )
    enough = right >= SHARE_EXPECTED * len(findings)
    if not enough:
        console.print(f"[bold red]Fewer than {SHARE_EXPECTED:.0%} were right: something is wrong with this setup.[/]")
    return enough


def invite(console: Console, url: str, pictures: Path, example: Path) -> None:
    """Print where the service is and what to do with it; ``example`` is a picture to search with."""
    lines = [
        f"The service stays up at {url}",
        f"  API documentation  {url}/docs",
        f"  health             {url}/health",
        f"  drawn pictures     {pictures}",
        "",
        f"  curl -F image=@{shlex.quote(str(example))} -F top_k=3 {url}/search",
        "",
        "Ctrl-C stops it and deletes its temporary folder.",
    ]
    console.rule()
    # Never folded: a command in two pieces cannot be copied.
    console.print(Text("\n".join(lines)), soft_wrap=True)
