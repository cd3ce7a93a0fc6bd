"""List files: a line a picture, as PaddleClas writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from .errors import DatasetError


class ListedPicture(NamedTuple):
    """A line: its number from 1, the picture's path, and its class, which may be empty."""

    line: int
    name: str
    label: str


def read_list(path: Path | str, delimiter: str | None = None) -> list[ListedPicture]:
    """Read lines of path, class and perhaps camera.

    Args:
        path: UTF-8 text; empty lines are skipped, cameras ignored.
        delimiter: what separates the fields. None: a tab if the first line has one, else blanks. Between blanks the
            class is the last field, or the last but one if both are whole numbers, so that a path may contain blanks.

    Raises:
        DatasetError: the file is missing, empty or not UTF-8, or a line has too few or too many fields.
    """
    lines = _read_lines(path)
    if delimiter == r"\t":  # YAML keeps the backslash outside double quotes
        delimiter = "\t"
    if delimiter is None:
        delimiter = "\t" if "\t" in lines[0][1] else " "
    if not delimiter:
        raise DatasetError(f"list file {path}: the delimiter is empty")
    rows = []
    for number, text in lines:
        fields = _split_blanks(text) if delimiter == " " else text.split(delimiter)
        if len(fields) == 1:
            what = "blank" if delimiter == " " else repr(delimiter)
            raise DatasetError(
                f"{path}:{number}: no {what} separates path and class in {text!r}; set delimiter to what does"
            )
        if len(fields) > 3:
            raise DatasetError(f"{path}:{number}: {len(fields)} fields; expected are path, class and perhaps camera")
        name, label = fields[0].strip(), fields[1].strip()
        if not name:
            raise DatasetError(f"{path}:{number}: the path is empty")
        rows.append(ListedPicture(number, name, sys.intern(label)))
    return rows


def read_names(path: Path | str) -> list[ListedPicture]:
    """Read the paths alone, up to a tab if there is one.

    Raises:
        DatasetError: the file is missing, empty or not UTF-8.
    """
    return [ListedPicture(number, text.partition("\t")[0].strip(), "") for number, text in _read_lines(path)]


def _read_lines(path: Path | str) -> list[tuple[int, str]]:
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"list file {path}: {error}") from error
    # Not splitlines(), which also splits at characters that names may contain.
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DatasetError(f"list file {path} is empty")
    return lines


def _split_blanks(text: str) -> list[str]:
    fields = text.strip().rsplit(None, 2)
    if len(fields) == 3 and not (fields[1].isdecimal() and fields[2].isdecimal()):
        return text.strip().rsplit(None, 1)
    return fields
