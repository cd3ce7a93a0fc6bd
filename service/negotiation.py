"""Which of the offered media types a client likes best, by its ``Accept`` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from python_multipart.multipart import parse_options_header


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """Choose a media type.

    Args:
        accept: value of the header; empty accepts everything.
        offered: media types without parameters, what the server prefers first.

    Returns:
        The one with the highest quality; of equal ones the one that the client names more precisely, then the first.
        None if the client accepts none of them.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    ranked = [(_liking(media_type, ranges), media_type) for media_type in offered]
    (quality, _), best = max(ranked, key=lambda each: each[0])
    return best if quality > 0 else None


def _range(part: str) -> tuple[str, float]:
    name, parameters = parse_options_header(part)
    try:
        quality = float(parameters.get(b"q", b"1"))
    except ValueError:
        quality = math.nan
    # What cannot be read asks for nothing.
    return name.decode("latin-1"), quality if 0 <= quality <= 1 else 0.0


def _liking(media_type: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """Give the quality by the most precise range that covers a media type, and how precise that is (0 to 3)."""
    names = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
    precise, quality = max(
        ((names.index(name) + 1, quality) for name, quality in ranges if name in names), default=(0, 0.0)
    )
    return quality, precise
