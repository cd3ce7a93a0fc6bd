"""Ids that the store makes."""

from __future__ import annotations

import pytest

from index_store.ids import format_id, format_ids, parse_id


@pytest.mark.parametrize("first", [0, 5, 1023, 1024, 2**40 - 700, 2**62 + 1022])
@pytest.mark.parametrize("count", [0, 1, 2, 1024, 3000])
def test_ids_made_together_are_those_made_one_by_one(first: int, count: int) -> None:
    ids = format_ids(first, count)
    assert ids == [format_id(number) for number in range(first, first + count)]
    assert ids == sorted(ids)
    assert [parse_id(text) for text in ids] == list(range(first, first + count))
