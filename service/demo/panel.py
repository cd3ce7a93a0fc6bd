"""A flat printed surface (a label, the face of a box) and the few strokes that packaging is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from service.drawing import Colour

Point = tuple[float, float]
Picture = npt.NDArray[np.uint8]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour between ``a`` (share 0) and ``b`` (share 1)."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def ink_on(paper: Colour) -> Colour:
    """Near-black or near-white, whichever is easier to read on ``paper``."""
    light = 0.299 * paper[0] + 0.587 * paper[1] + 0.114 * paper[2]
    return (24, 22, 28) if light > 140 else (252, 250, 244)


class Panel:
    """A canvas with the origin at the upper left; positions and sizes are in units of the panel's *width*.

    A panel of 300 x 600 pixels therefore spans x 0..1 and y 0..2.
    """

    def __init__(self, width_px: int, height_px: int, paper: Colour) -> None:
        """Start with a sheet of one colour."""
        self.image = Image.new("RGB", (width_px, height_px), paper)
        self.unit = float(width_px)
        self.height = height_px / width_px
        self._draw = ImageDraw.Draw(self.image)
        # A TrueType font of any size; only a Pillow built without FreeType has none.
        font = ImageFont.load_default(32)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise OSError("this Pillow was built without FreeType, which the drawn labels need")
        self._font = font

    def pixels(self) -> Picture:
        """The panel as RGB ``uint8 (H, W, 3)``."""
        return np.array(self.image, dtype=np.uint8)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0.0) -> None:
        """Fill an upright rectangle, its corners rounded by ``radius``."""
        box = [round(v * self.unit) for v in (x0, y0, x1, y1)]
        self._draw.rounded_rectangle(box, radius=radius * self.unit, fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle_deg: float = 0.0) -> None:
        """Fill an ellipse around (x, y)."""
        turn = math.radians(angle_deg)
        steps = [2 * math.pi * i / 48 for i in range(48)]
        self.polygon(
            [
                (
                    x + rx * math.cos(t) * math.cos(turn) - ry * math.sin(t) * math.sin(turn),
                    y + rx * math.cos(t) * math.sin(turn) + ry * math.sin(t) * math.cos(turn),
                )
                for t in steps
            ],
            colour,
        )

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self.ellipse(x, y, radius, radius, colour)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """Draw a circle's outline, ``width`` thick inwards."""
        box = [(v * self.unit) for v in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, outline=colour, width=max(1, round(width * self.unit)))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * self.unit, y * self.unit) for x, y in points], fill=colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with round joints and ends."""
        thick = max(1, round(width * self.unit))
        path = [(x * self.unit, y * self.unit) for x, y in points]
        self._draw.line(path, fill=colour, width=thick, joint="curve")
        for x, y in (path[0], path[-1]):
            r = thick / 2 - 0.5
            self._draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)

    def petal(self, x: float, y: float, length: float, width: float, angle_deg: float, colour: Colour) -> None:
        """Fill a leaf or petal that starts at (x, y) and points along ``angle_deg`` (0 right, 90 down)."""
        turn = math.radians(angle_deg)
        edge: list[Point] = []
        for side in (1.0, -1.0):
            steps = [i / 12 for i in range(13)]
            for t in steps if side > 0 else reversed(steps):
                along, across = t * length, side * width / 2 * math.sin(math.pi * t**0.85)
                edge.append(
                    (
                        x + along * math.cos(turn) - across * math.sin(turn),
                        y + along * math.sin(turn) + across * math.cos(turn),
                    )
                )
        self.polygon(edge, colour)

    def star(self, x: float, y: float, radius: float, points: int, depth: float, colour: Colour) -> None:
        """Fill a star of ``points`` tips; ``depth`` is the inner radius as a share of the outer one."""
        tips = [
            (
                x + radius * (1.0 if i % 2 == 0 else depth) * math.sin(math.pi * i / points),
                y - radius * (1.0 if i % 2 == 0 else depth) * math.cos(math.pi * i / points),
            )
            for i in range(2 * points)
        ]
        self.polygon(tips, colour)

    def fade(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        """Fill the full width between two heights with a vertical gradient."""
        first, last = round(y0 * self.unit), max(round(y1 * self.unit), round(y0 * self.unit) + 1)
        for row in range(first, last):
            colour = mix(top, bottom, (row - first) / (last - first))
            self._draw.line([(0, row), (self.image.width, row)], fill=colour)

    def wave(self, y: float, height: float, cycles: float, colour: Colour, phase: float = 0.0) -> None:
        """Fill everything below a wavy line around ``y``."""
        crest = [(i / 60, y + height * math.sin(2 * math.pi * (cycles * i / 60 + phase))) for i in range(61)]
        self.polygon([*crest, (1.0, self.height), (0.0, self.height)], colour)

    def rays(self, x: float, y: float, count: int, colour: Colour) -> None:
        """Fan ``count`` wedges out of (x, y) over the whole panel."""
        reach = 2.0 * (1.0 + self.height)
        for i in range(count):
            a, b = (2 * math.pi * (i + off) / count for off in (0.0, 0.5))
            self.polygon(
                [
                    (x, y),
                    (x + reach * math.cos(a), y + reach * math.sin(a)),
                    (x + reach * math.cos(b), y + reach * math.sin(b)),
                ],
                colour,
            )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        width: float,
        colour: Colour,
        *,
        bold: float = 0.02,
        outline: Colour | None = None,
        angle_deg: float = 0.0,
        max_height: float = 0.5,
    ) -> None:
        """Write one line, centred at (x, y), as large as ``width`` (and ``max_height``) allow.

        ``bold`` thickens the strokes by that share of the letter height; ``outline`` draws an edge around them.
        """
        probe = self._font.font_variant(size=100)
        left, top, right, bottom = probe.getbbox(words)
        size = min(100 * width * self.unit / max(right - left, 1), 100 * max_height * self.unit / max(bottom - top, 1))
        size *= 1 - 2 * bold
        font = self._font.font_variant(size=max(4.0, size))
        stroke, edge = size * bold, size * 0.07 if outline else 0.0
        box = font.getbbox(words, stroke_width=stroke + edge)
        pad = 4
        sheet = Image.new("RGBA", (int(box[2] - box[0]) + 2 * pad, int(box[3] - box[1]) + 2 * pad), (*colour, 0))
        pen, origin = ImageDraw.Draw(sheet), (pad - box[0], pad - box[1])
        if outline:
            pen.text(origin, words, font=font, fill=(*outline, 255), stroke_width=stroke + edge)
        # The stroke is drawn around the anchor of its own width: shift so that both layers share the letters' place.
        pen.text(origin, words, font=font, fill=(*colour, 255), stroke_width=stroke)
        if angle_deg:
            sheet = sheet.rotate(angle_deg, resample=Image.Resampling.BICUBIC, expand=True)
        place = round(x * self.unit - sheet.width / 2), round(y * self.unit - sheet.height / 2)
        self.image.paste(sheet, place, sheet)

    def small_print(self, x: float, y: float, width: float, lines: int, colour: Colour, seed: int) -> None:
        """Suggest a paragraph: ``lines`` rows of word-long dashes centred at x, starting at y."""
        rng = np.random.default_rng(seed)
        step = width * 0.07
        for row in range(lines):
            at, end = x - width / 2, x + width / 2 * (0.5 if row == lines - 1 else 1.0)
            while at < end:
                word = float(rng.uniform(0.05, 0.16)) * width
                self.rect(at, y + row * step, min(at + word, end), y + row * step + step * 0.45, colour)
                at += word + width * 0.025

    def barcode(self, x: float, y: float, width: float, seed: int) -> None:
        """A bar code on its white field, upper left corner at (x, y)."""
        rng = np.random.default_rng(seed)
        height = width * 0.62
        self.rect(x, y, x + width, y + height, (255, 255, 255))
        at = x + width * 0.08
        while at < x + width * 0.92:
            bar, gap = (float(v) * width / 70 for v in rng.integers(1, 4, 2))
            self.rect(at, y + height * 0.1, at + bar, y + height * 0.85, (20, 20, 20))
            at += bar + gap + width / 70
