"""The sample gallery's pictures, and the held-out ones to search with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from service.demo.packs import Pack
from service.demo.panel import Picture
from service.demo.photo import Shot, backdrop, develop, stand

_SIDE_PX = 288


@dataclass(frozen=True)
class Photo:
    """A picture of one pack: RGB ``uint8 (H, W, 3)`` and the label of what it shows."""

    label: str
    picture: Picture


@dataclass(frozen=True)
class _View:
    yaw_deg: float
    pitch_deg: float
    fill: float
    backdrop: str
    shot: Shot


def gallery_photos(pack: Pack) -> list[Photo]:
    """Three studio pictures: from the front and from either side. The same at every run."""
    views = [
        _View(0.0, 7.0, 0.82, "studio", Shot(noise=1.5)),
        _View(-24.0, 10.0, 0.78, "studio", Shot(exposure=0.97, gradient=0.08, noise=1.5)),
        _View(22.0, 12.0, 0.8, "studio", Shot(exposure=1.03, gradient=-0.08, noise=1.5)),
    ]
    return [Photo(pack.label, _take(pack, view, number)) for number, view in enumerate(views)]


def held_out_photo(pack: Pack) -> Photo:
    """A picture that is not in the gallery: another angle, place, light and a less steady hand."""
    rng = np.random.default_rng(_seed(pack, "held out"))
    warm = float(rng.uniform(0.86, 1.1))
    view = _View(
        yaw_deg=float(rng.choice([-1, 1]) * rng.uniform(9, 17)),
        pitch_deg=float(rng.uniform(13, 20)),
        fill=float(rng.uniform(0.74, 0.88)),
        backdrop=str(rng.choice(["wood", "stone", "cloth"])),
        shot=Shot(
            exposure=float(rng.uniform(0.78, 1.1)),
            tint=(warm, 1.0, 1.96 - warm),
            gradient=float(rng.uniform(-0.22, 0.22)),
            skew=0.05,
            blur_px=float(rng.uniform(0.5, 1.1)),
            noise=4.0,
        ),
    )
    return Photo(pack.label, _take(pack, view, 100))


def _seed(pack: Pack, purpose: str) -> int:
    return zlib.crc32(f"{pack.label} {purpose}".encode())


def _take(pack: Pack, view: _View, number: int) -> Picture:
    rng = np.random.default_rng(_seed(pack, str(number)))
    probe = pack.draw(4.0, view.yaw_deg, view.pitch_deg)
    scale = 4.0 * view.fill * _SIDE_PX / max(probe.shape[:2])
    drawn = pack.draw(scale, view.yaw_deg, view.pitch_deg)
    scene = backdrop(view.backdrop, _SIDE_PX, _SIDE_PX, rng)
    foot = round(_SIDE_PX / 2 + drawn.shape[0] / 2 + 0.02 * _SIDE_PX)
    stand(scene, drawn, (_SIDE_PX - drawn.shape[1]) // 2, foot)
    return develop(scene, view.shot, rng)
