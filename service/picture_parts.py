"""The parts of a picture file, counted before a decoder goes through them.

Some small files cost a decoder hours: a progressive JPEG may refine the same coefficients in any number of scans, and
Pillow handles every segment and chunk in Python, some of them in quadratic time. Pictures that people make have a
dozen scans and some hundred parts.
"""

from __future__ import annotations

import re

from .errors import PictureTooComplex

MAX_SCANS = 50  # of a JPEG file: 100 scans of 49 million pixels were measured to take 4 s
MAX_SEGMENTS = 4_096  # of a JPEG file; 1.6 million segments of Exif took 196 s
MAX_PADDING_BYTES = 4_096  # between the segments before the first scan
MAX_CHUNKS = 100_000  # of a PNG file: that many take 0.4 s
MAX_EXIF_BYTES = 2**16
"""What Exif may have: its standard stores it in one JPEG segment (Exif 3.0, section 4.5.4)."""

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # neither stuffed bytes nor restarts, which are part of the data
_END_OF_IMAGE = 0xD9
# Markers without a segment: start and end, and those whose segments no decoder here skips. Pillow reads on right behind
# these, up to the first scan; libjpeg gives up.
_ALONE = frozenset({0x01, 0xC8, 0xD8, _END_OF_IMAGE, *range(0xF0, 0xFE)})
_START_OF_SCAN = 0xDA
_EXIF_SEGMENT = 0xE1
_EXIF_PREFIX = b"Exif\0\0"


def check_parts(name: str, data: bytes) -> None:
    """Refuse a picture file of far more parts than any picture has.

    Args:
        name: its format, by Pillow's name. Only of JPEG and PNG files the parts are counted.
        data: the file. If it is corrupt, that is for the decoder to tell.

    Raises:
        PictureTooComplex.
    """
    if name == "JPEG":
        _check_jpeg(data)
    elif name == "PNG":
        _check_png(data)


def _check_jpeg(data: bytes) -> None:
    """Follow the markers of a JPEG file as decoders do (ITU T.81, annex B)."""
    position = segments = scans = padding = exif = 0
    while (found := _MARKER.search(data, position)) is not None:
        marker = found[1][0]
        if scans == 0:
            padding += found.start() - position
        if marker == _END_OF_IMAGE and scans > 0:
            return
        position = found.end()
        length = 0 if marker in _ALONE else int.from_bytes(data[position : position + 2], "big")
        segments += 1
        scans += marker == _START_OF_SCAN
        if marker == _EXIF_SEGMENT and data.startswith(_EXIF_PREFIX, position + 2):
            exif += length - 2 - len(_EXIF_PREFIX)
        position += length
        if segments > MAX_SEGMENTS or scans > MAX_SCANS or padding > MAX_PADDING_BYTES or exif > MAX_EXIF_BYTES:
            raise PictureTooComplex(
                f"the JPEG file has more than {MAX_SCANS} scans, {MAX_SEGMENTS:,} segments, {MAX_EXIF_BYTES:,} bytes "
                f"of Exif or {MAX_PADDING_BYTES:,} bytes between segments: no camera or program writes such files"
            )


def _check_png(data: bytes) -> None:
    """Follow the chunks of a PNG file (W3C PNG, section 5.3)."""
    position, chunks = 8, 0
    while position < len(data):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise PictureTooComplex(
                f"the PNG file has more than {MAX_CHUNKS:,} chunks: no camera or program writes such files"
            )
        position += 12 + int.from_bytes(data[position : position + 4], "big")
