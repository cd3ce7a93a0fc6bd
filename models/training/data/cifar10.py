"""The CIFAR-10 python archive, read without running what a pickle may contain.

Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009; the format is described at
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from .augment import Image
from .errors import DatasetError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEMBERS = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_MAX_MEMBER_BYTES = 64 << 20  # a batch of 10,000 has 31 MB


@dataclass(frozen=True, eq=False)
class Cifar10:
    """Pictures of one part of the archive, in memory; a source of :class:`models.training.data.datasets.Dataset`.

    Attributes:
        archive: where they come from.
        pixels: uint8 (n, 32, 32, 3).
        names: member and number, such as ``data_batch_1/17``.
        labels: class names.
        classes: all ten.
        numbered: the classes have names.
    """

    archive: Path
    pixels: npt.NDArray[np.uint8]
    names: list[str]
    labels: list[str]
    classes: frozenset[str] = frozenset(CLASSES)
    numbered: bool = False

    def where(self, row: int) -> str:
        """Name the archive and the picture."""
        return f"{self.archive}: {self.names[row]}"

    def read(self, row: int) -> Image:
        """Give RGB uint8 (32, 32, 3)."""
        return self.pixels[row]


def read_cifar10(archive: Path, mode: str) -> Cifar10:
    """Read ``cifar-10-python.tar.gz``.

    Args:
        archive: the file as published, compressed or not.
        mode: ``train`` (50,000 pictures) or ``test`` (10,000).

    Raises:
        DatasetError: it is missing, torn, or something else.
    """
    try:
        with tarfile.open(archive) as tar:
            members = {PurePosixPath(member.name).name: member for member in tar if member.isfile()}
            batches = [(name, _read_batch(tar, members, name)) for name in MEMBERS[mode]]
    except Exception as error:  # torn archives and pickles raise whatever their readers stumble over
        raise DatasetError(f"CIFAR-10 archive {archive}: {error}") from error
    pixels = np.concatenate([data for _, (data, _) in batches])
    pixels.setflags(write=False)
    return Cifar10(
        archive,
        pixels,
        [f"{name}/{number}" for name, (data, _) in batches for number in range(len(data))],
        [CLASSES[label] for _, (_, labels) in batches for label in labels],
    )


def _read_batch(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str
) -> tuple[npt.NDArray[np.uint8], list[int]]:
    member = members.get(name)
    stream = tar.extractfile(member) if member else None
    if member is None or stream is None:
        raise ValueError(f"{name} is missing; expected is cifar-10-python.tar.gz")
    if member.size > _MAX_MEMBER_BYTES:
        raise ValueError(f"{name} has {member.size:,} bytes; a batch has 31 million")
    content = _ArrayUnpickler(io.BytesIO(stream.read()), encoding="bytes").load()
    fields = content if isinstance(content, dict) else {}
    data, labels = (fields.get(key.encode(), fields.get(key)) for key in ("data", "labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        raise ValueError(f"{name}: data must be bytes of shape (n, 3072)")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(_is_label(label) for label in labels):
        raise ValueError(f"{name}: labels must be {len(data)} whole numbers from 0 to 9")
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _is_label(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < len(CLASSES)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numbers, texts, lists, dictionaries and NumPy arrays of them, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Give the three callables that rebuild an array."""
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if module == "numpy" and name == "dtype":
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch needs")
