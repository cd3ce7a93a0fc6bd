"""What is to be loaded in bulk: an array of codes, and text files with a line for each of them.

Everything is checked before anything is stored, in a first pass; files of any size are read in bounded memory.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index_store import InvalidItem, Item, check_item

from .access import CommandError

RECIPE = (
    "codes are packed bits, uint8 (n, bits / 8), the first feature in the highest bit: "
    "numpy.save('codes.npy', numpy.packbits(features > 0, axis=1))"
)
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class BulkInput:
    """Codes, uint8 (n, bits / 8), and the files whose n-th lines belong to the n-th of them."""

    codes: npt.NDArray[np.uint8]
    labels: Path
    ids: Path | None = None
    metadata: Path | None = None

    @property
    def bits(self) -> int:
        """The length of the codes."""
        return int(self.codes.shape[1]) * 8

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.codes)

    def items(self, start: int = 0) -> Iterator[Item]:
        """Yield the items from number ``start`` on. Raises CommandError if :meth:`check` would."""
        files = [path for path in (self.labels, self.ids, self.metadata) if path is not None]
        rows = zip(self.codes, *map(_lines, files), strict=True)
        for number, (code, label, *rest) in enumerate(islice(rows, start, None), start + 1):
            item_id = rest.pop(0) if self.ids is not None else None
            metadata = _object(self.metadata, number, rest.pop()) if self.metadata is not None else {}
            yield Item(item_id, label, code.tobytes(), metadata)

    def check(self) -> None:
        """Check every line of every file. Raises CommandError, which names the first that are wrong."""
        for path in (self.labels, self.ids, self.metadata):
            if path is not None and (count := sum(1 for _ in _lines(path))) != len(self):
                raise CommandError(f"{path} has {count:,} lines for {len(self):,} codes: give one line a code")
        problems: list[str] = []
        ids = array("q")
        for number, item in enumerate(self.items(), 1):
            try:
                check_item(item, self.bits)
            except InvalidItem as error:
                problems.append(f"line {number:,}: {error}")
                if len(problems) == _SHOWN_PROBLEMS:
                    break
            ids.append(hash(item.id))
        if not problems and self.ids is not None:
            problems = list(islice(_twice(self.ids, np.frombuffer(ids, np.int64)), _SHOWN_PROBLEMS))
        if problems:
            raise CommandError("\n".join([*problems, "nothing was stored: correct these lines first"]))


def read_codes(path: Path) -> npt.NDArray[np.uint8]:
    """Map a file of codes into memory, uint8 (n, bits / 8).

    Raises:
        CommandError: it cannot be read, or is not an array of packed codes.
    """
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise CommandError(f"{path} is no array of codes ({error}): {RECIPE}") from error
    if not isinstance(codes, np.ndarray):
        codes.close()
        raise CommandError(f"{path} holds several arrays: give one; {RECIPE}")
    if codes.dtype != np.uint8 or codes.ndim != 2 or not codes.shape[1]:
        raise CommandError(f"{path} holds {codes.dtype} {codes.shape}: {RECIPE}")
    if not len(codes):
        raise CommandError(f"{path} holds no codes")
    if codes[:1000].max() == 1 and codes.shape[1] > 1:
        raise CommandError(f"{path} seems to hold one bit a byte, uint8 {codes.shape}: {RECIPE}")
    return codes


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, without their ends."""
    try:
        # Only line feeds end a line: labels may hold what Unicode takes for line breaks.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 text: convert it with iconv") from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"{path}, line {number:,}: is not JSON: {error}; an item without metadata has {{}}"
        ) from error
    if not isinstance(value, dict):
        raise CommandError(f"{path}, line {number:,}: must be a JSON object; an item without metadata has {{}}")
    return value


def _twice(ids: Path, hashes: npt.NDArray[np.int64]) -> Iterator[str]:
    """Name lines whose id an earlier line has; 8 bytes a line tell nearly all apart, the others are compared."""
    values, counts = np.unique(hashes, return_counts=True)
    suspects = frozenset(values[counts > 1].tolist())
    if not suspects:
        return
    first: dict[str, int] = {}
    for number, item_id in enumerate(_lines(ids), 1):
        if hash(item_id) in suspects and (earlier := first.setdefault(item_id, number)) != number:
            yield f"line {number:,}: the id {item_id!r} is that of line {earlier:,}"


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items ``size`` at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
