"""Checks of what a loss is made with."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> float:
    """Return a number above 0.

    Raises:
        ValueError: it is not, or is infinite or undefined; the text names the setting.
    """
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, not {value}")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """Return a number of at least 0.

    Raises:
        ValueError: it is not, or is infinite or undefined; the text names the setting.
    """
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
    return float(value)


def count(name: str, value: int) -> int:
    """Return a whole number above 0.

    Raises:
        ValueError: it is not one; the text names the setting.
    """
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value}")
    return int(value)
