"""The shelf photo: several packs side by side in a shop, seen from one side and not quite in focus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from service.demo.packs import Pack
from service.demo.panel import Panel, Picture, mix
from service.demo.photo import Shot, develop, stand
from service.drawing import Colour

_SCALE = 15.0
_BOARD_PX = 46
_GAP_PX = 26
_MARGIN_PX = 60
_HEADROOM_PX = 46
_AIR = 0.05


@dataclass(frozen=True)
class ShelfPhoto:
    """A shelf of packs.

    ``picture`` is RGB ``uint8 (H, W, 3)``; ``boxes`` int32 (n, 4), xyxy pixels with an exclusive end, one row a label
    in ``labels``, from left to right and from the upper board down.
    """

    picture: Picture
    boxes: np.ndarray[tuple[int, int], np.dtype[np.int32]]
    labels: list[str]

    def crop(self, index: int) -> Picture:
        """A square cut around pack ``index`` with a little air, smaller at the photo's edges.

        A square, as a person would frame it: the models look at squares, and a tight cut of a bottle would be
        stretched into one.
        """
        x0, y0, x1, y1 = (int(v) for v in self.boxes[index])
        half = round(max(x1 - x0, y1 - y0) * (0.5 + _AIR))
        x, y = (x0 + x1) // 2, (y0 + y1) // 2
        cut = self.picture[max(0, y - half) : y + half, max(0, x - half) : x + half]
        return np.ascontiguousarray(cut)


def sample_boards(packs: Sequence[Pack]) -> list[list[Pack]]:
    """The packs of the sample gallery that stand on the sample shelf, uppermost board first."""
    brands = (
        (
            "SUNNYS Honey Rings",
            "Oatery Oat Muesli",
            "Krax Sea Salt",
            "BLITZ Washing Powder",
            "Krax Paprika",
            "Bonbo Fruit Sweets",
        ),
        (
            "Rosso Tomato Soup",
            "Beeren Strawberry",
            "Oliva Extra Vergine",
            "Tomki Ketchup",
            "Senfo Mustard",
            "Fuego Hot Sauce",
            "Spree Gherkins",
            "Kitty Salmon Feast",
            "Aqua Shampoo",
            "Imker Honey",
        ),
        (
            "Zesta Orange",
            "Polar Cola",
            "Almi Whole Milk",
            "Bosco Blueberry",
            "Nero Espresso",
            "Nonna Farfalle",
            "Jasmin Thai Rice",
            "VOLT Energy",
            "Gletsch Water",
        ),
    )
    known = {pack.label: pack for pack in packs}
    return [[known[label] for label in board] for board in brands]


def shelf_photo(boards: Sequence[Sequence[Pack]], seed: int = 11) -> ShelfPhoto:
    """Stand packs on boards (uppermost first) and photograph them: the same picture for the same packs and seed."""
    rng = np.random.default_rng(seed)
    drawn = [[(pack, pack.draw(_SCALE, float(rng.uniform(-16, 6)), 5.0)) for pack in board] for board in boards]
    width = max(sum(image.shape[1] + _GAP_PX for _, image in row) for row in drawn) + 2 * _MARGIN_PX
    tallest = [max(image.shape[0] for _, image in row) + _HEADROOM_PX for row in drawn]
    height = sum(tallest) + _BOARD_PX * len(drawn) + 20
    scene = _wall(width, height)
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[str] = []
    foot = 0
    for row, room in zip(drawn, tallest, strict=True):
        foot += room
        _board(scene, foot, foot - room)
        used = sum(image.shape[1] for _, image in row)
        gap = (width - 2 * _MARGIN_PX - used) / max(1, len(row) - 1)
        left = float(_MARGIN_PX)
        for pack, image in row:
            stand(scene, image, round(left), foot + 8, shadow=0.5)
            _price(scene, round(left + image.shape[1] / 2), foot + 13, pack, rng)
            boxes.append((round(left), foot + 8 - image.shape[0], round(left) + image.shape[1], foot + 8))
            labels.append(pack.label)
            left += image.shape[1] + gap
        foot += _BOARD_PX
    warp = _from_the_side(width, height)
    scene = cv2.warpPerspective(scene, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shot = Shot(exposure=0.94, tint=(1.04, 1.0, 0.9), gradient=0.16, blur_px=0.9, noise=4.0)
    return ShelfPhoto(develop(scene, shot, rng), _moved(boxes, warp, width, height), labels)


def _wall(width: int, height: int) -> Picture:
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    wall = np.array((206, 204, 198), dtype=np.float32) * (1.0 - 0.12 * down) * np.ones((1, width, 1), dtype=np.float32)
    for x in range(40, width, 46):  # perforated steel
        wall[:, x : x + 3] *= 0.86
    return wall.astype(np.uint8)


def _board(scene: Picture, y: int, ceiling: int) -> None:
    """A shelf board whose front edge starts at row ``y``, and the dusk below the board above it."""
    reach = min(90, y - ceiling)
    dusk = np.linspace(0.62, 1.0, reach, dtype=np.float32)[:, None, None]
    scene[ceiling : ceiling + reach] = np.round(scene[ceiling : ceiling + reach] * dusk).astype(np.uint8)
    scene[y - 10 : y + 12] = (188, 186, 182)  # the board itself, seen from a little above
    scene[y + 12 : y + 12 + _BOARD_PX - 14] = (232, 232, 228)
    scene[y + 12 + _BOARD_PX - 14 : y + _BOARD_PX] = (120, 120, 118)


def _price(scene: Picture, x: int, y: int, pack: Pack, rng: np.random.Generator) -> None:
    tag = Panel(150, 60, (255, 250, 220))
    paper: Colour = (255, 250, 220)
    tag.rect(0, 0, 1, 0.07, (216, 40, 40))
    tag.text(0.5, 0.16, pack.label, 0.86, mix((0, 0, 0), paper, 0.25), max_height=0.09)
    tag.text(0.5, 0.31, f"{int(rng.integers(0, 9))}.{int(rng.integers(10, 99))}", 0.5, (20, 20, 20), max_height=0.15)
    small = cv2.resize(tag.pixels(), (75, 30), interpolation=cv2.INTER_AREA)
    left = int(np.clip(x - 37, 0, scene.shape[1] - 75))
    scene[y : y + 30, left : left + 75] = small


def _from_the_side(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The homography of a camera that stands to the right and looks slightly down."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    seen = np.array(
        [
            [0.035 * width, 0.06 * height],
            [1.0 * width, -0.02 * height],
            [0.985 * width, 1.02 * height],
            [0.05 * width, 0.93 * height],
        ],
        dtype=np.float32,
    )
    return np.asarray(cv2.getPerspectiveTransform(corners, seen), dtype=np.float64)


def _moved(
    boxes: Sequence[tuple[int, int, int, int]],
    warp: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    width: int,
    height: int,
) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Where upright boxes lie after a homography: their bounding boxes, cut at the picture's edges."""
    moved = []
    for x0, y0, x1, y1 in boxes:
        corners = np.array([[[x0, y0]], [[x1, y0]], [[x1, y1]], [[x0, y1]]], dtype=np.float64)
        seen = cv2.perspectiveTransform(corners, warp)[:, 0]
        low, high = np.floor(seen.min(axis=0)), np.ceil(seen.max(axis=0))
        moved.append((max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1])))
    return np.array(moved, dtype=np.int32).reshape(-1, 4)
