"""PP-ShiTu's gallery list: one picture a line, its path and its label."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SOURCE_PREFIX = "file:"


class ListingError(Exception):
    """The gallery list cannot be read at all."""


@dataclass(frozen=True)
class Entry:
    """One picture of the list.

    Attributes:
        path: relative to the image root, normalised; or absolute.
        label: as written, without the blanks around it.
        line: number of its line in the list.
    """

    path: str
    label: str
    line: int

    @property
    def id(self) -> str:
        """The item's id: the same path always gives the same one, so building again replaces and removal finds it."""
        return f"{SOURCE_PREFIX}{hashlib.sha256(self.path.encode()).hexdigest()[:32]}"

    @property
    def source(self) -> str:
        """What the store notes as the picture's whereabouts."""
        return SOURCE_PREFIX + self.path


@dataclass(frozen=True)
class BadLine:
    """A line of the list that says nothing usable, and why."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """A gallery list: the pictures in its order, each path once, and the lines that could not be used."""

    entries: tuple[Entry, ...]
    bad_lines: tuple[BadLine, ...]


def read_listing(path: Path, delimiter: str = "\t", *, labels: bool = True) -> Listing:
    """Read a gallery list in UTF-8.

    A line is cut at its first delimiter, so a label may contain blanks, and even the delimiter. Empty lines are
    skipped. A path that comes twice with the same label counts once; with another label the later line is bad.

    Args:
        path: the list.
        delimiter: what parts path and label.
        labels: whether lines without a label are bad; for removal the path is enough.

    Raises:
        ListingError: there is no such file, or it is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ListingError(f"the gallery list {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ListingError(f"the gallery list {path} is not UTF-8 text: convert it with iconv") from error
    return parse_listing(text.split("\n"), delimiter, labels=labels)


def parse_listing(lines: Iterable[str], delimiter: str = "\t", *, labels: bool = True) -> Listing:
    """Read the lines of a gallery list; see :func:`read_listing`."""
    entries: dict[str, Entry] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        written, _, label = text.partition(delimiter)
        written, label = written.strip(), label.strip()
        if not written:
            bad.append(BadLine(number, text, "has no path"))
        elif labels and not label:
            bad.append(BadLine(number, text, f"has no label after a delimiter {delimiter!r}"))
        else:
            entry = Entry(posixpath.normpath(written), label, number)
            earlier = entries.setdefault(entry.path, entry)
            if labels and earlier.label != label:
                reason = f"the same path has the label {earlier.label!r} in line {earlier.line}"
                bad.append(BadLine(number, text, reason))
    return Listing(tuple(entries.values()), tuple(bad))
