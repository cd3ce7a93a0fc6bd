"""Ids that the store makes: time-ordered, and rising even when the clock steps back."""

from __future__ import annotations

import random

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # in ASCII order, without letters that look like digits
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_DIGITS = 13
_SEQUENCE_BITS = 20  # below 43 bits of milliseconds, which last until the year 2248


def first_number(last_number: int, clock_ms: int) -> int:
    """Return the number of the next id, given the last one ever made and the clock (ms since 1970).

    Following ids count up from it. The low bits start at random, so that galleries that are merged one day
    hardly ever made the same id.
    """
    return max(last_number + 1, (clock_ms << _SEQUENCE_BITS) | random.getrandbits(_SEQUENCE_BITS))


def format_id(number: int) -> str:
    """Return the id of a number below 2**65: 13 characters that sort as the numbers do."""
    return "".join([_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_DIGITS - 1), -1, -5)])


def format_ids(first: int, count: int) -> list[str]:
    """Return the ids of the ``count`` numbers from ``first`` on, below 2**65; faster than one by one."""
    ids: list[str] = []
    number, end = first, first + count
    while number < end:
        low = number % len(_PAIRS)
        pairs = _PAIRS[low : low + end - number]
        head = format_id(number)[:-2]
        ids += [head + pair for pair in pairs]
        number += len(pairs)
    return ids


def parse_id(text: str) -> int | None:
    """Return the number of an id that ``format_id`` could have made, else None."""
    if len(text) != _DIGITS:
        return None
    number = 0
    for character in text:
        digit = _ALPHABET.find(character)
        if digit < 0:
            return None
        number = number << 5 | digit
    return number
