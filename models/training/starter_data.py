"""Prepare the data of the starter hash model: ``python -m models.training.starter_data --source DIR --target DIR``.

Reads the PP-ShiTu drink gallery, GroceryStoreDataset, Caltech-101 and the distractors as they were published to
``source``, and writes list files and teachers' features to ``target``. It decides what may be trained on, and
nothing else does: even-numbered drink products except 46 (its photos are those of the odd product 45), the train
split and the pack shots of GroceryStoreDataset, and Caltech-101 without twelve classes. The rest is for evaluation.
"""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

_DUPLICATED_PRODUCT = 46
_HELD_OUT_CLASSES = 12


def prepare(
    source: Annotated[
        Path, typer.Option(help="folder with drink/, grocery.tar, caltech.tar, distractors.tar, teacher/")
    ],
    target: Annotated[Path, typer.Option(help="where pictures, list files and teachers go")] = Path("data/starter"),
) -> None:
    """Write what models/configs/GeneralRecognition/starter_hasher.yaml reads."""
    lists = allowed_pictures(source, target)
    table = Table("set", "pictures", "classes", title="may be trained on")
    for name, rows in lists.items():
        text = "".join(f"{path}\t{label}\n" for path, label in rows)
        (target / f"{name}.txt").write_text(text, "utf-8")
        _write_teacher(source, target, name, [path for path, _ in rows])
        table.add_row(name, str(len(rows)), str(len({label for _, label in rows if label})))
    held_out = "".join(f"{path}\t{label}\n" for path, label in _drink(target / "drink", held_out=True))
    (target / "drink_held_out.txt").write_text(held_out, "utf-8")
    # Paths relative to the list file, as the training reads backgrounds.
    names = "".join(f"distractors/{path}\n" for path, _ in lists["distractors"])
    (target / "backgrounds.txt").write_text(names, "utf-8")
    Console().print(table)


def allowed_pictures(source: Path, target: Path) -> dict[str, list[tuple[str, str]]]:
    """Unpack the sets, and list what may be trained on.

    Args:
        source: folder with drink/, grocery.tar, caltech.tar and distractors.tar.
        target: gets a folder a set.

    Returns:
        By set, paths relative to its folder, each with its class; those of distractors are empty.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in ("grocery", "caltech", "distractors"):
        _extract(source / f"{name}.tar", target / name)
    drink = target / "drink"
    if not drink.exists():
        drink.symlink_to((source / "drink" / "gallery").resolve(), target_is_directory=True)
    return {
        "drink": _drink(drink),
        "grocery": _grocery(target / "grocery"),
        "caltech": _caltech(target / "caltech"),
        "distractors": [(path.name, "") for path in sorted((target / "distractors").iterdir()) if path.is_file()],
    }


def _write_teacher(source: Path, target: Path, name: str, paths: Iterable[str]) -> None:
    """Keep the features of what may be trained on.

    Drinks learn from PP-ShiTu's official float model, the rest from an ImageNet-trained MobileNet v1.
    """
    file = source / "drink" / "float_features.npz" if name == "drink" else source / "teacher" / f"{name}.npz"
    with np.load(file, allow_pickle=False) as archive:
        allowed = np.isin(archive["path"], list(paths))
        rows = {"path": archive["path"][allowed], "features": archive["features"][allowed]}
    np.savez(target / f"{name}_teacher.npz", **rows)


def _extract(archive: Path, folder: Path) -> None:
    if not folder.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")


def _drink(gallery: Path, held_out: bool = False) -> list[tuple[str, str]]:
    lines = (gallery / "drink_label_all.txt").read_text("utf-8").splitlines()
    rows = []
    for path in sorted({line.split("\t")[0] for line in lines if line.strip()}):
        product = int(path.split("/")[0])
        allowed = product % 2 == 1 if held_out else product % 2 == 0 and product != _DUPLICATED_PRODUCT
        if allowed and (gallery / path).is_file():
            rows.append((path, f"drink/{product}"))
    return rows


def _grocery(folder: Path) -> list[tuple[str, str]]:
    rows = []
    for line in (folder / "train.txt").read_text("utf-8").splitlines():
        path, _, label = line.partition("\t")
        rows.append((path, f"grocery/{label}"))
    with (folder / "classes.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            iconic = row["Iconic Image Path (str)"].replace("/iconic-images-and-descriptions/", "iconic/")
            if (folder / iconic).is_file():
                rows.append((iconic, f"grocery/{row['Class ID (int)']}"))
    return rows


def _caltech(folder: Path) -> list[tuple[str, str]]:
    """All classes but every sixth from the fourth on, in the order of their names."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    held_out = set(classes[3::6][:_HELD_OUT_CLASSES])
    return [
        (f"{name}/{path.name}", f"caltech/{name}")
        for name in classes
        if name not in held_out
        for path in sorted((folder / name).iterdir())
    ]


if __name__ == "__main__":
    typer.run(prepare)
