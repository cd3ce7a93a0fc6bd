"""Labelled pictures from the sources that a configuration names, with a teacher's features where there are some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference import available_cores

from ..config import ConfigError
from .augment import Image
from .cifar10 import MEMBERS, read_cifar10
from .errors import DatasetError
from .pictures import PictureCache
from .sources import Source, open_folders, open_list

__all__ = ["SOURCES", "Dataset", "DatasetError", "load_datasets"]

_CACHE_BYTES = 2 << 30
_VERIFIED_AT_ONCE = 32
_CIFAR10_DOWNLOAD = ".cache/paddle/dataset/cifar/cifar-10-python.tar.gz"  # below the home folder


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures with classes, some perhaps without, some perhaps with a teacher's features.

    Attributes:
        labels: int64 (n,), -1 for a picture without a class.
        class_names: by label. Two datasets number their classes alike only where ``class_num`` was given to both.
        teacher: float32 (n, d), unit length, zero-padded to the widest teacher.
        teacher_group: int64 (n,), which teacher; -1 for none.
        sources: where the pictures lie.
        source_of: int64 (n,), number of the source.
        row_of: int64 (n,), number of the picture there; a source that is repeated has several indexes a picture.
    """

    labels: npt.NDArray[np.int64]
    class_names: list[str]
    teacher: npt.NDArray[np.float32]
    teacher_group: npt.NDArray[np.int64]
    sources: tuple[Source, ...]
    source_of: npt.NDArray[np.int64]
    row_of: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Count the pictures, repeats included."""
        return len(self.labels)

    def read(self, index: int) -> Image:
        """Give a picture: RGB uint8 (H, W, 3), upright, read-only.

        Raises:
            DatasetError: it cannot be decoded; the text names list file, line and picture.
        """
        return self.sources[self.source_of[index]].read(int(self.row_of[index]))

    def name(self, index: int) -> str:
        """Give a picture's path as it is written in the list."""
        return self.sources[self.source_of[index]].names[int(self.row_of[index])]

    def where(self, index: int) -> str:
        """Say where a picture is listed, for messages: list file, line and picture."""
        return self.sources[self.source_of[index]].where(int(self.row_of[index]))

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Decode every picture once and say what is wrong with those that cannot be.

        Args:
            progress: called now and then with the number of pictures done and of all.

        Returns:
            One text a broken picture, in the order of the dataset, naming list file, line and picture.
        """
        rows = dict.fromkeys(zip(self.source_of.tolist(), self.row_of.tolist(), strict=True))
        order = list(rows)
        chunks = [order[start : start + _VERIFIED_AT_ONCE] for start in range(0, len(order), _VERIFIED_AT_ONCE)]
        problems: list[str] = []
        pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="verify")
        try:
            for number, found in enumerate(pool.map(self._problems, chunks), 1):
                problems += found
                if progress is not None:
                    progress(min(number * _VERIFIED_AT_ONCE, len(order)), len(order))
        finally:
            pool.shutdown(cancel_futures=True)
        return problems

    def _problems(self, rows: Sequence[tuple[int, int]]) -> list[str]:
        return [problem for source, row in rows if (problem := self._problem(source, row))]

    def _problem(self, source: int, row: int) -> str:
        try:
            self.sources[source].read(row)
        except DatasetError as error:
            return str(error)
        return ""


def load_datasets(
    sources: Sequence[Mapping[str, Any]], class_num: int | None = None, *, cache_bytes: int = _CACHE_BYTES
) -> Dataset:
    """Join the sources of a configuration's ``dataset``.

    Each has a ``name`` of :data:`SOURCES` (``ImageNetDataset`` where it is absent) and the keys that go with it, and
    perhaps ``repeat`` (times an epoch, default 1) and ``teacher`` (an ``.npz`` of ``path`` and unit-length
    ``features``). Only a source with a teacher may list pictures without a class.

    Args:
        sources: one map each; classes are joined by name.
        class_num: the labels of list files are numbers below it, or else no more different names. None: they are
            names, and classes are numbered in the order of the names.
        cache_bytes: most memory for decoded pictures.

    Raises:
        ConfigError: a name or key is unknown, or a value of the wrong kind.
        DatasetError: something is missing or not as described.
    """
    if not sources:
        raise ConfigError("dataset: there is no source of pictures")
    cache = PictureCache(cache_bytes)
    opened = [_open(fields, cache) for fields in sources]
    names = _class_names([part.source for part in opened], class_num)
    index = {name: label for label, name in enumerate(names)} | {"": -1}
    numbers = class_num is not None and any(part.source.numbered for part in opened)
    labels, teachers, groups, source_of, row_of = [], [], [], [], []
    group_of: dict[str, int] = {}
    for number, part in enumerate(opened):
        texts = part.source.labels
        own = np.array([index[str(int(text)) if numbers and text else text] for text in texts], np.int64)
        features, known = part.teacher_rows()
        group = group_of.setdefault(part.teacher, len(group_of)) if part.teacher else -1
        labels.append(np.tile(own, part.repeat))
        teachers.append(np.tile(features, (part.repeat, 1)))
        groups.append(np.tile(np.where(known, group, -1), part.repeat))
        row_of.append(np.tile(np.arange(len(texts)), part.repeat))
        source_of.append(np.full(len(row_of[-1]), number))
    width = max(rows.shape[1] for rows in teachers)
    return Dataset(
        np.concatenate(labels),
        names,
        np.concatenate([np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in teachers]),
        np.concatenate(groups),
        tuple(part.source for part in opened),
        np.concatenate(source_of),
        np.concatenate(row_of),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    source: Source
    repeat: int
    teacher: str | None

    def teacher_rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Give float32 (n, d), zero where the teacher has no row, and bool (n,), whether it has one."""
        names = self.source.names
        if self.teacher is None:
            return np.zeros((len(names), 0), np.float32), np.zeros(len(names), bool)
        by_name = _read_teacher(self.teacher)
        rows = np.zeros((len(names), max(map(len, by_name.values()), default=0)), np.float32)
        for row, name in zip(rows, names, strict=True):
            row[:] = by_name.get(name, 0)
        return rows, np.array([name in by_name for name in names])


def _read_teacher(path: str) -> dict[str, npt.NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(zip(archive["path"].tolist(), archive["features"].astype(np.float32), strict=True))
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"teacher file {path}: {error}") from error


def _open(fields: Mapping[str, Any], cache: PictureCache) -> _Part:
    rest = dict(fields)
    name = rest.pop("name", "ImageNetDataset")
    repeat, teacher = rest.pop("repeat", 1), rest.pop("teacher", None)
    if name not in SOURCES:
        raise ConfigError(f"dataset.name: no dataset is called {name!r}; there are {', '.join(SOURCES)}")
    opener, known = SOURCES[name]
    if unknown := [str(key) for key in rest if key not in known]:
        raise ConfigError(
            f"dataset {name}: unknown key(s) {', '.join(unknown)}; it knows {', '.join((*known, 'repeat', 'teacher'))}"
        )
    if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
        raise ConfigError(f"dataset {name}: repeat must be a positive whole number, not {repeat!r}")
    source = opener(rest, cache)
    if teacher is None and "" in source.labels:
        row = source.labels.index("")
        raise DatasetError(f"{source.where(row)}: the class is empty; only pictures with a teacher may have none")
    return _Part(source, repeat, None if teacher is None else str(teacher))


def _open_files(fields: dict[str, Any], cache: PictureCache) -> Source:
    if fields.get("image_root") is None:
        raise ConfigError("dataset: image_root is missing, the folder below which the pictures lie")
    root, listing, delimiter = Path(fields["image_root"]), fields.get("cls_label_path"), fields.get("delimiter")
    if listing is None:
        if delimiter is not None:
            raise ConfigError("dataset: delimiter is for a list file, but cls_label_path is missing")
        return open_folders(root, cache)
    return open_list(root, Path(listing), None if delimiter is None else str(delimiter), cache)


def _open_cifar10(fields: dict[str, Any], cache: PictureCache) -> Source:
    mode, path = fields.get("mode", "train"), fields.get("data_file")
    if mode not in MEMBERS:
        raise ConfigError(f"dataset CustomizedCifar10: mode must be {' or '.join(MEMBERS)}, not {mode!r}")
    archive = Path.home() / _CIFAR10_DOWNLOAD if path is None else Path(path)
    if path is None and not archive.is_file():
        raise DatasetError(
            f"dataset CustomizedCifar10: {archive} is missing; set data_file to where cifar-10-python.tar.gz lies "
            "(https://www.cs.toronto.edu/~kriz/cifar.html)"
        )
    return read_cifar10(archive, mode)


_FILE_KEYS = ("image_root", "cls_label_path", "delimiter")

SOURCES: Mapping[str, tuple[Callable[[dict[str, Any], PictureCache], Source], tuple[str, ...]]] = MappingProxyType(
    {
        "ImageNetDataset": (_open_files, _FILE_KEYS),
        "VeriWild": (_open_files, _FILE_KEYS),
        "CustomizedCifar10": (_open_cifar10, ("mode", "data_file")),
    }
)
"""By name, how a source is opened and which keys it has. Without ``cls_label_path`` every sub-folder is a class."""


def _class_names(sources: Sequence[Source], class_num: int | None) -> list[str]:
    """Name the classes by label, and check every label against their number."""
    found = sorted(frozenset().union(*(source.classes for source in sources)))
    if class_num is None:
        return found
    if not any(source.numbered for source in sources):
        if len(found) > class_num:
            raise DatasetError(f"{sources[0].where(0)}: there are {len(found)} classes, but class_num is {class_num}")
        return found
    right = {label for label in found if label.isdecimal() and int(label) < class_num} | {""}
    for source in sources:
        for row, label in enumerate(source.labels):
            if label not in right:
                is_number = label.removeprefix("-").isdecimal()
                what = f"label {label} of {class_num}" if is_number else f"label {label!r} is no number"
                raise DatasetError(
                    f"{source.where(row)}: {what}; with class_num {class_num} labels are 0 to {class_num - 1}"
                )
    return [str(number) for number in range(class_num)]
