"""Measure which Hamming radius to recommend: ``python -m models.recommend --model FOLDER --root DIR --list FILE``.

Open-set identification (Phillips et al., *Evaluation Methods in Face Recognition*, in Handbook of Face Recognition,
2011, Sec. 21.2): every picture is searched twice among the others, once as it is and once with its own class taken
out, as if it were unknown. A radius is too small for the first when no picture of the class lies inside, and too
large for the second when any picture does. The recommended radius is where both errors are equally frequent.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from models.entry_point import explained, start


def main(
    model: Annotated[Path, typer.Option(help="model folder, as models.export writes it")],
    root: Annotated[Path, typer.Option(help="folder of the pictures")],
    listing: Annotated[Path, typer.Option("--list", help="lines of path TAB class, of pictures not trained on")],
    write: Annotated[bool, typer.Option("--write", help="put the radius into the folder's inference.yml")] = False,
) -> None:
    """Measure the errors at every radius, print a table around the best, and perhaps write it down."""
    from models.inference import Hasher, Manifest, ModelError
    from models.training.data.errors import DatasetError
    from models.training.data.list_files import read_list
    from models.training.data.pictures import read_rgb

    with explained(Console(stderr=True), DatasetError, ModelError, OSError):
        rows = read_list(listing)
        hasher = Hasher.load(model)
        codes = np.concatenate([hasher.hash([read_rgb(root / row.name)]) for row in rows])
    misses, accepts = open_set_errors(codes, np.array([row.label for row in rows]))
    best = recommend_radius(misses, accepts)
    table = Table("radius", "misses the class", "accepts the unknown", title=f"{model}: {len(rows)} pictures")
    step = max(1, hasher.bits // 64)
    for radius in range(max(0, best - 4 * step), min(hasher.bits, best + 4 * step) + 1, step):
        style = "bold" if radius == best else None
        table.add_row(str(radius), f"{misses[radius]:.3f}", f"{accepts[radius]:.3f}", style=style)
    Console().print(table)
    if write:
        path = replace(Manifest.read(model, "hasher"), hamming_radius=best).write(model)
        Console().print(f"wrote hamming_radius {best} to {path}")


def open_set_errors(
    codes: npt.NDArray[np.uint8], labels: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the two errors at each inclusive radius from 0 to bits.

    Args:
        codes: uint8 (n, bits // 8).
        labels: (n,) classes.

    Returns:
        float (bits + 1,) share of pictures with no other of their class inside, and float (bits + 1,) share
        of pictures with one of another class inside. Pictures alone in their class count for the second only.
    """
    bits = codes.shape[1] * 8
    distances = np.array([np.bitwise_count(codes ^ code).sum(axis=1, dtype=np.int64) for code in codes])
    np.fill_diagonal(distances, bits + 1)
    same = labels[:, None] == labels[None, :]
    to_class = np.where(same, distances, bits + 1).min(axis=1)
    to_others = np.where(same, bits + 1, distances).min(axis=1)
    known = same.sum(axis=1) > 1
    radii = np.arange(bits + 1)
    misses = (to_class[known][None, :] > radii[:, None]).mean(axis=1)
    accepts = (to_others[None, :] <= radii[:, None]).mean(axis=1)
    return misses, accepts


def recommend_radius(misses: npt.NDArray[np.float64], accepts: npt.NDArray[np.float64]) -> int:
    """Choose the smallest radius at which the larger of the two errors is smallest."""
    return int(np.maximum(misses, accepts).argmin())


if __name__ == "__main__":
    start(main)
