"""Scenes put together from cut-out objects: shelves, tables and single objects before photos, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from .boxes import Boxes
from .cutouts import Rgb, Rgba

_LEAST_VISIBLE = 0.5  # share of an object from which it counts
_LEAST_NOTED = 0.15  # from here to there it counts neither as object nor as background
_LEAST_SIDE = 0.05  # of the picture, of a box that counts


@dataclass
class Scene:
    """A picture under composition.

    Attributes:
        picture: RGB uint8 (H, W, 3).
        owner: int16 (H, W), the number of the object that is seen at each pixel; 0 for the background.
        areas: pixels of each object with all of its parts, also hidden ones and those outside of the picture.
    """

    picture: Rgb
    owner: npt.NDArray[np.int16] = field(init=False)
    areas: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing but background."""
        self.owner = np.zeros(self.picture.shape[:2], np.int16)

    def lay(self, cutout: Rgba, matrix: npt.NDArray[np.float64], *, counts: bool = True) -> None:
        """Lay an object over what is there.

        Args:
            cutout: RGBA uint8 (h, w, 4).
            matrix: (2, 3), from the cutout's pixels to the scene's.
            counts: False for what is no object of its own, such as a pack behind another.
        """
        height, width = self.picture.shape[:2]
        corners = np.float64([[0, 0, 1], [cutout.shape[1], 0, 1], [0, cutout.shape[0], 1], [*cutout.shape[1::-1], 1]])
        x, y = matrix @ corners.T
        left, top = max(0, int(np.floor(x.min()))), max(0, int(np.floor(y.min())))
        right, bottom = min(width, int(np.ceil(x.max()))), min(height, int(np.ceil(y.max())))
        scale = abs(np.linalg.det(matrix[:, :2]))
        if counts:
            self.areas.append(float((cutout[..., 3] > 127).sum() * scale))
        if right <= left or bottom <= top:
            return
        moved = matrix - np.float64([[0, 0, left], [0, 0, top]])
        shrinks = scale < 0.6  # then averaging beats sampling
        if shrinks:
            factor = float(np.sqrt(scale))
            cutout = cv2.resize(cutout, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            moved = moved @ np.diag([1 / factor, 1 / factor, 1.0])
        laid = cv2.warpAffine(cutout, moved, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        alpha = laid[..., 3:].astype(np.float32) / 255
        below = self.picture[top:bottom, left:right]
        self.picture[top:bottom, left:right] = (laid[..., :3] * alpha + below * (1 - alpha)).astype(np.uint8)
        region = self.owner[top:bottom, left:right]
        region[laid[..., 3] > 127] = len(self.areas) if counts else 0

    def boxes(self) -> tuple[Boxes, Boxes]:
        """Boxes of what is seen.

        Returns:
            Of the objects float32 (n, 5): x1, y1, x2, y2 in pixels, and the share of the object that is seen; of those
            of which too little is seen to count either way float32 (m, 4).
        """
        height, width = self.owner.shape
        objects, ignored = [], []
        for number, area in enumerate(self.areas, start=1):
            rows, columns = np.nonzero(self.owner == number)
            seen = len(rows) / max(1.0, area)
            if not len(rows) or seen < _LEAST_NOTED:
                continue
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            is_small = box[2] - box[0] < _LEAST_SIDE * width or box[3] - box[1] < _LEAST_SIDE * height
            if is_small or seen < _LEAST_VISIBLE:
                ignored.append(box)
            else:
                objects.append([*box, min(1.0, seen)])
        return np.float32(objects).reshape(-1, 5), np.float32(ignored).reshape(-1, 4)


class SceneMaker:
    """Makes scenes of cutouts before photos. Threads may share it.

    Args:
        cutouts: RGBA pictures of objects; groups of them, one drawn before its member.
        photos: RGB pictures: backgrounds, and what is printed on packs.
    """

    def __init__(self, cutouts: Sequence[Sequence[Rgba]], photos: Sequence[Rgb]) -> None:
        self._cutouts = [group for group in cutouts if len(group)]
        self._photos = photos

    def make(self, rng: np.random.Generator, height: int, width: int) -> tuple[Rgb, Boxes, Boxes]:
        """Make a scene.

        Returns:
            RGB uint8 (height, width, 3), and what :meth:`Scene.boxes` gives.
        """
        scene = Scene(self._background(rng, height, width))
        layout = rng.choice(["shelf", "table", "single"], p=[0.55, 0.27, 0.18])
        if layout == "shelf":
            self._shelf(rng, scene)
        elif layout == "table":
            self._table(rng, scene)
        else:
            self._single(rng, scene)
        return (scene.picture, *scene.boxes())

    def _background(self, rng: np.random.Generator, height: int, width: int) -> Rgb:
        if rng.random() < 0.25:
            return _gradient(rng, height, width)
        photo = self._photo(rng)
        side = rng.uniform(0.3, 1.0)
        patch = _random_crop(rng, photo, side * rng.uniform(0.7, 1.0), side * rng.uniform(0.7, 1.0))
        picture = cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.5:
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.01, 0.04) * max(height, width))
        return cv2.convertScaleAbs(picture, alpha=rng.uniform(0.35, 1.1), beta=rng.uniform(0, 40))

    def _photo(self, rng: np.random.Generator) -> Rgb:
        return self._photos[rng.integers(len(self._photos))]

    def _object(self, rng: np.random.Generator) -> Rgba:
        """Draw an object: a cutout, or a pack with a photo as its print."""
        if rng.random() < 0.35:
            return printed_pack(rng, self._photo(rng), self._photo(rng))
        group = self._cutouts[rng.integers(len(self._cutouts))]
        cutout = group[rng.integers(len(group))]
        return cutout[:, ::-1] if rng.random() < 0.3 else cutout

    def _shelf(self, rng: np.random.Generator, scene: Scene) -> None:
        """Rows of packs, mostly of one kind, side by side on boards; the first and last leave the picture."""
        height = scene.picture.shape[0]
        tall = rng.uniform(0.35, 1.05) * height
        rows = 1 if tall > 0.6 * height else rng.integers(1, 3)
        floor = rng.uniform(0.75, 1.12) * height if rows == 1 else rng.uniform(0.95, 1.25) * height
        tilt = rng.normal(0, 3)
        for row in range(rows + 1):  # and the lower ends of what stands above
            self._row(rng, scene, floor - row * tall * rng.uniform(1.05, 1.3), tall, tilt)

    def _row(self, rng: np.random.Generator, scene: Scene, floor: float, tall: float, tilt: float) -> None:
        width = scene.picture.shape[1]
        if rng.random() < 0.75:
            _board(rng, scene.picture, floor)
        uniform = rng.random() < 0.7
        kind = self._upright(rng)
        has_more_behind = rng.random() < 0.4
        gap = rng.choice([rng.uniform(-0.04, 0.03), rng.uniform(0.0, 0.4)])
        x = -rng.uniform(0.0, 0.9) * tall * kind.shape[1] / kind.shape[0]
        placed: list[tuple[Rgba, npt.NDArray[np.float64]]] = []
        for _ in range(12):
            if x >= width:
                break
            if not uniform:
                kind = self._upright(rng)
            scale = tall / kind.shape[0] * rng.uniform(0.97, 1.03)
            wide = kind.shape[1] * scale
            middle = x + wide / 2, floor - scale * kind.shape[0] / 2
            placed.append((kind, _placement(kind, middle, scale, scale, tilt + rng.normal(0, 1.5))))
            x += wide * (1 + gap + (rng.uniform(0, 1.2) if rng.random() < 0.08 else 0))
        if has_more_behind:
            for cutout, matrix in placed:
                dark = cutout.copy()
                dark[..., :3] = (dark[..., :3] * rng.uniform(0.3, 0.6)).astype(np.uint8)
                step = np.float64([[0, 0, rng.uniform(-0.1, 0.1) * tall], [0, 0, -rng.uniform(0.04, 0.12) * tall]])
                scene.lay(dark, matrix + step, counts=False)
        for number in rng.permutation(len(placed)):
            scene.lay(*placed[number])

    def _upright(self, rng: np.random.Generator) -> Rgba:
        """Draw an object that can stand in a row."""
        for _ in range(4):
            cutout = self._object(rng)
            if 0.25 < cutout.shape[1] / cutout.shape[0] < 1.8:
                break
        return cutout

    def _table(self, rng: np.random.Generator, scene: Scene) -> None:
        """A few objects anywhere, any way round, some in front of others."""
        height, width = scene.picture.shape[:2]
        for _ in range(rng.integers(1, 6)):
            cutout = self._object(rng)
            long_side = rng.uniform(0.22, 0.75) * max(height, width)
            angle = rng.normal(0, 12) if rng.random() < 0.6 else rng.uniform(-180, 180)
            middle = rng.uniform(0.05, 0.95) * width, rng.uniform(0.1, 0.95) * height
            self._lay_free(rng, scene, cutout, middle, long_side, angle)

    def _single(self, rng: np.random.Generator, scene: Scene) -> None:
        """One large object in the middle, perhaps with smaller ones beside."""
        height, width = scene.picture.shape[:2]
        for _ in range(rng.integers(0, 3)):
            middle = rng.choice([rng.uniform(-0.1, 0.2), rng.uniform(0.8, 1.1)]) * width, rng.uniform(0.2, 0.9) * height
            self._lay_free(rng, scene, self._object(rng), middle, rng.uniform(0.2, 0.6) * height, rng.normal(0, 8))
        middle = rng.uniform(0.35, 0.65) * width, rng.uniform(0.4, 0.6) * height
        self._lay_free(rng, scene, self._object(rng), middle, rng.uniform(0.55, 1.1) * height, rng.normal(0, 10))

    def _lay_free(
        self,
        rng: np.random.Generator,
        scene: Scene,
        cutout: Rgba,
        middle: tuple[float, float],
        long_side: float,
        angle: float,
    ) -> None:
        scale = long_side / max(cutout.shape[:2])
        matrix = _placement(cutout, middle, scale * rng.uniform(0.88, 1.12), scale, angle)
        if rng.random() < 0.5:
            shade = np.zeros_like(cutout)
            shade[..., 3] = cutout[..., 3] // 3
            offset = rng.uniform(-0.04, 0.06, 2) * long_side
            scene.lay(shade, matrix + np.column_stack([np.zeros((2, 2)), offset]), counts=False)
        scene.lay(_lit(rng, cutout), matrix)


def printed_pack(rng: np.random.Generator, front: Rgb, pattern: Rgb) -> Rgba:
    """Draw a pack: a box, pouch, can or bottle in one colour with a photo and blocks of print on its front.

    Args:
        rng: of everything random.
        front: the photo.
        pattern: a photo whose colours the pack has.

    Returns:
        RGBA uint8 (h, w, 4).
    """
    height, width = 256, int(256 * np.exp(rng.uniform(np.log(0.3), np.log(1.4))))
    colours = pattern[rng.integers(pattern.shape[0], size=4), rng.integers(pattern.shape[1], size=4)].astype(int)
    pack = np.full((height, width, 3), colours[0], np.uint8)
    if rng.random() < 0.5:  # two halves of other colours
        pack[int(rng.uniform(0.2, 0.8) * height) :] = colours[1]
    share = rng.uniform(0.25, 1.0, 2)
    patch_height, patch_width = max(8, int(share[0] * height)), max(8, int(share[1] * width))
    y, x = rng.integers(0, height - patch_height + 1), (width - patch_width) // 2
    patch = cv2.resize(_random_crop(rng, front, *rng.uniform(0.4, 1.0, 2)), (patch_width, patch_height))
    pack[y : y + patch_height, x : x + patch_width] = patch
    for _ in range(rng.integers(1, 5)):
        _print_line(rng, pack, colours[rng.integers(4)])
    shading = 1 - rng.uniform(0, 0.5) * np.abs(np.linspace(-1, 1, width) + rng.uniform(-0.4, 0.4)) ** 2
    pack = np.clip(pack * np.clip(shading, 0.2, 1.2)[None, :, None] * rng.uniform(0.6, 1.15), 0, 255).astype(np.uint8)
    return np.dstack([pack, _outline(rng, height, width)])


def _print_line(rng: np.random.Generator, pack: Rgb, colour: npt.NDArray[np.int_]) -> None:
    """Write something across a pack."""
    height, width = pack.shape[:2]
    letters = "".join(chr(code) for code in rng.integers(65, 91, rng.integers(3, 9)))
    size = rng.uniform(0.6, 2.0) * width / (22 * len(letters)) * 1.2
    place = int(rng.uniform(0.02, 0.3) * width), int(rng.uniform(0.1, 0.95) * height)
    thickness = max(1, int(size * rng.uniform(1, 3)))
    ink = tuple(int(value) for value in (colour if rng.random() < 0.5 else np.full(3, rng.choice([15, 240]))))
    cv2.putText(pack, letters, place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness, cv2.LINE_AA)


def _outline(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Draw the mask of a box, a pouch, a can or a bottle."""
    rows = np.linspace(0, 1, height)
    half = np.ones(height)
    kind = rng.choice(["box", "pouch", "can", "bottle"], p=[0.4, 0.25, 0.15, 0.2])
    if kind == "pouch":
        half = 1 - rng.uniform(0.02, 0.1) * (1 + np.sin(rows * rng.uniform(2, 9) + rng.uniform(0, 6))) / 2
    elif kind == "can":
        half = np.minimum(1, 0.8 + 0.2 * np.minimum(rows, 1 - rows) / rng.uniform(0.03, 0.08))
    elif kind == "bottle":
        neck, shoulder = rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.4)
        half = np.clip(neck + (1 - neck) * (rows - shoulder / 2) / (shoulder / 2), neck, 1)
    columns = np.abs(np.linspace(-1, 1, width))
    mask = (columns[None] <= half[:, None]).astype(np.uint8) * 255
    if kind == "can":  # round bottom and top
        bend = (rng.uniform(0.01, 0.05) * height * columns**2).astype(int)
        for column, cut in enumerate(bend):
            mask[height - cut :, column] = 0
            mask[:cut, column] = 0
    return cv2.GaussianBlur(mask, (3, 3), 0)


def _board(rng: np.random.Generator, picture: Rgb, floor: float) -> None:
    """Draw a shelf's board with price tags below what stands on it."""
    height, width = picture.shape[:2]
    top, bottom = int(floor), int(floor + rng.uniform(0.04, 0.14) * height)
    if top >= height or bottom <= 0:
        return
    top = max(0, top)
    shade = rng.integers(40, 245)
    tint = np.clip(shade + rng.integers(-25, 26, 3), 0, 255)
    picture[top:bottom] = tint
    if rng.random() < 0.6:
        for x in np.arange(rng.uniform(0, 0.3), 1.0, rng.uniform(0.18, 0.5)) * width:
            tag = picture[top + 1 : bottom - 1, int(x) : int(x + rng.uniform(0.08, 0.16) * width)]
            tag[:] = rng.choice([235, 250, 200])
            if tag.size and min(tag.shape[:2]) > 6:
                ink = (20, 20, 20) if rng.random() < 0.6 else (200, 30, 30)
                text = f"{rng.integers(0, 20)}.{rng.integers(10, 100)}"
                fitted = np.ascontiguousarray(tag)
                cv2.putText(fitted, text, (1, tag.shape[0] - 2), cv2.FONT_HERSHEY_SIMPLEX, tag.shape[0] / 40, ink, 1)
                tag[:] = fitted


def _gradient(rng: np.random.Generator, height: int, width: int) -> Rgb:
    """A plain wall or floor, lit from one side."""
    low, high = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    if rng.random() < 0.6:  # most are nearly grey
        low, high = low.mean() + rng.normal(0, 8, 3), high.mean() + rng.normal(0, 8, 3)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width]
    share = (np.cos(angle) * x / width + np.sin(angle) * y / height + 1) / 2
    return np.clip(low + (high - low) * share[..., None] + rng.normal(0, 2, (height, width, 1)), 0, 255).astype(
        np.uint8
    )


def _random_crop(rng: np.random.Generator, photo: Rgb, height_share: float, width_share: float) -> Rgb:
    height, width = max(1, int(photo.shape[0] * height_share)), max(1, int(photo.shape[1] * width_share))
    y, x = rng.integers(0, photo.shape[0] - height + 1), rng.integers(0, photo.shape[1] - width + 1)
    return photo[y : y + height, x : x + width]


def _placement(
    cutout: Rgba, middle: tuple[float, float], scale_x: float, scale_y: float, angle: float
) -> npt.NDArray[np.float64]:
    """Scale and turn (degrees) a cutout about its middle, which comes to lie at ``middle``: (2, 3)."""
    turn = np.deg2rad(angle)
    linear = np.float64([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([scale_x, scale_y])
    offset = np.float64(middle) - linear @ np.float64([cutout.shape[1] / 2, cutout.shape[0] / 2])
    return np.column_stack([linear, offset])


def _lit(rng: np.random.Generator, cutout: Rgba) -> Rgba:
    """Change an object's brightness and contrast."""
    lit = cutout.copy()
    lit[..., :3] = cv2.convertScaleAbs(cutout[..., :3], alpha=rng.uniform(0.55, 1.25), beta=rng.uniform(-15, 25))
    return lit
