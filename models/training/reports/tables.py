"""An evaluation as a table for people: figures down, models across."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from rich.table import Table

from ..metrics import RADIUS, Evaluation


def rows(evaluations: Mapping[str, Evaluation]) -> list[list[str]]:
    """Give one row a figure: its name, then its value for each model; ``-`` where one model does not have it."""
    tables = [_figures(evaluation) for evaluation in evaluations.values()]
    names = dict.fromkeys(name for table in tables for name in table)
    return [[name, *(table.get(name, "-") for table in tables)] for name in names]


def to_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Write the table in Markdown, with a line about each figure that does not explain itself."""
    lines = [["figure", *evaluations], ["---", *["---:"] * len(evaluations)], *rows(evaluations)]
    table = "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
    return f"{table}\n{_NOTES}"


def to_table(evaluations: Mapping[str, Evaluation], title: str) -> Table:
    """Make the table for a terminal."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(["figure", *evaluations]):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for line in rows(evaluations):
        table.add_row(*line)
    return table


_NOTES = f"""\
mAP is the mean average precision over the whole ranking by Hamming distance; Recall@k is the share of queries with a
picture of their class among the k nearest, Precision@k the share of such pictures there. Within Hamming radius {RADIUS}
only what is that near counts, and a query with nothing there counts 0. Balance is the absolute mean of a bit over the
gallery as -1 or 1 (0 is best), correlation that of two bits (0 is best); both are means over all bits.
"""


def _figures(evaluation: Evaluation) -> dict[str, str]:
    balance = float(np.abs(evaluation.bit_balance).mean())
    return {
        "mAP": _share(evaluation.mean_average_precision),
        **{f"Recall@{k}": _share(value) for k, value in evaluation.recall.items()},
        **{f"Precision@{k}": _share(value) for k, value in evaluation.precision.items()},
        f"mAP within Hamming radius {RADIUS}": _share(evaluation.map_radius2),
        f"Precision within Hamming radius {RADIUS}": _share(evaluation.precision_radius2),
        f"queries with nothing within radius {RADIUS}": f"{evaluation.empty_radius2:.1%}",
        "bits": f"{evaluation.bits:,}",
        "queries": f"{evaluation.queries:,}",
        "queries with their class in the gallery": f"{evaluation.answerable:,}",
        "gallery pictures": f"{evaluation.gallery:,}",
        "distinct gallery codes": f"{evaluation.distinct_codes:,}",
        "bit balance": f"{balance:.3f}",
        "bit correlation": f"{evaluation.bit_correlation:.3f}",
        "constant bits": f"{evaluation.constant_bits:,}",
    }


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
