"""From flat artwork to a lit pack: bodies of revolution, cartons, and filled bags.

Every function returns RGBA ``uint8 (H, W, 4)`` cropped to the pack, alpha not premultiplied. Lengths are centimetres,
``scale`` pixels a centimetre; ``yaw_deg`` turns the pack to the right, ``pitch_deg`` raises the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from service.demo.light import Floats, shade
from service.demo.panel import Picture
from service.drawing import Colour

_OVERSAMPLE = 2


@dataclass(frozen=True)
class Skin:
    """The printed surface of a body of revolution, unrolled: row 0 at the top, the front in the middle column.

    ``art`` is RGB ``uint8 (H, W, 3)``; ``gloss`` is float32 (H,) in 0..1; ``lid`` is the colour of the top disc.
    """

    art: Picture
    gloss: Floats
    lid: Colour


def revolve(
    profile: list[tuple[float, float]], skin: Skin, *, scale: float, yaw_deg: float, pitch_deg: float
) -> Picture:
    """A can, bottle or jar: ``profile`` lists (depth below the top, radius) from top to bottom."""
    fine = scale * _OVERSAMPLE
    path = _resample(np.array(profile, dtype=np.float64), 0.5 / fine)
    depth, radius = path[:, 0], path[:, 1]
    slope = np.gradient(path, axis=0)
    tall, wide = float(depth[-1]), float(radius.max())
    sin_p, cos_p = math.sin(math.radians(pitch_deg)), math.cos(math.radians(pitch_deg))
    top = float(radius[0]) * sin_p
    rows = math.ceil((tall * cos_p + wide * sin_p + top) * fine) + 2
    columns = math.ceil(2 * wide * fine) + 2
    where = np.full((rows, columns), -1, dtype=np.int64)
    down = (np.arange(rows) + 0.5) / fine - top
    across = (np.arange(columns) + 0.5 - columns / 2) / fine
    for column, x in enumerate(across):
        seen = np.flatnonzero(radius > abs(x))
        if seen.size == 0:
            continue
        # The front of the ring at `depth` bulges towards a camera that looks down, so it lies lower in the picture.
        height = depth[seen] * cos_p + np.sqrt(radius[seen] ** 2 - x * x) * sin_p
        height = np.maximum.accumulate(height)
        at = np.searchsorted(height, down)
        inside = (at > 0) & (at < seen.size)
        low, high = seen[np.where(inside, at - 1, 0)], seen[np.where(inside, at, 0)]
        gap = (depth[high] - depth[low]) > 3.0 / fine  # between a wide cap and the shoulder there is only air
        where[:, column] = np.where(inside & ~gap, high, -1)
    hit = where >= 0
    at, x = np.where(hit, where, 0), np.broadcast_to(across, where.shape)
    r = np.maximum(radius[at], 1e-6)
    side = np.clip(x / r, -1.0, 1.0)
    toward = np.sqrt(1.0 - side**2)
    length = np.hypot(slope[at, 0], slope[at, 1]) + 1e-9
    out, up = slope[at, 0] / length, -slope[at, 1] / length
    normal = np.stack([out * side, up * cos_p + out * toward * sin_p, out * toward * cos_p - up * sin_p], axis=-1)
    turn = np.arcsin(side) - math.radians(yaw_deg)
    art_rows, art_columns = skin.art.shape[:2]
    u = (0.5 + turn / (2 * math.pi)) % 1.0 * art_columns
    v = depth[at] / tall * (art_rows - 1)
    padded = np.concatenate([skin.art, skin.art[:, :2]], axis=1)
    colour = cv2.remap(padded, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
    gloss = skin.gloss[np.clip(v.astype(np.int64), 0, art_rows - 1)]
    lit = shade(colour.astype(np.float32), normal.astype(np.float32), gloss)
    picture = np.zeros((rows, columns, 4), dtype=np.uint8)
    _lid(picture, skin.lid, (columns / 2, top * fine), (float(radius[0]) * fine, top * fine))
    picture[hit, :3] = np.clip(lit[hit], 0, 255)
    picture[hit, 3] = 255
    return _shrink(picture)


def _lid(picture: Picture, colour: Colour, centre: tuple[float, float], radii: tuple[float, float]) -> None:
    if min(radii) < 1:
        return
    for share, factor in ((1.0, 1.05), (0.9, 0.8), (0.86, 0.97)):
        axes = max(1, round(radii[0] * share)), max(1, round(radii[1] * share))
        tone = tuple(min(255.0, c * factor) for c in colour)
        place = round(centre[0]), round(centre[1])
        cv2.ellipse(picture, place, axes, 0, 0, 360, (*tone, 255), -1, cv2.LINE_AA)


def _resample(profile: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.float64]:
    lengths = np.hypot(*np.diff(profile, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    ticks = np.linspace(0.0, along[-1], max(8, math.ceil(along[-1] / step)))
    return np.stack([np.interp(ticks, along, profile[:, 0]), np.interp(ticks, along, profile[:, 1])], axis=1)


@dataclass(frozen=True)
class Carton:
    """The faces of a box, RGB ``uint8 (H, W, 3)``; ``gable`` raises a milk carton's roof by that many centimetres."""

    width: float
    height: float
    depth: float
    front: Picture
    side: Picture
    top: Picture
    gable: float = 0.0
    gloss: float = 0.15


def box(carton: Carton, *, scale: float, yaw_deg: float, pitch_deg: float) -> Picture:
    """A carton seen a little from the side and from above, in perspective."""
    fine = scale * _OVERSAMPLE
    w, h, d = carton.width / 2, carton.height / 2, carton.depth / 2
    camera = _Camera(yaw_deg, pitch_deg, 5.0 * max(carton.width, carton.height), fine)
    right = yaw_deg < 0  # turned to the left, the right side shows
    s = 1.0 if right else -1.0
    near, far = (s * w, d), (s * w, -d)
    side_edge = [near, far] if right else [far, near]
    faces: list[tuple[Picture, list[tuple[float, float, float]], tuple[float, float, float]]] = []
    if carton.gable:
        g = carton.gable
        fin = 0.42 * g
        ridge = -h - g
        faces += [
            (carton.top, [(-w, ridge - fin, 0), (w, ridge - fin, 0), (w, ridge, 0), (-w, ridge, 0)], (0, -0.1, 1)),
            (
                carton.side,
                [
                    (s * w, ridge, 0),
                    (s * w, ridge, 0),
                    (side_edge[1][0], -h, side_edge[1][1]),
                    (side_edge[0][0], -h, side_edge[0][1]),
                ],
                (s, -0.6, 0),
            ),
            (carton.top, [(-w, ridge, 0), (w, ridge, 0), (w, -h, d), (-w, -h, d)], (0, -d / g, 1)),
        ]
    else:
        faces.append((carton.top, [(-w, -h, -d), (w, -h, -d), (w, -h, d), (-w, -h, d)], (0, -1, 0)))
    (x0, z0), (x1, z1) = side_edge
    faces.append((carton.side, [(x0, -h, z0), (x1, -h, z1), (x1, h, z1), (x0, h, z0)], (s, 0, 0)))
    faces.append((carton.front, [(-w, -h, d), (w, -h, d), (w, h, d), (-w, h, d)], (0, 0, 1)))
    corners = [camera.project(point) for _, quad, _ in faces for point in quad]
    low = np.min(corners, axis=0) - 2
    high = np.max(corners, axis=0) + 2
    columns, rows = (int(v) for v in np.ceil(high - low))
    picture = np.zeros((rows, columns, 4), dtype=np.uint8)
    for art, quad, normal in faces:
        target = np.array([camera.project(point) for point in quad], dtype=np.float64) - low
        if _area(target) <= 1.0:
            continue
        _paste_face(picture, art, target.astype(np.float32), camera.turn(normal), carton.gloss)
    return _shrink(picture)


class _Camera:
    """A pinhole in front of the pack's centre; points are (x right, y down, z towards the camera) in centimetres."""

    def __init__(self, yaw_deg: float, pitch_deg: float, distance: float, scale: float) -> None:
        yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
        spin = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
        self._pose, self._distance, self._scale = nod @ spin, distance, scale

    def project(self, point: tuple[float, float, float]) -> npt.NDArray[np.float64]:
        x, y, z = self._pose @ np.array(point)
        return np.array([x, y], dtype=np.float64) * float(self._scale * self._distance / (self._distance - z))

    def turn(self, normal: tuple[float, float, float]) -> npt.NDArray[np.float64]:
        turned = self._pose @ np.array(normal, dtype=np.float64)
        return np.asarray(turned / np.linalg.norm(turned))


def _area(quad: npt.NDArray[np.float64]) -> float:
    """The signed area of a picture quadrilateral: positive when its corners run clockwise, that is, face us."""
    x, y = quad[:, 0], quad[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _paste_face(
    picture: Picture, art: Picture, quad: npt.NDArray[np.float32], normal: npt.NDArray[np.float64], gloss: float
) -> None:
    rows, columns = art.shape[:2]
    # Paper is never quite flat: bend the normals by a few degrees over the face so that the light falls off.
    bend = np.zeros((rows, columns, 3), dtype=np.float32)
    bend[..., 0] = np.linspace(-0.16, 0.16, columns, dtype=np.float32)[None, :]
    bend[..., 1] = np.linspace(-0.1, 0.14, rows, dtype=np.float32)[:, None]
    normals = bend + normal.astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    lit = np.clip(shade(art.astype(np.float32), normals, gloss), 0, 255)
    edge = max(2, round(0.012 * columns))
    lit[:, :edge] += (255 - lit[:, :edge]) * 0.18  # creases catch light
    lit[:, -edge:] *= 0.9
    source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    degenerate = bool(np.allclose(quad[0], quad[1]))
    if degenerate:  # a gable's triangle: take the upper corners apart so that the homography exists
        quad = quad.copy()
        quad[1, 0] += 0.5
    warp = cv2.getPerspectiveTransform(source, quad)
    size = picture.shape[1], picture.shape[0]
    ink = cv2.warpPerspective(lit, warp, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros(picture.shape[:2], dtype=np.uint8)
    cv2.fillConvexPoly(mask, np.round(quad * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    share = mask[..., None].astype(np.float32) / 255
    before = picture[..., :3].astype(np.float32)
    covered = picture[..., 3:4].astype(np.float32) / 255
    alpha = share + covered * (1 - share)
    mixed = (ink * share + before * covered * (1 - share)) / np.maximum(alpha, 1e-6)
    picture[..., :3] = np.clip(mixed, 0, 255)
    picture[..., 3] = np.round(alpha[..., 0] * 255)


@dataclass(frozen=True)
class Bag:
    """A filled bag: its outline and how far it bulges.

    ``outline`` is a mask ``uint8 (H, W)`` over ``front`` (RGB, the same size), ``bulge`` float32 (H, W) the height of
    the surface in centimetres, ``gloss`` 0..1.
    """

    width: float
    front: Picture
    outline: npt.NDArray[np.uint8]
    bulge: Floats
    gloss: float


def bag(soft: Bag, *, scale: float, yaw_deg: float, pitch_deg: float) -> Picture:
    """A bag, pouch or tube: a lit relief, turned in perspective."""
    rows, columns = soft.outline.shape
    cell = soft.width / columns
    down, across = np.gradient(soft.bulge / cell)
    normal = np.stack([-across, -down, np.ones_like(down)], axis=-1).astype(np.float32)
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    turned = normal.copy()
    turned[..., 0] = normal[..., 0] * math.cos(yaw) + normal[..., 2] * math.sin(yaw) * 0.6
    turned[..., 1] = normal[..., 1] + normal[..., 2] * math.sin(pitch) * 0.3
    turned /= np.linalg.norm(turned, axis=-1, keepdims=True)
    lit = np.clip(shade(soft.front.astype(np.float32), turned, soft.gloss), 0, 255)
    flat = np.dstack([lit, soft.outline.astype(np.float32)])
    fine = scale * _OVERSAMPLE
    w, h = soft.width / 2, soft.width * rows / columns / 2
    camera = _Camera(yaw_deg * 0.8, pitch_deg, 5.0 * max(w, h) * 2, fine)
    quad = np.array([camera.project(p) for p in ((-w, -h, 0.0), (w, -h, 0.0), (w, h, 0.0), (-w, h, 0.0))])
    low, high = quad.min(axis=0) - 2, quad.max(axis=0) + 2
    # The middle of the bag comes towards the camera, so it slides sideways over the seams when turned.
    slide = (soft.bulge * math.sin(yaw) * 0.6 / cell).astype(np.float32)
    grid_x, grid_y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    flat[..., :3] = cv2.remap(flat[..., :3], grid_x - slide, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    warp = cv2.getPerspectiveTransform(source, (quad - low).astype(np.float32))
    size = tuple(int(v) for v in np.ceil(high - low))
    bleed = _bleed(flat)
    picture = cv2.warpPerspective(bleed, warp, size, flags=cv2.INTER_AREA)
    return _shrink(np.clip(np.round(picture), 0, 255).astype(np.uint8))


def _bleed(flat: Floats) -> Floats:
    """Blur colour outwards under the transparent part, so that no dark fringe appears when it is resampled."""
    inside = (flat[..., 3:] > 127).astype(np.float32)
    weight = cv2.blur(inside, (9, 9))[..., None]
    spread = cv2.blur(flat[..., :3] * inside, (9, 9)) / np.maximum(weight, 1e-3)
    return np.dstack([np.where(inside > 0, flat[..., :3], spread), flat[..., 3]]).astype(np.float32)


def _shrink(picture: Picture) -> Picture:
    """Average the oversampled picture down (colour weighted by alpha) and crop it to the pack."""
    size = max(1, picture.shape[1] // _OVERSAMPLE), max(1, picture.shape[0] // _OVERSAMPLE)
    alpha = picture[..., 3:].astype(np.float32) / 255
    thin = cv2.resize(np.dstack([picture[..., :3] * alpha, alpha]), size, interpolation=cv2.INTER_AREA)
    colour = thin[..., :3] / np.maximum(thin[..., 3:], 1e-4)
    small = np.dstack([np.clip(np.round(colour), 0, 255), np.round(thin[..., 3] * 255)]).astype(np.uint8)
    ys, xs = np.nonzero(small[..., 3] > 8)
    return np.ascontiguousarray(small[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
