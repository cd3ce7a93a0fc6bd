"""What the commands print: tables for people, JSON for machines, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .access import Json
from .build import BuildReport
from .build import Progress as ProgressCall

if TYPE_CHECKING:
    from .bulk import LoadReport
    from .model_pull import PullReport
    from .model_shelf import Model
    from .paddleclas import ExportReport, ImportReport
    from .rehash import RehashReport

_PIPE_WIDTH = 200
_SHOWN_TROUBLES = 20


def console() -> Console:
    """Make the console for results; a pipe gets lines long enough not to be folded."""
    stdout = Console(highlight=False)
    return stdout if stdout.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def print_error(message: str) -> None:
    """Say on standard error what went wrong."""
    for line in message.splitlines() or ["failed"]:
        print(f"shitu: {line}", file=sys.stderr)


def print_unknown_model() -> None:
    """Say on standard error how a gallery of unknown model comes to be served."""
    print_error("which model made the codes is not known: start once with `shitu serve --adopt` and that model")


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(value, ensure_ascii=False))


def print_items(items: Iterable[Json]) -> None:
    """Print items as a table."""
    table = _table("id", "label", "created at", "metadata")
    for item in items:
        table.add_row(*_cells(item["id"], item["label"], item.get("created_at") or "", _compact(item["metadata"])))
    console().print(table)


def print_matches(answer: Json) -> None:
    """Print the answer of a search: a table of matches for each object."""
    out = console()
    for number, found in enumerate(answer["objects"], 1):
        out.print(Text(f"object {number}: {_place(found)}", style="bold"))
        if not found["matches"]:
            out.print("  no match within the radius")
            continue
        table = _table("distance", "label", "id", "metadata")
        for match in found["matches"]:
            table.add_row(*_cells(match["distance"], match["label"], match["id"], _compact(match["metadata"])))
        out.print(table)
        if found["truncated"]:
            out.print("  more lie within the radius; raise --top-k to see them")
    if not answer["objects"]:
        out.print("no object found in the picture")


def print_keys(rows: Iterable[Json]) -> None:
    """Print API keys as a table; what a key does not say of its limits is blank."""
    table = _table("name", "scopes", "rate", "burst", "concurrent")
    for row in rows:
        limits = ("" if row[each] is None else row[each] for each in ("rate", "burst", "concurrent"))
        table.add_row(*_cells(row["name"], ", ".join(row["scopes"]), *limits))
    console().print(table)


def print_facts(facts: Json) -> None:
    """Print a map of facts, one a line."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        shown = ", ".join(f"{key} {number:,}" for key, number in value.items()) if isinstance(value, dict) else value
        table.add_row(*_cells(name.replace("_", " "), "-" if shown in (None, "") else shown))
    console().print(table)


def print_models(models: Iterable[Model]) -> None:
    """Print models as a table."""
    table = _table("name", "kind", "size", "state", "folder")
    for model in models:
        table.add_row(*_cells(model.name, model.kind, model.size, model.state, model.folder))
    console().print(table)


def print_card(card: Json, notes: Iterable[str]) -> None:
    """Print the card of a model, one fact a line and never folded, so that addresses can be copied."""
    width = max(map(len, card)) + 2
    for name, value in card.items():
        print(f"{name.replace('_', ' '):<{width}}{'-' if value in (None, '') else value}")
    for note in notes:
        print(note)


def print_pull(report: PullReport) -> None:
    """Print where a model is and what to do next on standard output, and what was left out on standard error."""
    _print_troubles("of the archive's files are not needed and were left out", report.left_out)
    came = "pulled" if report.is_new else "was there already and checks out"
    print(f"{report.record.name} {came}: {report.model.folder}")
    for note in report.notes:
        print(note)
    print(f"next: {report.next_step}")


def print_report(report: BuildReport) -> None:
    """Print what a build did on standard output, and what it could not use on standard error."""
    done = [f"{getattr(report, name):,} {name}" for name in ("added", "replaced", "unchanged", "removed")]
    console().print(f"{report.operation}: {report.listed:,} listed; {', '.join(done)}; {report.items:,} items now")
    lines = [f"line {trouble.line}: {trouble.path}: {trouble.reason}" for trouble in report.troubles]
    _print_troubles("of the list's lines could not be used", lines)


def print_rehash(report: RehashReport) -> None:
    """Print what a rehash did on standard output, and which pictures are lost on standard error."""
    if report.changed:
        console().print(f"rehashed {report.rehashed:,} of {report.items:,} items, dropped {report.dropped:,}")
    else:
        console().print("nothing was changed")
    lines = [f"{lost.id} ({lost.label}): {lost.reason}" for lost in report.lost]
    _print_troubles("of the items have no picture to hash (--drop-missing removes them)", lines)


def print_import(report: ImportReport) -> None:
    """Print what an import did on standard output, and which vectors it could not use on standard error."""
    console().print(
        f"{report.vectors:,} vectors: {report.added:,} added, {report.unchanged:,} unchanged; "
        f"{report.items:,} items of {report.bits} bits now, of model {report.model_fingerprint}",
        markup=False,
    )
    lines = [f"vector {each.vector}: {each.text[:80]!r}: {each.reason}" for each in report.refused]
    _print_troubles("of the vectors could not be used", lines)


def print_export(report: ExportReport) -> None:
    """Print what an export wrote."""
    console().print(f"{report.items:,} items of {report.bits} bits in {report.folder}, {report.method}", markup=False)


def print_load(report: LoadReport, items: int) -> None:
    """Print what a load did on standard output, and what was refused on standard error."""
    done = [f"{report.counts[name]:,} {name}" for name in ("added", "unchanged", "returned", "refused")]
    console().print(f"{report.done:,} of {report.codes:,} codes: {', '.join(done)}; {items:,} items now")
    lines = [f"line {line}: {refused.reason}" for line, refused in report.refusals]
    _print_troubles("of the items were refused", lines, report.counts["refused"])


def _print_troubles(title: str, lines: Sequence[str], count: int | None = None) -> None:
    """Print the first of the troubles; there are ``count``, if ``lines`` are not all of them."""
    count, listed = (len(lines), "all") if count is None else (count, f"the first {len(lines):,}")
    if lines:
        print(f"{count:,} {title}:", file=sys.stderr)
        for line in lines[:_SHOWN_TROUBLES]:
            print(f"  {line}", file=sys.stderr)
        if count > _SHOWN_TROUBLES:
            print(f"  and {count - _SHOWN_TROUBLES:,} more; --json lists {listed}", file=sys.stderr)


@contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator[ProgressCall]:
    """Show a progress bar on standard error, where that is a terminal."""
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=quiet or not stderr.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "distance" else "left")
    return table


def _cells(*values: Any) -> list[Text]:
    # Text, not str: labels may contain what rich would take for markup.
    return [Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in values]


def _compact(metadata: Json) -> str:
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""


def _place(found: Json) -> str:
    if found["bbox"] is None:
        return "the query"
    if found["is_whole_image"]:
        return "the whole picture"
    box = ", ".join(f"{edge:.0f}" for edge in found["bbox"])
    return f"box ({box}), score {found['det_score']:.2f}"
