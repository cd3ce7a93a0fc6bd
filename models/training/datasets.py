"""Labelled pictures from list files, with a teacher's features where there are some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.inference import Preprocessing

from .augment import Image, random_view

_CACHED_SHORT_SIDE = 320  # pixels; views are smaller, so larger pictures would only fill memory
_PREFETCHED_BATCHES = 4


class DatasetError(Exception):
    """A list file, picture or feature file cannot be used; the text names it."""


@dataclass(frozen=True)
class Dataset:
    """Pictures with classes, some perhaps without, some perhaps with a teacher's features.

    Attributes:
        paths: one a picture.
        labels: int64 (n,), -1 for a picture without a class.
        class_names: by label.
        teacher: float32 (n, d), unit length, zero-padded to the widest teacher.
        teacher_group: int64 (n,), which teacher; -1 for none.
    """

    paths: list[Path]
    labels: npt.NDArray[np.int64]
    class_names: list[str]
    teacher: npt.NDArray[np.float32]
    teacher_group: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Count the pictures, repeats included."""
        return len(self.paths)


@dataclass(frozen=True)
class Batch:
    """``views`` float32 (B, 3, size, size) normalised, ``labels`` int64 (B,), and the teacher's rows."""

    views: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    teacher: npt.NDArray[np.float32]
    teacher_group: npt.NDArray[np.int64]


def read_list(path: Path | str, delimiter: str = "\t") -> list[tuple[str, str]]:
    """Read lines of path, delimiter, class; a line without a class names an unlabelled picture.

    Raises:
        DatasetError: the file is missing, empty or not UTF-8.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"list file {path}: {error}") from error
    rows = [line.partition(delimiter)[::2] for line in lines if line.strip()]
    if not rows:
        raise DatasetError(f"list file {path} is empty")
    return [(name.strip(), label.strip()) for name, label in rows]


def load_datasets(sources: Sequence[dict[str, Any]]) -> Dataset:
    """Join the sources of a configuration's ``DataLoader.Train.dataset``.

    Each has ``image_root`` and ``cls_label_path``, and perhaps ``repeat`` (times an epoch, default 1) and
    ``teacher`` (an ``.npz`` of ``path`` and unit-length ``features``). Classes are joined by name.

    Raises:
        DatasetError: something is missing or not as described.
    """
    paths: list[Path] = []
    names: list[str] = []
    features: list[npt.NDArray[np.float32]] = []
    groups: list[int] = []
    teachers: dict[str, int] = {}
    for source in sources:
        fields = dict(source)
        root, list_path = Path(fields.pop("image_root")), fields.pop("cls_label_path")
        repeat, teacher = int(fields.pop("repeat", 1)), fields.pop("teacher", None)
        if fields:
            raise DatasetError(f"dataset {list_path}: unknown key(s) {', '.join(fields)}")
        rows = read_list(list_path) * repeat
        by_path = _read_teacher(teacher) if teacher else {}
        group = teachers.setdefault(teacher, len(teachers)) if teacher else -1
        for name, label in rows:
            paths.append(root / name)
            names.append(label)
            row = by_path.get(name)
            features.append(np.zeros(0, np.float32) if row is None else row)
            groups.append(-1 if row is None else group)
    class_names = sorted(set(names) - {""})
    index = {name: label for label, name in enumerate(class_names)} | {"": -1}
    teacher_rows = np.zeros((len(paths), max(map(len, features), default=0)), np.float32)
    for row, feature in zip(teacher_rows, features, strict=True):
        row[: len(feature)] = feature
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        raise DatasetError(f"{len(missing)} listed pictures are missing, the first is {missing[0]}")
    return Dataset(
        paths, np.array([index[name] for name in names]), class_names, teacher_rows, np.array(groups, np.int64)
    )


def _read_teacher(path: str) -> dict[str, npt.NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(zip(archive["path"].tolist(), archive["features"].astype(np.float32), strict=True))
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"teacher file {path}: {error}") from error


@cache
def read_rgb(path: Path) -> Image:
    """Decode a picture once and keep it, its short side at most 320 pixels: RGB uint8 (H, W, 3).

    Raises:
        DatasetError: it cannot be decoded.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path} cannot be decoded as a picture")
    shrink = _CACHED_SHORT_SIDE / min(image.shape[:2])
    if shrink < 1:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, :, ::-1])


def batches(
    dataset: Dataset,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: tuple[int, ...],
    *,
    start: int = 0,
    workers: int = 2,
    backgrounds: Sequence[Image] = (),
    strength: float = 1.0,
) -> Iterator[Batch]:
    """One epoch of augmented batches in a random order that depends on ``seed`` alone; the last part is dropped.

    Views are drawn by threads ahead of the consumer. ``start`` skips batches without drawing them, and gives
    the very batches that would have come then: what resuming needs.
    """
    size = preprocessing.size[0]
    order = np.random.default_rng(seed).permutation(len(dataset))
    count = len(dataset) // batch_size

    def draw(position: int) -> npt.NDArray[np.float32]:
        index = order[position]
        rng = np.random.default_rng((*seed, position))
        return preprocessing(random_view(read_rgb(dataset.paths[index]), size, rng, backgrounds, strength))

    def collect(number: int) -> Batch:
        positions = range(number * batch_size, (number + 1) * batch_size)
        index = order[positions.start : positions.stop]
        return Batch(
            np.stack([draw(position) for position in positions]),
            dataset.labels[index],
            dataset.teacher[index],
            dataset.teacher_group[index],
        )

    with ThreadPoolExecutor(workers, thread_name_prefix="augment") as pool:
        numbers = iter(range(start, count))
        pending = [pool.submit(collect, number) for number in islice(numbers, _PREFETCHED_BATCHES)]
        try:
            while pending:
                batch = pending.pop(0).result()
                pending.extend(pool.submit(collect, number) for number in islice(numbers, 1))
                yield batch
        finally:
            for future in pending:
                future.cancel()
