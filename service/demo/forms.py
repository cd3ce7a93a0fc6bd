"""The bodies that packs have: cans, bottles, jars, cups, cartons, bags and tubes, dressed in a design."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

from service.demo.designs import Design, back, front, plain
from service.demo.panel import Panel, Picture, mix
from service.demo.solids import Bag, Carton, Skin, bag, box, revolve
from service.drawing import Colour

_ART_PX_PER_CM = 28.0
_METAL: Colour = (202, 206, 212)

Body = Callable[[float, float, float], Picture]
"""Draws the pack at a scale (pixels a centimetre), turned by yaw and pitch (degrees): RGBA ``uint8 (H, W, 4)``."""
Form = Callable[[Design], Body]


@dataclass(frozen=True)
class _Stretch:
    """A stretch of a body of revolution between two depths (centimetres below the top) that carries no label."""

    start: float
    stop: float
    top: Colour
    bottom: Colour
    gloss: float


def _round(
    profile: list[tuple[float, float]],
    label: tuple[float, float],
    stretches: Callable[[Design], list[_Stretch]],
    *,
    lid: Callable[[Design], Colour],
    gloss: float = 0.35,
    field: float = 0.62,
) -> Form:
    """A body of revolution whose label covers the given depths; the front takes half of the way round."""

    def form(design: Design) -> Body:
        tall = profile[-1][0]
        around = 2 * math.pi * max(r for _, r in profile)
        width, height = round(around * _ART_PX_PER_CM), round(tall * _ART_PX_PER_CM)
        art = np.zeros((height, width, 3), dtype=np.uint8)
        shine = np.full(height, gloss, dtype=np.float32)
        first, last = round(label[0] * _ART_PX_PER_CM), round(label[1] * _ART_PX_PER_CM)
        face = front(design, width // 2, last - first, field).pixels()
        rear = back(design, width - width // 2, last - first).pixels()
        wrap = np.concatenate([face, rear], axis=1)
        art[first:last] = np.roll(wrap, width // 4, axis=1)
        for part in stretches(design):
            a, b = round(part.start * _ART_PX_PER_CM), min(height, round(part.stop * _ART_PX_PER_CM) + 1)
            ramp = np.linspace(0, 1, max(b - a, 1), dtype=np.float32)[:, None]
            colours = np.array(part.top) * (1 - ramp) + np.array(part.bottom) * ramp
            art[a:b] = colours[:, None, :].astype(np.uint8)
            shine[a:b] = part.gloss
        skin = Skin(art, shine, lid(design))

        def body(scale: float, yaw_deg: float, pitch_deg: float) -> Picture:
            return revolve(profile, skin, scale=scale, yaw_deg=yaw_deg, pitch_deg=pitch_deg)

        return body

    return form


def _bulb(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Round a profile's corners with a cardinal spline through its points."""
    knots = np.array([points[0], *points, points[-1]], dtype=np.float64)
    curve: list[tuple[float, float]] = []
    for i in range(1, len(knots) - 2):
        a, b, c, d = knots[i - 1 : i + 3]
        for t in np.linspace(0, 1, 8, endpoint=False):
            ease = 3 * t**2 - 2 * t**3
            tangent_b, tangent_c = (c - a) * 0.25, (d - b) * 0.25
            point = b * (1 - ease) + c * ease + tangent_b * (t**3 - 2 * t**2 + t) + tangent_c * (t**3 - t**2)
            curve.append((float(point[0]), float(max(point[1], 0.01))))
    return [*curve, points[-1]]


def _ribbed(start: float, stop: float, radius: float, pitch: float, depth: float) -> list[tuple[float, float]]:
    count = max(2, round((stop - start) / pitch))
    steps = np.linspace(start, stop, count * 8)
    return [(float(s), radius - depth * (0.5 - 0.5 * math.cos(2 * math.pi * (s - start) / pitch))) for s in steps]


def _metal_ends(tall: float, rim: float) -> Callable[[Design], list[_Stretch]]:
    def stretches(_: Design) -> list[_Stretch]:
        return [
            _Stretch(0, rim, (236, 238, 242), _METAL, 0.9),
            _Stretch(tall - rim, tall, _METAL, (150, 154, 162), 0.9),
        ]

    return stretches


def _metal(_: Design) -> Colour:
    return _METAL


def _accent(design: Design) -> Colour:
    return design.accent


def _white(_: Design) -> Colour:
    return (246, 246, 242)


def _filled(
    cap: tuple[float, Colour | None], neck: float, label: tuple[float, float], tall: float, inside: Colour | None
) -> Callable[[Design], list[_Stretch]]:
    """Cap, bare shoulder, label, bare foot; ``None`` colours come from the design."""

    def stretches(design: Design) -> list[_Stretch]:
        lid = cap[1] or design.accent
        fill = inside or design.paper
        return [
            _Stretch(0, cap[0], mix(lid, (255, 255, 255), 0.15), lid, 0.45),
            _Stretch(cap[0], neck, mix(fill, (255, 255, 255), 0.35), fill, 0.8),
            _Stretch(neck, label[0], fill, fill, 0.8),
            _Stretch(label[1], tall, fill, mix(fill, (0, 0, 0), 0.3), 0.8),
        ]

    return stretches


def _carton(
    width: float, height: float, depth: float, *, gable: float = 0.0, gloss: float = 0.12, field: float = 0.9
) -> Form:
    def form(design: Design) -> Body:
        s = _ART_PX_PER_CM
        wide, tall, deep = round(width * s), round(height * s), round(depth * s)
        top = Panel(wide, deep, mix(design.paper, design.accent, 0.3)) if gable else plain(design, wide, deep)
        carton = Carton(
            width,
            height,
            depth,
            front(design, wide, tall, field).pixels(),
            back(design, deep, tall).pixels(),
            top.pixels(),
            gable,
            gloss,
        )

        def body(scale: float, yaw_deg: float, pitch_deg: float) -> Picture:
            return box(carton, scale=scale, yaw_deg=yaw_deg, pitch_deg=pitch_deg)

        return body

    return form


def _soft(
    width: float,
    height: float,
    bulge_cm: float,
    *,
    seams: tuple[float, float],
    gloss: float,
    crimp: bool = True,
    crease: float = 1.0,
    waist: float = 0.03,
) -> Form:
    """A filled bag: ``seams`` are the heights of the flat seals at the top and at the bottom."""

    def form(design: Design) -> Body:
        s = _ART_PX_PER_CM
        columns, rows = round(width * s), round(height * s)
        first, last = round(seams[0] * s), rows - round(seams[1] * s)
        printed = front(design, columns, last - first, 0.82).pixels()
        art = cv2.copyMakeBorder(printed, first, rows - last, 0, 0, cv2.BORDER_REPLICATE)
        v, u = np.mgrid[0:rows, 0:columns].astype(np.float32)
        v, u = v / (rows - 1), u / (columns - 1) * 2 - 1
        upper, lower = seams[0] / height, 1 - seams[1] / height
        along = np.clip((v - upper) / (lower - upper), 0, 1)
        swell = np.sqrt(np.clip(np.sin(np.pi * along), 0, 1))
        relief = bulge_cm * swell * np.clip(1 - np.abs(u) ** 2.4, 0, 1) ** 0.7
        rng = np.random.default_rng(design.seed)
        relief += crease * _wrinkles(rng, rows, columns, along) * (0.35 + 0.65 * (1 - swell))
        if crimp:
            sealed = (v < upper) | (v > lower)
            relief += np.where(sealed, 0.02 * np.sin(v * height * 2 * np.pi / 0.16), 0).astype(np.float32)
        edge = 1 - waist * swell + (0.004 * np.sin(v * height * 2 * np.pi / 0.5) if crimp else 0)
        outline = cv2.GaussianBlur(np.where(np.abs(u) <= edge, 255, 0).astype(np.uint8), (5, 5), 0)
        soft = Bag(width, art, outline, relief.astype(np.float32), gloss)

        def body(scale: float, yaw_deg: float, pitch_deg: float) -> Picture:
            return bag(soft, scale=scale, yaw_deg=yaw_deg, pitch_deg=pitch_deg)

        return body

    return form


def _wrinkles(rng: np.random.Generator, rows: int, columns: int, along: Picture) -> Picture:
    """Folds that run from the seals into the bag, float32 (rows, columns) in centimetres."""
    grain = rng.standard_normal((7, 24)).astype(np.float32)
    upright = cv2.resize(grain, (columns, rows), interpolation=cv2.INTER_CUBIC)
    soft = cv2.resize(rng.standard_normal((6, 5)).astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray((0.045 * upright + 0.09 * soft) * np.minimum(1.0, 6 * along * (1 - along) + 0.15))


def _tube(width: float, height: float) -> Form:
    """A squeeze tube standing on its cap: flat and wide at the seal, round at the shoulder."""

    def form(design: Design) -> Body:
        s = _ART_PX_PER_CM
        columns, rows = round(width * s), round(height * s)
        cap = round(0.15 * rows)
        sheet = np.zeros((rows, columns, 3), dtype=np.uint8)
        sheet[: rows - cap] = front(design, columns, rows - cap, 0.76).pixels()
        sheet[rows - cap :] = design.accent
        seal = round(0.06 * rows)
        sheet[:seal] = mix(design.paper, (0, 0, 0), 0.08)
        v, u = np.mgrid[0:rows, 0:columns].astype(np.float32)
        v, u = v / (rows - 1), u / (columns - 1) * 2 - 1
        half = np.where(v < 0.85, 1 - 0.2 * np.clip(v / 0.82, 0, 1), 0.62).astype(np.float32)
        shoulder = (v > 0.82) & (v < 0.85)
        half = np.where(shoulder, 0.8 - 0.18 * (v - 0.82) / 0.03, half).astype(np.float32)
        inner = np.clip(np.abs(u) / half, 0, 1)
        depth = np.clip(v / 0.7, 0.02, 1) ** 0.7 * width / 2 * 0.75
        depth = np.where(v > 0.85, width / 2 * 0.6, depth)
        relief = depth * np.sqrt(np.clip(1 - inner**2, 0, 1)) * half
        relief += np.where(v < 0.06, 0.02 * np.sin(v * height * 2 * np.pi / 0.2), 0)
        ridges = np.where(v > 0.86, 0.03 * np.sin(np.arcsin(np.clip(u / half, -1, 1)) * 36), 0)
        outline = np.where(np.abs(u) <= half, 255, 0).astype(np.uint8)
        soft = Bag(width, sheet, cv2.GaussianBlur(outline, (5, 5), 0), (relief + ridges).astype(np.float32), 0.4)

        def body(scale: float, yaw_deg: float, pitch_deg: float) -> Picture:
            return bag(soft, scale=scale, yaw_deg=yaw_deg, pitch_deg=pitch_deg)

        return body

    return form


def forms() -> Mapping[str, Form]:
    """All forms by name."""
    glass_green, clear_blue = (44, 66, 30), (176, 216, 236)
    return MappingProxyType(
        {
            "can": _round(
                [(0, 2.6), (0.25, 2.7), (0.3, 2.55), (1.2, 3.25), (11.2, 3.25), (12, 2.6), (12.2, 2.5)],
                (0.9, 11.6),
                _metal_ends(12.2, 0.9),
                lid=_metal,
                gloss=0.6,
            ),
            "slim can": _round(
                [(0, 2.3), (0.25, 2.4), (0.3, 2.2), (1.0, 2.65), (13.4, 2.65), (14.2, 2.2), (14.4, 2.1)],
                (0.8, 13.8),
                _metal_ends(14.4, 0.8),
                lid=_metal,
                gloss=0.65,
            ),
            "food can": _round(
                [
                    (0, 3.75),
                    (0.3, 3.8),
                    (0.35, 3.65),
                    *_ribbed(0.5, 1.9, 3.68, 0.45, 0.06),
                    (10.0, 3.68),
                    (10.4, 3.65),
                    (10.5, 3.8),
                    (10.8, 3.75),
                ],
                (0.45, 10.35),
                _metal_ends(10.8, 0.45),
                lid=_metal,
                gloss=0.3,
            ),
            "flat can": _round(
                [(0, 4.2), (0.25, 4.25), (0.3, 4.1), (3.2, 4.1), (3.3, 4.25), (3.5, 4.2)],
                (0.3, 3.25),
                _metal_ends(3.5, 0.3),
                lid=_metal,
                gloss=0.4,
            ),
            "jar": _round(
                [(0, 3.3), (0.1, 3.4), (1.5, 3.4), (1.6, 3.2), (2.0, 3.25), (2.8, 3.9), (9.4, 3.9), (10, 3.4)],
                (3.4, 8.8),
                _filled((1.5, None), 2.0, (3.4, 8.8), 10, None),
                lid=_accent,
                gloss=0.25,
            ),
            "tall jar": _round(
                [(0, 2.9), (0.1, 3.0), (1.3, 3.0), (1.4, 2.8), (1.8, 2.9), (2.8, 3.5), (13.2, 3.5), (14, 3.0)],
                (4.0, 11.4),
                _filled((1.3, (214, 176, 60)), 1.8, (4.0, 11.4), 14, (96, 118, 44)),
                lid=lambda _: (214, 176, 60),
                gloss=0.25,
            ),
            "water bottle": _round(
                [
                    (0, 1.3),
                    (0.1, 1.4),
                    (1.6, 1.4),
                    (1.7, 1.6),
                    (1.9, 1.6),
                    (2.0, 1.3),
                    (2.6, 1.3),
                    *_bulb([(2.8, 1.4), (4.2, 2.4), (6.0, 3.1), (7.4, 3.2)]),
                    (14.4, 3.2),
                    *_ribbed(14.5, 20.5, 3.2, 1.5, 0.22),
                    (21, 3.1),
                    (21.4, 2.6),
                ],
                (7.4, 14.2),
                _filled((1.7, None), 2.6, (7.4, 14.2), 21.4, clear_blue),
                lid=_accent,
                gloss=0.3,
            ),
            "glass bottle": _round(
                [
                    (0, 1.2),
                    (0.1, 1.3),
                    (2.8, 1.3),
                    (2.9, 1.45),
                    (3.2, 1.45),
                    (3.3, 1.3),
                    (7, 1.35),
                    *_bulb([(7.2, 1.4), (9.4, 2.5), (11.4, 3.3), (12.4, 3.3)]),
                    (25.4, 3.3),
                    (26, 2.9),
                ],
                (13.4, 23.6),
                _filled((2.8, (176, 148, 70)), 7.0, (13.4, 23.6), 26, glass_green),
                lid=lambda _: (190, 160, 80),
                gloss=0.15,
            ),
            "squeeze bottle": _round(
                [
                    (0, 0.5),
                    (1.5, 0.8),
                    (1.6, 1.9),
                    (2.8, 2.0),
                    (2.9, 1.7),
                    *_bulb([(3.0, 1.8), (4.6, 3.0), (7.0, 3.4), (11.0, 3.1), (15.0, 3.3)]),
                    (17.6, 3.4),
                    (18.4, 3.0),
                ],
                (5.6, 16.6),
                _filled((2.8, (248, 248, 244)), 3.2, (5.6, 16.6), 18.4, None),
                lid=_white,
                gloss=0.5,
            ),
            "sauce bottle": _round(
                [
                    (0, 1.0),
                    (0.1, 1.1),
                    (1.5, 1.1),
                    (1.6, 0.95),
                    (4.4, 0.95),
                    *_bulb([(4.6, 1.0), (5.8, 1.9), (6.8, 2.2)]),
                    (14.2, 2.2),
                    (14.8, 1.9),
                ],
                (7.4, 13.6),
                _filled((1.6, None), 4.4, (7.4, 13.6), 14.8, (150, 28, 18)),
                lid=_accent,
                gloss=0.25,
            ),
            "shampoo bottle": _round(
                [
                    (0, 1.7),
                    (0.1, 1.8),
                    (2.6, 1.9),
                    (2.7, 1.6),
                    *_bulb([(2.8, 1.7), (3.6, 2.7), (5.0, 3.1)]),
                    (17.6, 3.1),
                    (18.2, 2.8),
                ],
                (4.4, 17.2),
                _filled((2.7, None), 3.0, (4.4, 17.2), 18.2, None),
                lid=_accent,
                gloss=0.55,
            ),
            "cup": _round(
                [(0, 3.6), (0.15, 3.7), (0.3, 3.6), (0.4, 3.3), (7.6, 2.5), (8, 2.4)],
                (0.35, 7.7),
                lambda d: [
                    _Stretch(0, 0.35, (238, 238, 240), (214, 216, 222), 0.7),
                    _Stretch(7.7, 8, d.paper, d.paper, 0.2),
                ],
                lid=lambda _: (224, 226, 232),
                gloss=0.25,
            ),
            "tub": _round(
                [(0, 4.7), (0.1, 4.8), (1.2, 4.8), (1.3, 4.5), (8.2, 3.9), (8.6, 3.8)],
                (1.3, 8.5),
                lambda d: [_Stretch(0, 1.3, mix(d.accent, (255, 255, 255), 0.2), d.accent, 0.3)],
                lid=_accent,
                gloss=0.2,
            ),
            "cereal box": _carton(19, 28, 6),
            "pasta box": _carton(10, 21, 5),
            "tea box": _carton(13, 8, 7),
            "powder box": _carton(16, 22, 9),
            "juice brick": _carton(7, 17, 5, gloss=0.25),
            "milk carton": _carton(7.4, 17, 7.2, gable=3.4, gloss=0.2),
            "toothpaste box": _carton(18, 5, 4, gloss=0.3),
            "crisp bag": _soft(18, 25, 2.6, seams=(1.1, 1.1), gloss=0.42),
            "sweet bag": _soft(13, 19, 1.9, seams=(1.3, 0.9), gloss=0.34),
            "coffee bag": _soft(11, 23, 2.4, seams=(2.0, 0.5), gloss=0.2, crease=0.8, waist=0.0),
            "rice sack": _soft(14, 22, 2.4, seams=(0.9, 0.9), gloss=0.16, waist=0.02),
            "pouch": _soft(9.5, 13, 1.4, seams=(1.2, 0.3), gloss=0.36, crimp=False, waist=0.0),
            "bar": _soft(17, 7.5, 0.7, seams=(0.1, 0.1), gloss=0.38, crease=0.5, waist=0.0),
            "tube": _tube(6, 16),
        }
    )
