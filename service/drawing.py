"""What was found, drawn onto the picture: a frame for each object and a tag with the label and distance of its match.

Letters come from the fonts inside OpenCV 5: a sans-serif face for Latin, Cyrillic and Hebrew, and WenQuanYi Micro Hei
for what that lacks, Chinese, Japanese and Korean foremost. What neither has is written as ``?``.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .images import Rgb
from .vision import Box

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

LONGEST_SIDE_PX = 1600
"""Larger pictures are reduced to this before they are drawn on; smaller ones keep their size."""

_MUTED: Colour = (96, 102, 112)
_GOLDEN_RATIO = 0.618034
_FIRST_HUE = 0.96
_WEIGHT = 600  # semibold, of 100 to 1000; the Chinese, Japanese and Korean letters have one weight only
_LEAST_TEXT_PX = 12
_FEW = 16  # objects whose tags have room at the usual size
_WIDEST_TAG = 0.4  # of the picture's width, unless the object itself is wider


@dataclass(frozen=True)
class Mark:
    """One object as it is drawn.

    Attributes:
        box: in pixels of the picture.
        label: of the best match; None: there is no match.
        distance: of the best match, in bits; None: there is no match.
        is_whole_image: whether it is the whole picture, which gets a thin frame.
        colour: of frame and tag; None: one of its own, or grey without a match.
    """

    box: Box
    label: str | None
    distance: int | None
    is_whole_image: bool = False
    colour: Colour | None = None

    @property
    def caption(self) -> tuple[str, str]:
        """What the tag says: the part that may be shortened, and the rest."""
        whole = "whole picture: " if self.is_whole_image else ""
        if self.label is None:
            return f"{whole}no match", ""
        return whole + _one_line(self.label), f" · {self.distance} bit{'' if self.distance == 1 else 's'}"


def readable_ink(paper: Colour) -> Colour:
    """Near-black or near-white, whichever has the higher contrast to ``paper``: at least 4 by WCAG 2's formula."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in paper)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (24, 22, 28) if luminance > 0.192 else (252, 250, 244)


def draw_marks(picture: Rgb, marks: Sequence[Mark]) -> Rgb:
    """Draw objects onto a copy of a picture, reduced to :data:`LONGEST_SIDE_PX` if it is larger.

    Lines and letters grow with the picture and shrink where there are many objects. Tags stay inside the picture and
    avoid each other where there is room; long labels end in an ellipsis; a picture too small for tags gets frames only.

    Args:
        picture: RGB uint8 (H, W, 3).
        marks: in the order of their colours; boxes within the picture.

    Returns:
        RGB uint8 (h, w, 3), not ``picture`` itself.
    """
    canvas = _reduced(picture)
    pen = _Pen(canvas, len(marks))
    scale = canvas.shape[1] / picture.shape[1], canvas.shape[0] / picture.shape[0]
    outlines = [_Outline(mark, pen.around(_scaled(mark.box, scale)), _colour(mark, i)) for i, mark in enumerate(marks)]
    # Large ones first, so that the frames inside them are on top.
    for outline in sorted(outlines, key=lambda each: -each.area):
        pen.frame(outline)
    tags: list[Box] = []
    # The whole picture last: its tag fits into any corner.
    for outline in sorted(outlines, key=lambda each: each.mark.is_whole_image):
        others = [each.edge for each in outlines if each is not outline and not each.mark.is_whole_image]
        pen.tag(outline, tags, others)
    return canvas


@dataclass(frozen=True)
class _Outline:
    """A mark with the outer edge of its frame, in pixels of the canvas."""

    mark: Mark
    edge: Box
    colour: Colour

    @property
    def area(self) -> int:
        x1, y1, x2, y2 = self.edge
        return (x2 - x1) * (y2 - y1)


class _Pen:
    """Draws on one canvas with lines and letters of one size, which fall where there are many objects."""

    def __init__(self, canvas: Rgb, count: int) -> None:
        self._canvas = canvas
        self._height, self._width = canvas.shape[:2]
        longest, shortest = max(canvas.shape[:2]), min(canvas.shape[:2])
        crowd = math.sqrt(max(1, count / _FEW))
        self._line = max(1, round(min(longest / 320, shortest / 40) / crowd))
        self._halo = max(1, self._line // 3)
        self._size = max(_LEAST_TEXT_PX, round(min(longest / 50, shortest / 14) / crowd))
        self._pad = round(self._size * 0.38)
        # Faces of OpenCV belong to the thread that makes them, and are cheap to make.
        self._face = cv2.FontFace("sans")

    def around(self, box: Box) -> Box:
        """Give the outer edge of a frame around a box, which covers nothing of it except at the picture's edge."""
        out = self._line + 2 * self._halo
        x1, y1, x2, y2 = box
        return max(0, x1 - out), max(0, y1 - out), min(self._width, x2 + out), min(self._height, y2 + out)

    def frame(self, outline: _Outline) -> None:
        """Draw a line in the object's colour between two hairlines that set it off from any background."""
        line = max(1, self._line // 2) if outline.mark.is_whole_image else self._line
        x1, y1, x2, y2 = outline.edge
        halo = self._halo
        self._border(outline.edge, line + 2 * halo, readable_ink(outline.colour))
        self._border((x1 + halo, y1 + halo, x2 - halo, y2 - halo), line, outline.colour)

    def tag(self, outline: _Outline, taken: list[Box], others: Sequence[Box]) -> None:
        """Write an object's caption at its frame, apart from the tags in ``taken``, and add it to them."""
        height = round(self._size * 1.3) + self._pad
        room = max(outline.edge[2] - outline.edge[0], round(_WIDEST_TAG * self._width)) - 2 * self._pad
        caption = self._fitting(*outline.mark.caption, room)
        if caption is None or height > self._height:
            return
        width = self._length(caption) + 2 * self._pad
        tag = _free_place(outline.edge, (width, height), (self._width, self._height), taken, others)
        taken.append(tag)
        self._plate(tag, outline.colour)
        origin = tag[0] + self._pad, tag[1] + self._pad // 2 + self._size
        cv2.putText(self._canvas, caption, origin, readable_ink(outline.colour), self._face, self._size, _WEIGHT)

    def _border(self, edge: Box, width: int, colour: Colour) -> None:
        x1, y1, x2, y2 = edge
        for x, y, right, bottom in (
            (x1, y1, x2, min(y1 + width, y2)),
            (x1, max(y2 - width, y1), x2, y2),
            (x1, y1, min(x1 + width, x2), y2),
            (max(x2 - width, x1), y1, x2, y2),
        ):
            self._canvas[y:bottom, x:right] = colour

    def _plate(self, tag: Box, colour: Colour) -> None:
        x1, y1, x2, y2 = tag
        round_off = self._pad // 2
        for inset in ((round_off, 0), (0, round_off)):
            self._canvas[y1 + inset[1] : y2 - inset[1], x1 + inset[0] : x2 - inset[0]] = colour
        for x in (x1 + round_off, x2 - 1 - round_off):
            for y in (y1 + round_off, y2 - 1 - round_off):
                cv2.circle(self._canvas, (x, y), round_off, colour, cv2.FILLED, cv2.LINE_AA)

    def _length(self, text: str) -> int:
        return int(cv2.getTextSize((0, 0), text, (0, 0), self._face, self._size, _WEIGHT)[2])

    def _fitting(self, text: str, rest: str, room: int) -> str | None:
        """Shorten ``text`` until it fits into ``room`` pixels together with ``rest``; None if that does not help."""
        if self._length(text + rest) <= room:
            return text + rest
        low, high = 0, len(text)  # the first so many characters fit, so many do not
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._length(_cut(text, middle) + rest) <= room
            low, high = (middle, high) if fits else (low, middle)
        return _cut(text, low) + rest if low else None


def _reduced(picture: Rgb) -> Rgb:
    height, width = picture.shape[:2]
    scale = LONGEST_SIDE_PX / max(height, width)
    if scale >= 1:
        return np.array(picture)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _scaled(box: Box, scale: tuple[float, float]) -> Box:
    x1, y1, x2, y2 = (round(edge * factor) for edge, factor in zip(box, scale * 2, strict=True))
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def _colour(mark: Mark, index: int) -> Colour:
    if mark.colour is not None:
        return mark.colour
    if mark.label is None:
        return _MUTED
    # Hues a golden section apart never come close to each other soon; every other one is darker besides.
    hue = (_FIRST_HUE + index * _GOLDEN_RATIO) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.44, 0.58)[index % 2], 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _one_line(text: str) -> str:
    """Put a label on one line, without control and format characters, which have no shape."""
    words = " ".join(text.split())
    return "".join(character for character in words if not unicodedata.category(character).startswith("C"))


def _cut(text: str, length: int) -> str:
    return text[:length].rstrip() + "…"


def _free_place(
    edge: Box, size: tuple[int, int], canvas: tuple[int, int], taken: Sequence[Box], others: Sequence[Box]
) -> Box:
    """Find the best place for a tag.

    Args:
        edge: outer edge of the object's frame.
        size: width and height of the tag.
        canvas: width and height of the picture.
        taken: tags that are there already.
        others: frames of other objects.

    Returns:
        Of the frame's corners, in- and outside, one where no tag is, and as little of another object as can be; if
        there is none, the nearest place above or below with the least of other tags.
    """
    x1, y1, x2, y2 = edge
    (width, height), (right, bottom) = size, (canvas[0] - size[0], canvas[1] - size[1])
    columns = (x1, x2 - width)
    corners = np.array([(x, y) for y in (y1 - height, y2, y1, y2 - height) for x in columns]).clip(0, (right, bottom))
    corners = corners[_covered(corners, size, taken) == 0]
    if len(corners):
        # In quarters of the tag: a little less is no reason for a less usual corner.
        place = corners[np.argmin(4 * _covered(corners, size, others) // (width * height))]
    else:
        rows = sorted(range(0, bottom + 1, height), key=lambda y: abs(y - y1))
        places = np.array([(x, y) for y in rows for x in columns]).clip(0, (right, bottom))
        place = places[np.argmin(_covered(places, size, taken))]
    x, y = (int(value) for value in place)
    return x, y, x + width, y + height


def _covered(places: npt.NDArray[np.int64], size: tuple[int, int], boxes: Sequence[Box]) -> npt.NDArray[np.int64]:
    """Count the pixels of boxes that a tag of a size (width, height) would cover at each place, int64 (n, 2)."""
    corners = np.array(boxes, np.int64).reshape(1, -1, 4)
    low = np.maximum(places[:, None], corners[:, :, :2])
    high = np.minimum(places[:, None] + size, corners[:, :, 2:])
    covered: npt.NDArray[np.int64] = np.maximum(high - low, 0).prod(axis=2).sum(axis=1)
    return covered
