"""What is printed on a pack: a dozen ways to lay out a brand, a product, a picture and a palette."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from service.demo.motifs import Motif, motifs
from service.demo.panel import Panel, ink_on, mix
from service.drawing import Colour

_WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Design:
    """The words and colours of one product; ``layout`` and ``motif`` name entries of `layouts` and `motifs`."""

    brand: str
    product: str
    note: str
    layout: str
    motif: str
    paper: Colour
    accent: Colour
    ink: Colour

    @property
    def seed(self) -> int:
        """A number of this design's own, for its bar code and small print."""
        return zlib.crc32(f"{self.brand} {self.product}".encode())


Layout = Callable[[Panel, Design, Motif, float], None]
"""Paints a whole panel; what must be read stays within the given share of its width (a can's front is curved)."""


def front(design: Design, width_px: int, height_px: int, field: float) -> Panel:
    """The face that carries the brand."""
    panel = Panel(width_px, height_px, design.paper)
    layouts()[design.layout](panel, design, motifs()[design.motif], field)
    return panel


def back(design: Design, width_px: int, height_px: int) -> Panel:
    """The face with the small print and the bar code."""
    panel = Panel(width_px, height_px, mix(design.paper, design.accent, 0.12))
    h, ink = panel.height, ink_on(design.paper)
    panel.rect(0, 0, 1, 0.06 * h, design.accent)
    panel.rect(0, 0.94 * h, 1, h, design.accent)
    panel.text(0.5, 0.15 * h, design.brand, 0.6, ink, max_height=0.1 * h)
    lines = max(3, min(14, int(h * 7)))
    panel.small_print(0.5, 0.26 * h, 0.76, lines, mix(design.paper, ink, 0.6), design.seed)
    code = min(0.5, 0.34 * h)
    panel.barcode(0.5 - code / 2, 0.9 * h - code * 0.62, code, design.seed)
    return panel


def plain(design: Design, width_px: int, height_px: int) -> Panel:
    """A face with the brand only, for lids and tops."""
    panel = Panel(width_px, height_px, design.accent)
    panel.text(0.5, panel.height / 2, design.brand, 0.7, ink_on(design.accent), max_height=0.4 * panel.height)
    return panel


def _medallion(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    r = min(0.4 * f, 0.23 * h)
    p.fade(0, h, mix(d.paper, _WHITE, 0.12), mix(d.paper, (0, 0, 0), 0.12))
    p.disc(0.5, 0.55 * h, r * 1.22, d.accent)
    p.disc(0.5, 0.55 * h, r * 1.12, _WHITE)
    p.disc(0.5, 0.55 * h, r * 1.05, mix(d.accent, _WHITE, 0.75))
    motif(p, 0.5, 0.55 * h, r * 0.85)
    p.text(0.5, 0.17 * h, d.brand, 0.9 * f, d.ink, max_height=0.12 * h, outline=ink_on(d.ink))
    p.text(0.5, 0.87 * h, d.product, 0.8 * f, d.ink, max_height=0.07 * h)
    p.text(0.5, 0.95 * h, d.note, 0.4 * f, d.ink, max_height=0.03 * h, bold=0.0)


def _banner(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    p.rect(0, 0.1 * h, 1, 0.38 * h, d.accent)
    p.rect(0, 0.39 * h, 1, 0.4 * h, d.accent)
    p.text(0.5, 0.24 * h, d.brand, 0.92 * f, ink_on(d.accent), max_height=0.17 * h)
    motif(p, 0.5, 0.63 * h, min(0.4 * f, 0.17 * h))
    p.text(0.5, 0.87 * h, d.product, 0.85 * f, d.ink, max_height=0.07 * h)
    p.text(0.5, 0.05 * h, d.note, 0.6 * f, d.ink, max_height=0.035 * h, bold=0.0)
    p.rect(0, 0.955 * h, 1, h, d.accent)


def _sunburst(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    p.rays(0.5, 0.58 * h, 16, d.accent)
    p.disc(0.5, 0.58 * h, min(0.36 * f, 0.22 * h), mix(d.paper, _WHITE, 0.55))
    motif(p, 0.5, 0.58 * h, min(0.4 * f, 0.23 * h))
    p.text(0.5, 0.2 * h, d.brand, 0.95 * f, d.ink, max_height=0.17 * h, outline=_WHITE, bold=0.05, angle_deg=5)
    p.rect(0.5 - 0.46 * f, 0.83 * h, 0.5 + 0.46 * f, 0.93 * h, d.ink, 0.03)
    p.text(0.5, 0.88 * h, d.product, 0.8 * f, ink_on(d.ink), max_height=0.055 * h)


def _diagonal(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    p.polygon([(0, 0.62 * h), (1, 0.3 * h), (1, h), (0, h)], d.accent)
    p.polygon([(0, 0.62 * h), (1, 0.3 * h), (1, 0.34 * h), (0, 0.66 * h)], d.ink)
    p.text(0.5, 0.27 * h, d.brand, 0.9 * f, d.ink, max_height=0.2 * h, bold=0.05, angle_deg=14, outline=_WHITE)
    motif(p, 0.5 + 0.1 * f, 0.68 * h, min(0.33 * f, 0.19 * h))
    p.text(0.5, 0.93 * h, d.product, 0.85 * f, ink_on(d.accent), max_height=0.06 * h)
    p.text(0.5 - 0.2 * f, 0.07 * h, d.note, 0.4 * f, d.ink, max_height=0.04 * h, bold=0.0)


def _upright(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    left = 0.5 - f / 2
    p.rect(left + 0.06 * f, 0, left + 0.48 * f, h, d.accent)
    length = min(0.8 * h, 0.34 * f * len(d.brand) * 0.72)
    p.text(left + 0.27 * f, 0.52 * h, d.brand, length, ink_on(d.accent), max_height=0.28 * f, angle_deg=90, bold=0.05)
    motif(p, left + 0.74 * f, 0.24 * h, min(0.2 * f, 0.15 * h))
    p.text(left + 0.74 * f, 0.58 * h, d.product, 0.4 * h, d.ink, max_height=0.1 * f, angle_deg=90)
    p.text(left + 0.74 * f, 0.9 * h, d.note, 0.36 * f, d.ink, max_height=0.04 * h, bold=0.0)


def _stripes(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    for i in range(9):
        p.rect((2 * i + 0.5) / 18, 0, (2 * i + 1.5) / 18, h, d.accent)
    rx, ry = 0.47 * f, min(0.36 * h, 0.62 * f)
    p.ellipse(0.5, 0.5 * h, rx * 1.05, ry * 1.05, d.ink)
    p.ellipse(0.5, 0.5 * h, rx, ry, _WHITE)
    p.text(0.5, 0.5 * h - ry * 0.36, d.brand, 1.45 * rx, d.ink, max_height=ry * 0.4, bold=0.05)
    motif(p, 0.5, 0.5 * h + ry * 0.22, min(rx * 0.42, ry * 0.34))
    p.text(0.5, 0.5 * h + ry * 0.74, d.product, 0.95 * rx, d.ink, max_height=ry * 0.16)


def _wave(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    p.fade(0, h, mix(d.paper, _WHITE, 0.2), d.paper)
    p.wave(0.56 * h, 0.05 * h, 1.0, mix(d.accent, _WHITE, 0.45), 0.15)
    p.wave(0.63 * h, 0.05 * h, 1.0, d.accent, 0.3)
    p.text(0.5, 0.22 * h, d.brand, 0.9 * f, d.ink, max_height=0.16 * h, bold=0.05)
    p.text(0.5, 0.36 * h, d.product, 0.7 * f, d.ink, max_height=0.06 * h, bold=0.0)
    motif(p, 0.5, 0.63 * h, min(0.36 * f, 0.17 * h))
    p.text(0.5, 0.92 * h, d.note, 0.6 * f, ink_on(d.accent), max_height=0.045 * h)


def _minimal(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    left = 0.5 - f / 2
    p.text(0.5, 0.13 * h, d.brand, 0.62 * f, d.ink, max_height=0.085 * h)
    p.rect(left + 0.12 * f, 0.21 * h, left + 0.88 * f, 0.215 * h, d.ink)
    p.text(0.5, 0.27 * h, d.product, 0.6 * f, d.ink, max_height=0.045 * h, bold=0.0)
    motif(p, 0.5, 0.6 * h, min(0.36 * f, 0.2 * h))
    p.rect(0, 0.87 * h, 1, h, d.accent)
    p.text(0.5, 0.935 * h, d.note, 0.6 * f, ink_on(d.accent), max_height=0.045 * h)


def _dots(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h, step = p.height, 0.125
    for row in range(int(h / step * 1.2) + 2):
        for column in range(10):
            p.disc((column + 0.5 * (row % 2)) * step, row * step * 0.87, step * 0.24, d.accent)
    y0, y1 = 0.3 * h, min(0.3 * h + 0.62 * f, 0.82 * h)
    p.rect(0.5 - 0.46 * f, y0, 0.5 + 0.46 * f, y1, d.ink, 0.06)
    p.rect(0.5 - 0.43 * f, y0 + 0.03 * f, 0.5 + 0.43 * f, y1 - 0.03 * f, d.paper, 0.045)
    p.text(0.5, y0 + 0.3 * (y1 - y0), d.brand, 0.78 * f, d.ink, max_height=0.3 * (y1 - y0), bold=0.05)
    motif(p, 0.5, y0 + 0.72 * (y1 - y0), min(0.17 * f, 0.2 * (y1 - y0)))
    p.text(0.5, 0.9 * h, d.product, 0.8 * f, d.ink, max_height=0.06 * h, outline=d.paper)


def _gingham(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h, step = p.height, 0.1
    rows = int(h / step) + 1
    pale = mix(d.paper, d.accent, 0.5)
    for i in range(0, 11, 2):
        p.rect(i * step, 0, (i + 1) * step, h, pale)
    for row in range(0, rows, 2):
        p.rect(0, row * step, 1, (row + 1) * step, pale)
        for i in range(0, 11, 2):
            p.rect(i * step, row * step, (i + 1) * step, (row + 1) * step, d.accent)
    r = min(0.46 * f, 0.4 * h)
    p.disc(0.5, 0.52 * h, r * 1.05, d.ink)
    p.disc(0.5, 0.52 * h, r, (255, 252, 240))
    p.ring(0.5, 0.52 * h, r * 0.94, r * 0.02, d.ink)
    p.text(0.5, 0.52 * h - r * 0.45, d.brand, 1.4 * r, d.ink, max_height=0.32 * r)
    motif(p, 0.5, 0.52 * h + r * 0.15, 0.36 * r)
    p.text(0.5, 0.52 * h + r * 0.68, d.product, 1.05 * r, d.ink, max_height=0.16 * r, bold=0.01)


def _bands(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h = p.height
    for i, share in enumerate((0.0, 0.25, 0.5, 0.75)):
        p.rect(0, (0.02 + i * 0.045) * h, 1, (0.047 + i * 0.045) * h, mix(d.accent, d.paper, share))
        p.rect(0, (0.953 - i * 0.045) * h, 1, (0.98 - i * 0.045) * h, mix(d.accent, d.paper, share))
    p.text(0.5, 0.34 * h, d.brand, 0.94 * f, d.ink, max_height=0.17 * h, bold=0.06)
    motif(p, 0.5, 0.57 * h, min(0.3 * f, 0.12 * h))
    p.text(0.5, 0.75 * h, d.product, 0.85 * f, d.accent, max_height=0.065 * h)


def _framed(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h, left = p.height, 0.5 - f / 2
    for inset, colour in ((0.02, d.accent), (0.035, d.paper), (0.05, d.accent), (0.056, d.paper)):
        p.rect(left + inset, 0.02 * h + inset, 1 - left - inset, 0.98 * h - inset, colour, 0.03)
    p.text(0.5, 0.22 * h, d.brand, 0.76 * f, d.ink, max_height=0.13 * h, bold=0.01)
    for side in (-1, 1):
        p.rect(0.5 + side * 0.12 * f - 0.1 * f, 0.325 * h, 0.5 + side * 0.12 * f + 0.1 * f, 0.33 * h, d.accent)
    p.star(0.5, 0.327 * h, 0.03 * f, 4, 0.4, d.accent)
    motif(p, 0.5, 0.56 * h, min(0.28 * f, 0.17 * h))
    p.text(0.5, 0.79 * h, d.product, 0.7 * f, d.ink, max_height=0.055 * h, bold=0.0)
    p.text(0.5, 0.88 * h, d.note, 0.5 * f, d.accent, max_height=0.035 * h, bold=0.0)


def _lying(p: Panel, d: Design, motif: Motif, f: float) -> None:
    h, left = p.height, 0.5 - f / 2
    p.polygon([(0, 0), (left + 0.36 * f, 0), (left + 0.26 * f, h), (0, h)], d.accent)
    p.polygon([(left + 0.38 * f, 0), (left + 0.4 * f, 0), (left + 0.3 * f, h), (left + 0.28 * f, h)], d.accent)
    motif(p, left + 0.15 * f, 0.5 * h, min(0.13 * f, 0.38 * h))
    p.text(left + 0.67 * f, 0.38 * h, d.brand, 0.52 * f, d.ink, max_height=0.42 * h, bold=0.05)
    p.text(left + 0.67 * f, 0.76 * h, d.product, 0.42 * f, d.ink, max_height=0.16 * h)
    p.rect(0, 0.93 * h, 1, h, d.accent)


def layouts() -> Mapping[str, Layout]:
    """All layouts by name."""
    return MappingProxyType(
        {
            "medallion": _medallion,
            "banner": _banner,
            "sunburst": _sunburst,
            "diagonal": _diagonal,
            "upright": _upright,
            "stripes": _stripes,
            "wave": _wave,
            "minimal": _minimal,
            "dots": _dots,
            "gingham": _gingham,
            "bands": _bands,
            "framed": _framed,
            "lying": _lying,
        }
    )
