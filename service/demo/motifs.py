"""The pictures on the packs: what is inside, drawn with a few shapes each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from service.demo.panel import Panel, mix
from service.drawing import Colour

Motif = Callable[[Panel, float, float, float], None]
"""Draws itself on a panel around (x, y) within a circle of the given radius (panel widths)."""

_WHITE: Colour = (255, 255, 255)
_LEAF: Colour = (58, 140, 60)


def _arc(start_deg: float, stop_deg: float) -> list[float]:
    return [math.radians(start_deg + (stop_deg - start_deg) * i / 8) for i in range(9)]


def _citrus(rind: Colour, flesh: Colour) -> Motif:
    def draw(p: Panel, x: float, y: float, r: float) -> None:
        p.disc(x, y, r, rind)
        p.disc(x, y, r * 0.9, (255, 246, 222))
        for i in range(9):
            wedge = [(x + r * 0.84 * math.cos(t), y + r * 0.84 * math.sin(t)) for t in _arc(40 * i + 3, 40 * i + 37)]
            p.polygon([(x, y), *wedge], flesh)
        p.petal(x + r * 0.5, y - r * 0.8, r * 0.75, r * 0.4, -30, _LEAF)

    return draw


def _bolt(p: Panel, x: float, y: float, r: float) -> None:
    shape = [(0.15, -1.0), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1.0), (0.6, -0.25), (0.05, -0.25), (0.45, -1.0)]
    p.polygon([(x + a * r * 1.12 + r * 0.05, y + b * r * 1.05) for a, b in shape], (20, 20, 24))
    p.polygon([(x + a * r, y + b * r) for a, b in shape], (214, 255, 40))


def _mountain(p: Panel, x: float, y: float, r: float) -> None:
    p.disc(x + r * 0.5, y - r * 0.55, r * 0.28, (255, 226, 120))
    p.polygon([(x - r, y + r * 0.7), (x + r * 0.35, y - r * 0.35), (x + r, y + r * 0.7)], (84, 134, 178))
    p.polygon([(x - r, y + r * 0.7), (x - r * 0.25, y - r * 0.75), (x + r * 0.5, y + r * 0.7)], (36, 84, 140))
    peak = [(-0.25, -0.75), (-0.49, -0.28), (-0.36, -0.36), (-0.25, -0.2), (-0.12, -0.36), (0.0, -0.28)]
    p.polygon([(x + a * r, y + b * r) for a, b in peak], _WHITE)


def _drop(colour: Colour) -> Motif:
    def draw(p: Panel, x: float, y: float, r: float) -> None:
        edge = []
        for i in range(49):
            t = 2 * math.pi * i / 48
            edge.append((x + r * 0.72 * math.sin(t) * math.sin(t / 2) ** 1.5, y - r * math.cos(t)))
        p.polygon(edge, colour)
        p.ellipse(x - r * 0.25, y + r * 0.35, r * 0.1, r * 0.25, mix(colour, _WHITE, 0.7), 20)

    return draw


def _splash(p: Panel, x: float, y: float, r: float) -> None:
    glass = [(-0.5, -0.5), (0.5, -0.5), (0.38, 1.0), (-0.38, 1.0)]
    p.polygon([(x + a * r * 1.1, y + b * r) for a, b in glass], (206, 226, 240))
    p.polygon([(x + a * r * 0.95, y + b * r * 0.93 + r * 0.02) for a, b in glass], _WHITE)
    for dx, dy, s in (
        (-0.3, -0.62, 0.22),
        (0.0, -0.78, 0.3),
        (0.3, -0.64, 0.2),
        (0.62, -0.85, 0.12),
        (-0.62, -0.9, 0.1),
    ):
        p.disc(x + dx * r, y + dy * r, s * r, _WHITE)


def _berries(colour: Colour) -> Motif:
    def draw(p: Panel, x: float, y: float, r: float) -> None:
        for angle in (-150, -95, -40):
            p.petal(x, y - r * 0.25, r * 0.85, r * 0.4, angle, _LEAF)
        for dx, dy in ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.1), (-0.28, 0.5), (0.28, 0.5)):
            p.disc(x + dx * r, y + dy * r, r * 0.38, mix(colour, (0, 0, 0), 0.35))
            p.disc(x + dx * r, y + dy * r, r * 0.34, colour)
            p.disc(x + dx * r - r * 0.1, y + dy * r - r * 0.12, r * 0.08, mix(colour, _WHITE, 0.75))

    return draw


def _wheat(p: Panel, x: float, y: float, r: float) -> None:
    for lean in (-0.45, 0.0, 0.45):
        stem = [(x + lean * r * t * 1.2, y + r - 1.7 * r * t) for t in (0.0, 0.5, 1.0)]
        p.line(stem, r * 0.05, (176, 118, 30))
        for i in range(5):
            t = 0.45 + 0.13 * i
            sx, sy = x + lean * r * t * 1.2, y + r - 1.7 * r * t
            for side in (-1, 1):
                p.petal(sx, sy, r * 0.36, r * 0.17, -90 + side * 38 + lean * 40, (232, 170, 52))


def _bowl(p: Panel, x: float, y: float, r: float) -> None:
    for i in range(26):
        t = i * 2.399963
        d = math.sqrt(i / 26) * 0.8
        p.disc(x + d * r * math.cos(t), y - r * 0.12 + d * r * 0.4 * math.sin(t), r * 0.15, (204, 128, 38))
        p.disc(x + d * r * math.cos(t) - r * 0.02, y - r * 0.16 + d * r * 0.4 * math.sin(t), r * 0.12, (244, 184, 78))
    half = [(x + r * math.cos(math.pi * i / 24), y + r * 0.9 * math.sin(math.pi * i / 24)) for i in range(25)]
    p.polygon(half, (40, 92, 178))
    p.rect(x - r, y - r * 0.04, x + r, y + r * 0.1, (86, 142, 222))


def _chips(p: Panel, x: float, y: float, r: float) -> None:
    for dx, dy, angle in ((-0.45, 0.25, -25), (0.4, 0.3, 30), (-0.1, -0.35, 8), (0.05, 0.55, -5)):
        cx, cy = x + dx * r, y + dy * r
        p.ellipse(cx, cy, r * 0.58, r * 0.38, (206, 138, 30), angle)
        p.ellipse(cx - r * 0.02, cy - r * 0.03, r * 0.52, r * 0.32, (250, 206, 84), angle)
        p.ellipse(cx + r * 0.1, cy + r * 0.05, r * 0.2, r * 0.08, (236, 176, 58), angle)


def _tomato(p: Panel, x: float, y: float, r: float) -> None:
    p.ellipse(x, y + r * 0.1, r * 0.95, r * 0.82, (150, 16, 20))
    p.ellipse(x, y + r * 0.06, r * 0.9, r * 0.78, (222, 40, 34))
    p.ellipse(x - r * 0.4, y - r * 0.22, r * 0.2, r * 0.11, (255, 150, 130), -35)
    for i in range(5):
        p.petal(x, y - r * 0.6, r * 0.5, r * 0.2, 18 + 36 * i * 1.0, _LEAF)
    p.line([(x, y - r * 0.6), (x + r * 0.12, y - r * 0.98)], r * 0.1, _LEAF)


def _fish(p: Panel, x: float, y: float, r: float) -> None:
    p.polygon([(x + r * 0.45, y), (x + r, y - r * 0.45), (x + r * 0.86, y), (x + r, y + r * 0.45)], (46, 96, 150))
    p.petal(x - r, y, r * 1.75, r * 0.85, 0, (66, 128, 190))
    p.petal(x - r * 0.95, y + r * 0.1, r * 1.5, r * 0.4, 0, (196, 222, 238))
    p.petal(x - r * 0.1, y - r * 0.25, r * 0.5, r * 0.3, -60, (46, 96, 150))
    p.disc(x - r * 0.66, y - r * 0.07, r * 0.09, _WHITE)
    p.disc(x - r * 0.66, y - r * 0.07, r * 0.05, (16, 16, 20))


def _strawberry(p: Panel, x: float, y: float, r: float) -> None:
    edge = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        edge.append((x + r * 0.82 * math.sin(t) * (0.78 + 0.22 * math.cos(t)), y + r * (0.08 - 0.9 * math.cos(t))))
    p.polygon(edge, (214, 26, 48))
    for row in range(4):
        for col in range(-2, 3):
            dx, dy = (col + 0.5 * (row % 2)) * 0.26, -0.35 + row * 0.28
            if abs(dx) < 0.66 - 0.15 * row:
                p.ellipse(x + dx * r, y + dy * r, r * 0.035, r * 0.06, (255, 226, 130))
    for i in range(5):
        p.petal(x, y - r * 0.72, r * 0.55, r * 0.22, 10 + 40 * i, _LEAF)


def _honeycomb(p: Panel, x: float, y: float, r: float) -> None:
    for dx, dy in ((0, 0), (0.87, 0.5), (0.87, -0.5), (0, 1), (0, -1), (-0.87, 0.5), (-0.87, -0.5)):
        for s, c in ((0.32, (176, 104, 8)), (0.27, (255, 190, 46))):
            cx, cy = x + dx * r * 0.6, y + dy * r * 0.6
            hexagon = [
                (cx + r * s * math.cos(math.pi * i / 3), cy + r * s * math.sin(math.pi * i / 3)) for i in range(6)
            ]
            p.polygon(hexagon, c)
    p.ellipse(x, y, r * 0.26, r * 0.18, (30, 24, 18))
    for dx in (-0.12, 0.06):
        p.rect(x + dx * r, y - r * 0.15, x + (dx + 0.08) * r, y + r * 0.15, (255, 214, 60))
    p.petal(x, y - r * 0.1, r * 0.36, r * 0.2, -60, (238, 246, 255))
    p.petal(x - r * 0.04, y - r * 0.1, r * 0.36, r * 0.2, -120, (238, 246, 255))


def _gherkins(p: Panel, x: float, y: float, r: float) -> None:
    for dx, angle in ((-0.42, 80), (0.1, 95), (0.55, 102)):
        p.ellipse(x + dx * r, y + r * 0.05, r * 0.85, r * 0.25, (44, 92, 28), angle)
        p.ellipse(x + dx * r - r * 0.03, y + r * 0.05, r * 0.78, r * 0.19, (108, 156, 52), angle)
        for i in range(5):
            p.disc(x + dx * r + r * (0.05 if i % 2 else -0.08), y - r * 0.5 + i * r * 0.26, r * 0.035, (176, 206, 104))


def _olives(p: Panel, x: float, y: float, r: float) -> None:
    p.line(
        [(x - r * 0.8, y - r * 0.7), (x - r * 0.1, y - r * 0.25), (x + r * 0.9, y - r * 0.55)], r * 0.06, (110, 86, 40)
    )
    for i, angle in enumerate((-120, 60, -75, -100, -30)):
        p.petal(x - r * 0.7 + i * r * 0.38, y - r * 0.5 + (i % 3) * r * 0.08, r * 0.6, r * 0.2, angle, (126, 148, 76))
    for dx, dy in ((-0.3, 0.25), (0.35, 0.3)):
        p.ellipse(x + dx * r, y + dy * r, r * 0.3, r * 0.42, (62, 74, 22), 12)
        p.ellipse(x + dx * r - r * 0.05, y + dy * r - r * 0.04, r * 0.23, r * 0.34, (132, 144, 44), 12)
        p.ellipse(x + dx * r - r * 0.12, y + dy * r - r * 0.16, r * 0.05, r * 0.1, (222, 228, 160), 12)


def _leaves(colour: Colour) -> Motif:
    def draw(p: Panel, x: float, y: float, r: float) -> None:
        dark = mix(colour, (0, 0, 0), 0.35)
        for angle, length in ((-140, 0.95), (-40, 0.95), (-90, 1.35)):
            p.petal(x, y + r * 0.55, r * length, r * 0.62, angle, dark)
            p.petal(x, y + r * 0.52, r * length * 0.93, r * 0.5, angle, colour)
            turn = math.radians(angle)
            tip = (x + r * length * 0.8 * math.cos(turn), y + r * 0.52 + r * length * 0.8 * math.sin(turn))
            p.line([(x, y + r * 0.52), tip], r * 0.04, dark)
        p.line([(x, y + r * 0.5), (x + r * 0.05, y + r)], r * 0.07, dark)

    return draw


def _flower(petals: Colour, heart: Colour) -> Motif:
    def draw(p: Panel, x: float, y: float, r: float) -> None:
        for i in range(8):
            p.petal(x, y, r, r * 0.52, 45 * i + 22, mix(petals, (40, 0, 60), 0.25))
        for i in range(8):
            p.petal(x, y, r * 0.88, r * 0.42, 45 * i, petals)
        p.disc(x, y, r * 0.26, heart)

    return draw


def _bubbles(colour: Colour) -> Motif:
    def draw(p: Panel, x: float, y: float, r: float) -> None:
        for dx, dy, s in (
            (-0.3, 0.3, 0.55),
            (0.45, 0.1, 0.4),
            (0.05, -0.5, 0.33),
            (-0.6, -0.4, 0.2),
            (0.6, -0.6, 0.16),
        ):
            p.disc(x + dx * r, y + dy * r, s * r, colour)
            p.ring(x + dx * r, y + dy * r, s * r, r * 0.05, _WHITE)
            p.ellipse(x + (dx - s * 0.4) * r, y + (dy - s * 0.4) * r, s * r * 0.24, s * r * 0.13, _WHITE, -40)

    return draw


def _beans(p: Panel, x: float, y: float, r: float) -> None:
    for dx, dy, angle in ((-0.38, 0.1, -35), (0.4, -0.1, 30), (0.1, 0.6, 80)):
        cx, cy, turn = x + dx * r, y + dy * r, math.radians(angle)
        p.ellipse(cx, cy, r * 0.52, r * 0.36, (40, 20, 10), angle)
        p.ellipse(cx, cy, r * 0.47, r * 0.31, (112, 64, 34), angle)
        crease = []
        for i in range(13):
            a, b = -0.46 + 0.92 * i / 12, 0.07 * math.sin(math.pi * 2 * i / 12)
            crease.append(
                (cx + r * (a * math.cos(turn) - b * math.sin(turn)), cy + r * (a * math.sin(turn) + b * math.cos(turn)))
            )
        p.line(crease, r * 0.06, (40, 20, 10))


def _chocolate(p: Panel, x: float, y: float, r: float) -> None:
    for row in range(2):
        for col in range(3):
            x0, y0 = x - r + col * r * 0.67, y - r * 0.6 + row * r * 0.62
            p.rect(x0, y0, x0 + r * 0.63, y0 + r * 0.58, (56, 28, 16), r * 0.05)
            p.rect(x0 + r * 0.03, y0 + r * 0.03, x0 + r * 0.57, y0 + r * 0.5, (128, 76, 44), r * 0.05)
            p.rect(x0 + r * 0.12, y0 + r * 0.12, x0 + r * 0.5, y0 + r * 0.44, (98, 54, 30), r * 0.04)


def _farfalle(p: Panel, x: float, y: float, r: float) -> None:
    bow = [
        (-1, -0.6),
        (-0.12, -0.16),
        (0.12, -0.16),
        (1, -0.6),
        (0.9, 0),
        (1, 0.6),
        (0.12, 0.16),
        (-0.12, 0.16),
        (-1, 0.6),
    ]
    for dx, dy, s, lean in ((-0.35, -0.45, 0.55, 0.35), (0.4, -0.05, 0.55, -0.5), (-0.2, 0.5, 0.6, 0.1)):
        for grow, c in ((1.08, (190, 134, 34)), (0.96, (250, 212, 110))):
            shape = []
            for a, b in [*bow, (-0.9, 0)]:
                u, v = a * s * grow, b * s * grow
                shape.append(
                    (
                        x + r * (dx + u * math.cos(lean) - v * math.sin(lean)),
                        y + r * (dy + u * math.sin(lean) + v * math.cos(lean)),
                    )
                )
            p.polygon(shape, c)
        p.ellipse(x + dx * r, y + dy * r, r * s * 0.12, r * s * 0.2, (216, 160, 54), math.degrees(lean))


def _grains(p: Panel, x: float, y: float, r: float) -> None:
    for i in range(34):
        t, d = i * 2.399963, math.sqrt((i + 0.5) / 34)
        cx, cy = x + d * r * math.cos(t), y + d * r * 0.8 * math.sin(t)
        p.ellipse(cx, cy, r * 0.17, r * 0.065, (206, 190, 158), i * 47.0)
        p.ellipse(cx - r * 0.01, cy - r * 0.01, r * 0.145, r * 0.045, (255, 252, 240), i * 47.0)


def _scoop(p: Panel, x: float, y: float, r: float) -> None:
    p.polygon([(x - r * 0.5, y + r * 0.05), (x + r * 0.5, y + r * 0.05), (x, y + r)], (214, 150, 72))
    for i in range(-2, 3):
        p.line([(x + i * r * 0.2, y + r * 0.06), (x + i * r * 0.05, y + r * 0.85)], r * 0.025, (168, 104, 40))
    for dx, dy, c in ((-0.32, -0.1, (255, 182, 193)), (0.32, -0.1, (255, 244, 214)), (0.0, -0.52, (150, 98, 66))):
        p.disc(x + dx * r, y + dy * r, r * 0.4, mix(c, (0, 0, 0), 0.15))
        p.disc(x + dx * r - r * 0.02, y + dy * r - r * 0.03, r * 0.36, c)
    p.disc(x, y - r * 0.92, r * 0.12, (206, 20, 40))


def _burst(p: Panel, x: float, y: float, r: float) -> None:
    p.star(x, y, r, 14, 0.72, (255, 224, 40))
    p.star(x, y, r * 0.72, 12, 0.7, (255, 130, 20))
    p.star(x, y, r * 0.42, 10, 0.62, _WHITE)


def _sweets(p: Panel, x: float, y: float, r: float) -> None:
    places = ((-0.45, -0.35, (236, 40, 80)), (0.45, -0.3, (40, 170, 230)), (0.0, 0.4, (250, 190, 30)))
    for dx, dy, c in places:
        cx, cy = x + dx * r, y + dy * r
        for side in (-1, 1):
            fan = [
                (cx + side * r * 0.3, cy),
                (cx + side * r * 0.62, cy - r * 0.24),
                (cx + side * r * 0.62, cy + r * 0.24),
            ]
            p.polygon(fan, mix(c, _WHITE, 0.35))
        p.disc(cx, cy, r * 0.36, c)
        for i in range(3):
            p.petal(cx, cy, r * 0.34, r * 0.18, 120 * i + 20, _WHITE)


def _chilli(p: Panel, x: float, y: float, r: float) -> None:
    pod = []
    for i in range(25):
        t = i / 24
        pod.append((x - r * 0.5 + r * 1.2 * t**1.6, y - r * 0.7 + r * 1.6 * t))
    for i in range(25):
        t = 1 - i / 24
        pod.append((x + r * 0.1 * (1 - t) + r * 0.7 * t**0.8 - r * 0.0, y - r * 0.78 + r * 1.68 * t))
    p.polygon(pod, (220, 26, 22))
    p.line([(x - r * 0.28, y - r * 0.4), (x + r * 0.16, y + r * 0.25)], r * 0.06, (255, 140, 120))
    p.ellipse(x - r * 0.2, y - r * 0.74, r * 0.36, r * 0.13, _LEAF, -6)
    p.line([(x - r * 0.2, y - r * 0.76), (x - r * 0.45, y - r * 1.02)], r * 0.1, _LEAF)


def _snow(p: Panel, x: float, y: float, r: float) -> None:
    for i in range(6):
        turn = math.pi * i / 3
        dx, dy = math.sin(turn), -math.cos(turn)
        p.line([(x, y), (x + dx * r, y + dy * r)], r * 0.1, _WHITE)
        for side in (-0.6, 0.6):
            bx, by = math.sin(turn + side), -math.cos(turn + side)
            for at in (0.45, 0.7):
                start = (x + dx * r * at, y + dy * r * at)
                p.line([start, (start[0] + bx * r * 0.28, start[1] + by * r * 0.28)], r * 0.08, _WHITE)


def _cat(p: Panel, x: float, y: float, r: float) -> None:
    fur, dark = (240, 158, 70), (70, 40, 24)
    for side in (-1, 1):
        p.polygon(
            [(x + side * r * 0.85, y - r * 0.95), (x + side * r * 0.2, y - r * 0.6), (x + side * r * 0.82, y)], fur
        )
        p.polygon(
            [(x + side * r * 0.74, y - r * 0.7), (x + side * r * 0.4, y - r * 0.5), (x + side * r * 0.72, y - r * 0.2)],
            (250, 190, 180),
        )
    p.ellipse(x, y + r * 0.12, r * 0.9, r * 0.76, fur)
    p.ellipse(x, y + r * 0.42, r * 0.45, r * 0.34, (255, 240, 220))
    for side in (-1, 1):
        p.ellipse(x + side * r * 0.38, y, r * 0.16, r * 0.2, (196, 226, 90))
        p.ellipse(x + side * r * 0.38, y, r * 0.06, r * 0.17, (14, 14, 14))
        for lift in (-0.08, 0.06):
            p.line(
                [(x + side * r * 0.3, y + r * 0.42), (x + side * r * 1.0, y + r * (0.42 + lift * 2))], r * 0.025, dark
            )
    p.polygon([(x - r * 0.12, y + r * 0.26), (x + r * 0.12, y + r * 0.26), (x, y + r * 0.4)], (222, 96, 96))


def _tooth(p: Panel, x: float, y: float, r: float) -> None:
    for dx in (-0.32, 0.32):
        p.ellipse(x + dx * r, y - r * 0.3, r * 0.42, r * 0.5, _WHITE)
        p.petal(x + dx * r * 1.1, y - r * 0.3, r * 1.25, r * 0.62, 90 - dx * 30, _WHITE)
    p.star(x + r * 0.55, y - r * 0.55, r * 0.4, 4, 0.3, (120, 220, 255))


def motifs() -> Mapping[str, Motif]:
    """All motifs by name."""
    return MappingProxyType(
        {
            "orange": _citrus((240, 130, 20), (250, 160, 40)),
            "lemon": _citrus((236, 200, 20), (250, 224, 80)),
            "bolt": _bolt,
            "mountain": _mountain,
            "drop": _drop((40, 130, 214)),
            "splash": _splash,
            "blueberries": _berries((66, 70, 170)),
            "cherries": _berries((200, 24, 52)),
            "wheat": _wheat,
            "bowl": _bowl,
            "chips": _chips,
            "tomato": _tomato,
            "fish": _fish,
            "strawberry": _strawberry,
            "honeycomb": _honeycomb,
            "gherkins": _gherkins,
            "olives": _olives,
            "mint": _leaves((96, 190, 120)),
            "tea": _leaves((120, 160, 52)),
            "lavender": _flower((176, 140, 214), (250, 214, 90)),
            "daisy": _flower((255, 255, 255), (250, 200, 40)),
            "bubbles": _bubbles((120, 210, 236)),
            "beans": _beans,
            "chocolate": _chocolate,
            "farfalle": _farfalle,
            "grains": _grains,
            "scoop": _scoop,
            "burst": _burst,
            "sweets": _sweets,
            "chilli": _chilli,
            "snow": _snow,
            "cat": _cat,
            "tooth": _tooth,
        }
    )
