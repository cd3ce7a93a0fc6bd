"""Prepare the data of the starter detector: ``python -m models.training.detection.starter_data --source DIR``.

Of the pictures that :mod:`models.training.starter_data` allows it writes

- ``photos.jsonl``: photos with the boxes that a COCO detector found in them, their scores included;
- ``cutouts/``: objects cut out of drinks, pack shots and Caltech photos, for scenes to be composed of;
- ``photos.txt``: photos for backgrounds and prints;
- ``validation/`` and ``validation.jsonl``: scenes of objects and photos that are in none of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import PIL.Image
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.inference import available_cores

from ..data.pictures import read_rgb
from ..starter_data import allowed_pictures
from .cutouts import Rgba, cut_from_white, cut_out
from .scenes import SceneMaker
from .sources import read_cutouts, read_photos

_CUT_FROM = {"drink": 0.45, "caltech": 0.6}  # sets, and the least score of a box to cut out
_MOST_CUTOUTS = 900  # of a set
_HELD_OUT = 10  # every tenth object and photo is for validation
_PROVES = 300  # scenes for validation
_SEED = 20


@dataclass(frozen=True)
class _Job:
    photo: Path
    box: tuple[float, ...] | None  # None: a pack shot on white
    target: Path


def prepare(
    source: Annotated[
        Path, typer.Option(help="folder with drink/, grocery.tar, caltech.tar, distractors.tar, teacher/boxes.jsonl")
    ],
    target: Annotated[Path, typer.Option(help="where photos, cutouts and lists go")] = Path("data/starter_detector"),
) -> None:
    """Write what models/configs/Detection/starter_detector.yaml reads; takes a few minutes."""
    allowed = {name: [path for path, _ in rows] for name, rows in allowed_pictures(source, target).items()}
    rows = list(_teacher_rows(source / "teacher" / "boxes.jsonl", allowed))
    held_out = rows[::_HELD_OUT]
    rows = [row for number, row in enumerate(rows) if number % _HELD_OUT]
    lines = (json.dumps({"image": f"{row['set']}/{row['image']}", "boxes": row["boxes"]}) for row in rows)
    (target / "photos.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    _list_photos(target / "photos.txt", rows)
    _list_photos(target / "validation_photos.txt", held_out)
    shots = [path for path in allowed["grocery"] if path.startswith("iconic/")]
    table = Table("group", "to learn from", "for validation", title="cut out")
    counts = _cut_all(target, [*_jobs(target, rows, held_out), *_pack_shots(target, shots)])
    for group in sorted({*_CUT_FROM, "packs"}):
        table.add_row(group, *(str(counts[folder, group]) for folder in ("cutouts", "validation_cutouts")))
    _write_validation(target)
    Console().print(table)


def _teacher_rows(path: Path, allowed: dict[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    known = {name: set(paths) for name, paths in allowed.items()}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["image"] in known.get(row["set"], ()):
            yield row


def _list_photos(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{row['set']}/{row['image']}\n" for row in rows), "utf-8")


def _jobs(target: Path, rows: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]) -> Iterator[_Job]:
    """The best box of photos that have a good one."""
    for folder, part in (("cutouts", rows), ("validation_cutouts", held_out)):
        for name, least_score in _CUT_FROM.items():
            best = [(row["image"], max(row["boxes"], key=lambda box: box[4])) for row in part
                    if row["set"] == name and row["boxes"]]  # fmt: skip
            good = [(image, box) for image, box in best if box[4] >= least_score]
            chosen = np.random.default_rng(_SEED).permutation(len(good))[:_MOST_CUTOUTS]
            for image, box in (good[number] for number in sorted(chosen)):
                yield _Job(target / name / image, tuple(box[:4]), _cutout_path(target / folder / name, image))


def _pack_shots(target: Path, paths: Sequence[str]) -> Iterator[_Job]:
    for number, path in enumerate(paths):
        folder = "cutouts" if number % _HELD_OUT else "validation_cutouts"
        yield _Job(target / "grocery" / path, None, _cutout_path(target / folder / "packs", path))


def _cutout_path(folder: Path, image: str) -> Path:
    return folder / f"{image.replace('/', '-').rpartition('.')[0]}.png"


def _cut_all(target: Path, jobs: Sequence[_Job]) -> dict[tuple[str, str], int]:
    """Cut out what is not there yet; count the cutouts by folder and group."""
    for job in jobs:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    done = target / "cutouts.done"
    finished = set(done.read_text("utf-8").splitlines()) if done.exists() else set()
    waiting = [job for job in jobs if str(job.target.relative_to(target)) not in finished]
    with done.open("a", encoding="utf-8") as stream, ProcessPoolExecutor(available_cores()) as pool:
        for job in track(pool.map(_cut, waiting, chunksize=4), "cutting out", total=len(waiting)):
            stream.write(f"{job.target.relative_to(target)}\n")
    groups = {(job.target.parent.parent.name, job.target.parent.name): job.target.parent for job in jobs}
    return {key: len(list(folder.glob("*.png"))) for key, folder in groups.items()}


def _cut(job: _Job) -> _Job:
    cv2.setNumThreads(1)
    picture = read_rgb(job.photo)
    cutout = cut_from_white(picture) if job.box is None else cut_out(picture, job.box)
    if cutout is not None:
        _save(cutout, job.target)
    return job


def _save(pixels: Rgba, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    PIL.Image.fromarray(pixels).save(temporary, "PNG")
    temporary.replace(path)


def _write_validation(target: Path) -> None:
    """Compose scenes of what is held out."""
    maker = SceneMaker(read_cutouts(target / "validation_cutouts"), read_photos(target / "validation_photos.txt"))
    folder = target / "validation"
    folder.mkdir(exist_ok=True)
    lines = []
    draw = partial(maker.make, height=288, width=288)
    for number in track(range(_PROVES), "composing"):
        picture, objects, _ = draw(np.random.default_rng((_SEED, number)))
        if len(objects):
            name = f"{number:03}.jpg"
            PIL.Image.fromarray(picture).save(folder / name, quality=92)
            lines.append(json.dumps({"image": name, "boxes": objects[:, :4].tolist()}) + "\n")
    (target / "validation.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    typer.run(prepare)
