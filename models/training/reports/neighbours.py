"""A grid of queries and the gallery pictures nearest to them, as PNG: what a code takes for alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.augment import Image
from ..data.datasets import Dataset
from ..hamming_ranking import Codes, rank_gallery
from .lettering import Lettering
from .plots import BLACK, GREEN, VERMILLION, save_png

Labels = npt.NDArray[np.int64]

_LONGEST_LABEL = 18  # characters that fit below a picture
_SIDE = 150  # pixels of a picture; more would not be seen


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture in the grid.

    Attributes:
        image: RGB uint8 (H, W, 3).
        label: name of its class; empty for none.
        label_id: number of its class, said instead where no font has the name's characters; -1 for none.
        distance: Hamming distance to the query; None for the query itself.
    """

    image: Image
    label: str
    label_id: int
    distance: int | None = None


Row = tuple[Shown, list[Shown]]
"""A query and its neighbours, nearest first."""


def find_neighbours(
    codes: tuple[Codes, Codes],
    datasets: tuple[Dataset, Dataset],
    labels: tuple[Labels, Labels],
    *,
    exclude_self: bool,
    queries: int = 6,
    neighbours: int = 10,
) -> list[Row]:
    """Take some queries, of as many classes as there are, and their nearest gallery pictures.

    Args:
        codes: of queries and gallery, uint8 (n, bits // 8) and (m, bits // 8).
        datasets: the pictures of both.
        labels: int64 (n,) and (m,), numbered alike.
        exclude_self: both sides are the same pictures; a query is not its own neighbour.
        queries, neighbours: how many, at most.

    Raises:
        DatasetError: a picture cannot be read.
    """
    chosen = choose_queries(labels[0], queries)
    found = rank_gallery(codes[0][chosen], codes[1], chosen if exclude_self else None)
    rows = []
    for index, (order, distances) in zip(chosen.tolist(), found, strict=True):
        near = zip(order[:neighbours].tolist(), distances[:neighbours].tolist(), strict=True)
        rows.append(
            (
                _show(datasets[0], index, labels[0]),
                [_show(datasets[1], position, labels[1], distance) for position, distance in near],
            )
        )
    return rows


def choose_queries(labels: Labels, count: int) -> Labels:
    """Choose positions of up to ``count`` queries: of classes spread over all, several of one where classes are few."""
    by_class = defaultdict(list)
    for position, label in enumerate(labels.tolist()):
        by_class[label].append(position)
    classes = sorted(by_class)
    if len(classes) > count:
        classes = [classes[number * len(classes) // count] for number in range(count)]
    rounds = max(len(by_class[label]) for label in classes)
    chosen = [by_class[label][turn] for turn in range(rounds) for label in classes if turn < len(by_class[label])]
    return np.array(sorted(chosen[:count], key=lambda position: (labels[position], position)), np.int64)


def plot_neighbours(rows: Sequence[Row], target: Path, title: str = "") -> Path:
    """Draw queries and their nearest gallery pictures, one query a row.

    A green frame and a tick mean the query's class, an orange dashed frame and a cross another; the Hamming distance is
    written below. Class names that no installed font can write are replaced by their numbers.

    Args:
        rows: at least one, with at least one neighbour.
        target: the PNG to write.
        title: what the figure is of.

    Returns:
        ``target``.
    """
    columns = 1 + max(len(neighbours) for _, neighbours in rows)
    figure = Figure(figsize=(1.2 * columns + 0.2, 1.56 * len(rows) + (0.65 if title else 0.35)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    lettering = Lettering()
    for line, (query, neighbours) in zip(grid, rows, strict=True):
        _draw_picture(line[0], query, None, lettering)
        for axes, neighbour in zip(line[1:], neighbours, strict=False):
            _draw_picture(axes, neighbour, neighbour.label_id == query.label_id, lettering)
        for axes in line[1 + len(neighbours) :]:
            axes.set_axis_off()
    grid[0, 0].set_title("query", fontsize=10)
    heading = grid[0, 1].annotate(
        "nearest in the gallery, with Hamming distance", (0, 1), xycoords="axes fraction", xytext=(0, 6),
        textcoords="offset points", fontsize=10,
    )  # fmt: skip
    heading.set_in_layout(False)  # it may run over the next columns
    if title:
        figure.suptitle(
            lettering.line(title), fontsize=12, fontweight="bold", fontfamily=lettering.fonts, parse_math=False
        )
    return save_png(figure, target, dpi=100)  # photos make large files


def _show(data: Dataset, index: int, labels: Labels, distance: int | None = None) -> Shown:
    label = int(data.labels[index])
    return Shown(data.read(index), data.class_names[label] if label >= 0 else "", int(labels[index]), distance)


def _draw_picture(axes: Axes, shown: Shown, is_same: bool | None, lettering: Lettering) -> None:
    """One picture; ``is_same`` is None for a query."""
    axes.imshow(_square(shown.image))
    axes.set(xticks=[], yticks=[])
    colour, style = {None: (BLACK, "-"), True: (GREEN, "-"), False: (VERMILLION, (0, (3, 1.5)))}[is_same]
    for spine in axes.spines.values():
        spine.set(color=colour, linestyle=style, linewidth=1.5 if is_same is None else 3)
    text = _class_name(shown, lettering)
    if is_same is not None:
        text = f"{'✓' if is_same else '✗'} {shown.distance}" + ("" if is_same else f"\n{text}")
    axes.set_xlabel(text, fontsize=8, fontfamily=lettering.fonts, parse_math=False, color=colour, labelpad=3)


def _class_name(shown: Shown, lettering: Lettering) -> str:
    name = "".join(shown.label.split())
    if shown.label_id < 0 or not name:
        return "no class"
    # A name full of question marks says less than a number, and a bare number looks like a distance.
    text = shown.label if lettering.can_write(name) else str(shown.label_id)
    return lettering.line(f"class {text}" if text.strip().isdecimal() else text, _LONGEST_LABEL)


def _square(image: Image) -> Image:
    """The whole picture in a white square."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = shrunk
    return square
