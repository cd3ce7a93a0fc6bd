"""Figures of a training and of what it learnt, as PNG.

Figures are made without ``pyplot``, so nothing is global and threads may draw at once. Colours are those of Okabe and
Ito, which colour-blind people tell apart; what matters is also said by a mark or a line style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..metrics import RADIUS, Evaluation
from .lettering import Lettering, escape_formula
from .training_log import read_log

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
_CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
_STYLES = ("-", "--", "-.", ":")
_MAIN_FIGURES = ("mAP", "hit@1")  # by which the best weights are told
_PLACE = {"event", "stage", "number", "epoch", "step", "x"}  # of a record, what is no figure


def plot_training(log_path: Path, target: Path) -> Path:
    """Draw loss, learning rate and evaluations of a training, step by step.

    Args:
        log_path: the JSONL log of the loop. Where a training was resumed, what was logged again supersedes what came
            before; a last line that was cut off does not count.
        target: the PNG to write.

    Returns:
        ``target``.

    Raises:
        OSError: the log cannot be read, or the target not written.
    """
    steps, evaluations = read_log(log_path)
    figure, axes = make_figure(9, 8, rows=3, share_x=True)
    loss, rate, measured = axes
    _draw_losses(loss, steps)
    x, y = _series(steps, "lr")
    rate.plot(x, y, color=BLUE)
    _title(rate, "Learning rate", y="learning rate")
    if len(y) and y.min() > 0 and y.max() / y.min() > 50:
        rate.set_yscale("log")
    else:
        rate.set_ylim(bottom=0)
    _draw_evaluations(measured, evaluations)
    measured.set_xlabel("optimizer step")
    measured.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        _mark_stages(axis, steps, named=axis is loss)
    return save_png(figure, target)


def plot_precision_recall(evaluations: Mapping[str, Evaluation], target: Path) -> Path:
    """Draw precision against recall, one point a Hamming radius, one line a model; dots mark radius 2.

    Args:
        evaluations: by the name shown.
        target: the PNG to write.

    Returns:
        ``target``.
    """
    figure, (axes,) = make_figure(7, 5.5)
    lettering = Lettering()
    for number, (name, evaluation) in enumerate(evaluations.items()):
        colour, style = _CYCLE[number % len(_CYCLE)], _STYLES[number // len(_CYCLE) % len(_STYLES)]
        recall, precision = np.array(evaluation.curve_recall), np.array(evaluation.curve_precision)
        figures = f"mAP {evaluation.mean_average_precision:.3f}, {evaluation.bits} bits"
        axes.plot(recall, precision, style, color=colour, label=f"{escape_formula(lettering.line(name))} ({figures})")
        axes.plot(recall[RADIUS], precision[RADIUS], "o", color=colour, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_xlabel("recall: share of all same-class pairs within the radius")
    _title(axes, "Precision and recall by Hamming radius", y="precision: share of same-class pairs")
    if any(evaluation.empty_radius2 < 1 for evaluation in evaluations.values()):
        axes.plot([], [], "o", color="grey", label=f"Hamming radius {RADIUS}")
    axes.legend(loc="best", frameon=False, prop={"family": lettering.fonts, "size": 9})
    return save_png(figure, target)


def plot_bit_balance(evaluation: Evaluation, target: Path) -> Path:
    """Draw the mean of each bit over the gallery, as -1 or 1: 0 is a bit that parts the gallery in halves.

    Returns:
        ``target``.
    """
    balance = np.array(evaluation.bit_balance)
    figure, (axes,) = make_figure(9, 4)
    colours = np.where(np.abs(balance) < 0.5, BLUE, VERMILLION)
    axes.bar(np.arange(len(balance)), balance, width=1.0 if len(balance) > 128 else 0.8, color=colours)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    for edge in (-0.5, 0.5):
        axes.axhline(edge, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlim=(-0.5 - 0.01 * len(balance), len(balance) - 0.5 + 0.01 * len(balance)), ylim=(-1.02, 1.02))
    axes.set_xlabel("bit; orange: set, or not set, in more than three quarters of the gallery")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _title(
        axes,
        f"Bit balance over {evaluation.gallery:,} gallery pictures: mean |balance| {np.abs(balance).mean():.3f}, "
        f"mean |correlation| {evaluation.bit_correlation:.3f}",
        y="mean of the bit as -1 or 1",
    )
    return save_png(figure, target)


def _draw_losses(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    parts = [name for name in dict.fromkeys(key for record in steps for key in record) if name.endswith("Loss")]
    parts = parts if len(parts) > 1 else []
    axes.plot(*_series(steps, "loss"), color=BLUE, alpha=0.3, linewidth=0.8)
    axes.plot(*_smooth_series(steps, "loss"), color=BLUE, label="sum")
    for number, name in enumerate(parts, 1):
        colour, style = _CYCLE[number % len(_CYCLE)], _STYLES[1 + number % 3]
        axes.plot(*_smooth_series(steps, name), style, color=colour, linewidth=1.3, label=name)
    _title(axes, "Training loss (pale: each step, dark: running mean)", y="loss")
    if parts:
        axes.legend(loc="best", frameon=False)


def _draw_evaluations(axes: Axes, evaluations: Sequence[Mapping[str, Any]]) -> None:
    found = dict.fromkeys(key for record in evaluations for key in record if key not in (*_PLACE, "boxes"))
    main = next((name for name in _MAIN_FIGURES if name in found), None)
    names = list(dict.fromkeys(name for name in (main, *found) if name is not None))
    for number, name in enumerate(names):
        x, y = _series(evaluations, name)
        if not len(y):
            continue
        style = "-" if name == main else _STYLES[1 + number % 3]
        axes.plot(x, y, style, marker="o", markersize=4, color=_CYCLE[number % len(_CYCLE)], label=_metric_name(name))
        if name == main:
            best = int(y.argmax())
            star = {"marker": "*", "markersize": 15, "color": BLUE, "zorder": 3}
            axes.plot(x[best], y[best], linestyle="", label=f"best {name} {y[best]:.4f}", **star)
    axes.set_ylim(0, 1.02)
    if evaluations:
        _title(axes, "What the evaluation pictures gave", y="share (1 is perfect)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, fontsize=9, frameon=False)
    else:
        _title(axes, "Nothing was evaluated yet", y="share (1 is perfect)")


def _metric_name(key: str) -> str:
    """``recall5`` to ``Recall@5``, ``mAP@radius2`` to ``mAP within radius 2``; what is not known stays."""
    if key.startswith("recall") and key[6:].isdigit():
        return f"Recall@{key[6:]}"
    name = key.replace("@radius", " within radius ")
    return name[0].upper() + name[1:] if name.startswith("precision") else name


def _mark_stages(axes: Axes, steps: Sequence[Mapping[str, Any]], named: bool) -> None:
    """A dotted line where the next stage begins; the names of the stages where there are several."""
    lettering = Lettering()
    starts: dict[str, int] = {}
    for record in steps:
        starts.setdefault(str(record["stage"]), record["x"])
    for number, (name, start) in enumerate(starts.items() if len(starts) > 1 else ()):
        if number:
            axes.axvline(start, color="grey", linestyle=":", linewidth=1)
        if named:
            axes.annotate(
                lettering.line(name), (start, 1), xycoords=("data", "axes fraction"), xytext=(3, -4), va="top",
                textcoords="offset points", color="dimgrey", fontsize=9, fontfamily=lettering.fonts, parse_math=False,
            )  # fmt: skip


def _series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The steps and values of a figure where it is a finite number."""
    pairs = [(record["x"], record[name]) for record in records if isinstance(record.get(name), (int, float))]
    pairs = [pair for pair in pairs if math.isfinite(pair[1])]
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs], dtype=float)


def _smooth_series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """As :func:`_series`, smoothed within each stage, with a gap between the stages."""
    by_stage: dict[Any, list[Mapping[str, Any]]] = {}
    for record in records:
        by_stage.setdefault(record["stage"], []).append(record)
    parts = [_series(part, name) for part in by_stage.values()]
    gap = np.array([np.nan])
    return (
        np.concatenate([gap, *(piece for x, _ in parts for piece in (x, gap))]),
        np.concatenate([gap, *(piece for _, y in parts for piece in (_smooth(y), gap))]),
    )


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A centred running mean over a fortieth of the values, narrower towards both ends."""
    half = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def make_figure(width: float, height: float, rows: int = 1, share_x: bool = False) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many inches with one axes a row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, sharex=share_x)[:, 0].tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    return figure, axes


def _title(axes: Axes, text: str, y: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold")
    axes.set_ylabel(y)


def save_png(figure: Figure, target: Path, dpi: int = 120) -> Path:
    """Write the PNG beside and rename it, so that who looks on during a training never sees half of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    figure.savefig(temporary, format="png", dpi=dpi)
    temporary.replace(target)
    return target
