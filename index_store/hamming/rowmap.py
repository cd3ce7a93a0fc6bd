"""A map from rows to the places where an index keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.hamming.base import Rows


class RowMap:
    """A map from rows to non-negative places that takes about as many bytes an item as its ``dtype``.

    Rows come in rising order and go at random, so it is a table in pages; a page whose last row went is
    dropped. (A dictionary takes some hundred bytes an item.)
    """

    _SHIFT = 12
    _PAGE = 1 << _SHIFT

    def __init__(self, dtype: type[np.signedinteger[Any]] = np.int32) -> None:
        """Make an empty map for places of a signed integer type."""
        self._dtype = np.dtype(dtype)
        self._largest = int(np.iinfo(dtype).max)
        self._pages: dict[int, NDArray[Any]] = {}

    @property
    def nbytes(self) -> int:
        """The memory that the pages take."""
        return len(self._pages) * self._PAGE * self._dtype.itemsize

    def put(self, rows: Rows, positions: Rows) -> None:
        """Set the places (n,) of rows (n,). Raises OverflowError for one beyond the type."""
        if positions.size and int(positions.max()) > self._largest:
            raise OverflowError(f"an index holds at most {self._largest + 1} items")
        for number, part, places in self._by_page(rows):
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = np.full(self._PAGE, -1, dtype=self._dtype)
            page[places] = positions[part]

    def get(self, rows: Rows) -> Rows:
        """Return the places (n,) of rows (n,), -1 for those that are not there."""
        positions = np.full(len(rows), -1, dtype=np.int64)
        for number, part, places in self._by_page(rows):
            page = self._pages.get(number)
            if page is not None:
                positions[part] = page[places]
        return positions

    def present(self, rows: Rows) -> Rows:
        """Return the places of those of these rows that are there, ascending; repeated as they are."""
        places = np.sort(self.get(rows))
        return places[np.searchsorted(places, 0) :]

    def discard(self, rows: Rows) -> None:
        """Forget rows (n,)."""
        for number, _, places in self._by_page(rows):
            page = self._pages.get(number)
            if page is not None:
                page[places] = -1
                if (page < 0).all():
                    del self._pages[number]

    def _by_page(self, rows: Rows) -> list[tuple[int, Any, Rows]]:
        """Split rows by page: the page's number, where in ``rows``, places within the page."""
        if not rows.size:
            return []
        numbers, places = rows >> self._SHIFT, rows & (self._PAGE - 1)
        if (numbers == numbers[0]).all():
            return [(int(numbers[0]), slice(None), places)]
        order = np.argsort(numbers, kind="stable")
        bounds = np.flatnonzero(np.diff(numbers[order])) + 1
        return [(int(numbers[part[0]]), part, places[part]) for part in np.split(order, bounds)]
