"""Where pictures and their classes come from: a list file, or a folder a class."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .augment import Image
from .errors import DatasetError
from .list_files import ListedPicture, read_list, read_names
from .pictures import PictureCache

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_NAMED_MISSING = 5


class Source(Protocol):
    """Pictures with classes."""

    @property
    def names(self) -> Sequence[str]:
        """One a picture, as written where it is listed."""

    @property
    def labels(self) -> Sequence[str]:
        """Its class as text; empty for none."""

    @property
    def classes(self) -> Set[str]:
        """All classes, those without pictures included."""

    @property
    def numbered(self) -> bool:
        """Whether the classes are numbers where their number is given, as in list files, or names, as of folders."""

    def where(self, row: int) -> str:
        """Say where a picture is listed, for messages."""

    def read(self, row: int) -> Image:
        """Give RGB uint8 (H, W, 3), or raise DatasetError."""


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Picture files below one folder, a source.

    Attributes:
        root: the folder.
        listing: the list file, or None where the folders are the list.
        lines: numbers of lines in the list file, one a picture.
        names: paths below the root.
        labels: classes, empty for none.
        cache: keeps what was decoded.
    """

    root: Path
    listing: Path | None
    lines: list[int]
    names: list[str]
    labels: list[str]
    cache: PictureCache

    @property
    def classes(self) -> Set[str]:
        """The classes that pictures have."""
        return set(self.labels) - {""}

    @property
    def numbered(self) -> bool:
        """List files number their classes, unless none of them is a number; folders name them."""
        return self.listing is not None and any(label.removeprefix("-").isdecimal() for label in self.labels)

    def where(self, row: int) -> str:
        """Name the list file, the line and the picture."""
        name = self.names[row]
        return str(self.root / name) if self.listing is None else f"{self.listing}:{self.lines[row]}: {name}"

    def read(self, row: int) -> Image:
        """Decode a picture, or take it from memory: RGB uint8 (H, W, 3), read-only.

        Raises:
            DatasetError: it cannot be decoded.
        """
        try:
            return self.cache.read(self.root / self.names[row])
        except DatasetError as error:
            line = "" if self.listing is None else f"{self.listing}:{self.lines[row]}: "
            raise DatasetError(f"{line}{error}") from error


def open_list(root: Path, listing: Path, delimiter: str | None, cache: PictureCache) -> PictureFiles:
    """Open the pictures of a list file of path and class.

    Raises:
        DatasetError: see :func:`read_list`; or listed pictures are missing.
    """
    return _listed(root, listing, read_list(listing, delimiter), cache)


def open_names(root: Path, listing: Path, cache: PictureCache) -> PictureFiles:
    """Open the pictures of a list file of paths without classes.

    Raises:
        DatasetError: see :func:`read_names`; or listed pictures are missing.
    """
    return _listed(root, listing, read_names(listing), cache)


def open_folders(root: Path, cache: PictureCache) -> PictureFiles:
    """Open the pictures of a folder whose sub-folders are the classes, in the order of their names.

    Files that are not named like pictures, and hidden ones, do not count; pictures may lie deeper.

    Raises:
        DatasetError: there is no sub-folder, or one holds no picture.
    """
    if not root.is_dir():
        raise DatasetError(f"image_root {root} is not a folder")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DatasetError(f"image_root {root} has no sub-folders, one a class; or give cls_label_path")
    names: list[str] = []
    labels: list[str] = []
    for folder in folders:
        files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES]
        found = [path.relative_to(root).as_posix() for path in files if not path.name.startswith(".")]
        if not found:
            raise DatasetError(
                f"class folder {folder} holds no pictures ({', '.join(sorted(_SUFFIXES))}); fill or remove it"
            )
        names += found
        labels += [folder.name] * len(found)
    return PictureFiles(root, None, [0] * len(names), names, labels, cache)


def _listed(root: Path, listing: Path, rows: list[ListedPicture], cache: PictureCache) -> PictureFiles:
    missing = [row for row in rows if not (root / row.name).is_file()]
    if missing:
        first = ", ".join(f"{listing}:{row.line}: {row.name}" for row in missing[:_NAMED_MISSING])
        more = ", ..." if len(missing) > _NAMED_MISSING else ""
        raise DatasetError(
            f"{len(missing)} of {len(rows)} listed pictures are missing below image_root {root}: {first}{more}"
        )
    lines, names, labels = (list(column) for column in zip(*rows, strict=True))
    return PictureFiles(root, listing, lines, names, labels, cache)
