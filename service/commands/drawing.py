"""Saving a picture with what a search found drawn onto it."""

from __future__ import annotations

import sys
import uuid
from contextlib import suppress
from pathlib import Path

from service.answers import marks_of
from service.drawing import draw_marks
from service.images import PictureDecoder, encode_jpeg, encode_png
from service.schemas import SearchAnswer

from .access import CommandError, Json

# The search has applied the limits that count, perhaps those of a server, and accepted the picture.
_ANY_PIXELS = sys.maxsize


def save_drawing(path: Path, picture: bytes, answer: Json) -> None:
    """Draw the objects of an answer onto their picture and save it, whole or not at all.

    Args:
        path: where, ``.png``, ``.jpg`` or ``.jpeg`` in any case; a file that is there is replaced.
        picture: the picture file that was searched.
        answer: of ``POST /search``.

    Raises:
        CommandError: it cannot be written there.
    """
    pixels = PictureDecoder(len(picture), _ANY_PIXELS).decode(picture)
    encode = encode_png if path.suffix.lower() == ".png" else encode_jpeg
    drawn = encode(draw_marks(pixels, marks_of(SearchAnswer.model_validate(answer))))
    torn = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        torn.write_bytes(drawn)
        torn.replace(path)
    except OSError as error:
        with suppress(OSError):
            torn.unlink()
        raise CommandError(f"{path} cannot be written: {error.strerror or error}") from error
