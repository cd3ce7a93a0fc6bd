"""What an index of binary codes is.

An index holds (row, code) pairs: rows are the catalog's row numbers, positive and never used twice. It is
safe for many readers *or* one writer at a time; whoever owns it sees to that with a ReadWriteLock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes
from index_store.locks import ReadWriteLock

Rows = NDArray[np.int64]
Distances = NDArray[np.int32]
SPARE = 64  # neighbours asked for beyond top_k, so that a tie at the k-th is nearly always seen whole
BLOCK = 65_536  # codes handled at once where a whole pass would need memory for all of them


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """How hard an approximate index searches; None is its default. A Flat index has no use for them."""

    nprobe: int | None = None
    ef_search: int | None = None


DEFAULTS = SearchParameters()


@dataclass(frozen=True, slots=True)
class Work:
    """How long work is done: on how many threads, for how long, and who is told.

    ``go_on`` raises where the work is to end early; ``tell`` is told the done part, 0 to 1.
    """

    threads: int
    go_on: Callable[[], None]
    tell: Callable[[float], None] = lambda _: None

    def part(self, start: float, end: float) -> Work:
        """Return this work as a part of a longer one, which is at ``start`` when it begins."""
        return replace(self, tell=lambda done: self.tell(start + (end - start) * done))


@dataclass(frozen=True, slots=True)
class Hits:
    """What one query found: rows int64 (m,) and distances int32 (m,), nearest first, ties in any order."""

    rows: Rows
    distances: Distances
    truncated: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of an index, for its snapshot: a kind and columns of equal length.

    ``pairs`` are rows and codes; ``lists`` the same with the number of the list each pair is in, of which
    ``centroids`` are the codes; ``nodes`` are rows (-1: removed), levels and codes of a graph by position, of
    which ``links`` are the neighbours, one node's after another's.
    """

    kind: str
    columns: tuple[NDArray[Any], ...]


class Selection(Protocol):
    """Some of an index's rows, to search among. It holds while nothing is added or removed."""

    @property
    def missing(self) -> int:
        """How many of the rows asked for the index does not hold."""


class Export(Protocol):
    """A walk over an index that may go on, chunk by chunk, while pairs come and go."""

    @property
    def facts(self) -> Mapping[str, int]:
        """What it takes besides the chunks to make the index again; nothing for a Flat one."""

    def next_chunk(self) -> Chunk | None:
        """Return copies of the next part; None at the end.

        Every row that is present from the start to the end of the walk comes at least once. The owner sees
        to it that nothing changes during this call, and that nothing is folded during the walk.
        """

    def close(self) -> None:
        """End the walk early or late."""


class HammingIndex(Protocol):
    """An index of binary codes. Which kinds there are is for ``methods`` to know."""

    @property
    def method(self) -> str:
        """The method's name in settings."""

    @property
    def bits(self) -> int:
        """The length of the codes."""

    @property
    def nbytes(self) -> int:
        """The memory that the present items take."""

    @property
    def parameters(self) -> Mapping[str, int]:
        """What tunes it, with the values that hold unless a search says otherwise."""

    @property
    def recent(self) -> int:
        """How many pairs are still searched one by one because they are not folded in."""

    def __len__(self) -> int:
        """How many pairs there are."""

    def add(self, rows: Rows, codes: Codes) -> None:
        """Add pairs: int64 (n,) and uint8 (n, bits / 8). The rows must be new."""

    def remove(self, rows: Rows) -> int:
        """Remove the pairs with these rows; return how many there were."""

    def select(self, rows: Rows) -> Any:
        """Return these rows as a selection to search among."""

    def search(
        self, codes: Codes, radius: int, top_k: int, among: Any = None, parameters: SearchParameters = DEFAULTS
    ) -> list[Hits]:
        """Find, for each query, the nearest within ``radius`` (inclusive).

        The hits hold the ``top_k`` nearest *and* everything as near as the last of these, so that the caller
        can order ties by what the index does not know; and at least one hit more if ``truncated``. An
        approximate index may miss some; what it gives lies where it says.
        """

    def nearest_outside(
        self, codes: Codes, radius: int, among: Any = None, parameters: SearchParameters = DEFAULTS
    ) -> list[Hits]:
        """Find, for each query, everything at the smallest distance above ``radius``."""

    def export(self) -> Export:
        """Start a walk over all pairs."""

    def worn(self) -> str | None:
        """Say why the index should be built anew; None while it need not."""

    def fold_is_due(self) -> bool:
        """Say whether enough pairs came lately to be worth folding in."""

    def fold(self, lock: ReadWriteLock, work: Work) -> None:
        """Fold recent pairs in while others search and change, taking ``lock`` where needed."""


def cut(
    distances: Distances,
    rows: Rows,
    radius: int,
    top_k: int,
    all_seen: bool,
    up_to: Callable[[int], tuple[Rows, Distances]],
) -> Hits:
    """Make hits of the nearest (m,), m above ``top_k`` unless that is ``all_seen``.

    ``up_to`` gives all up to a distance, for a tie that goes on beyond what was asked for.
    """
    within = int(np.searchsorted(distances, radius, side="right"))
    if within <= top_k:  # then either nothing is left or the next one lies outside
        return Hits(rows[:within], distances[:within], truncated=False)
    last = distances[top_k - 1]
    tied = int(np.searchsorted(distances, last, side="right"))
    if tied == len(distances) and not all_seen:
        rows, distances = up_to(int(last))
        tied = len(rows)
    keep = max(tied, top_k + 1)
    return Hits(rows[:keep], distances[:keep], truncated=True)


def no_hits() -> Hits:
    """Return what a query finds where there is nothing."""
    return Hits(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), truncated=False)
