"""Are the right products found in scenes of several, and what does detection bring?

Odd-numbered drinks (no model here was trained on them) are cut out of one photo each and laid before other photos. The
gallery holds the other photos of the odd drinks, less every crop of a shot that was cut out of. A running service
searches each scene as a whole picture, with detection, and cut by its true boxes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from common import datasets, detectors, drink_scenes, options, serving, tables
from common.datasets import Photo
from common.progress import track
from common.shots import same_shot

from models.training.detection.boxes import Boxes, overlaps
from models.training.detection.cutouts import Rgb, Rgba, cut_out
from models.training.detection.metrics import MATCH_IOU

_SEED = 30
_MOST_PRODUCTS = 4
_LEAST_IN_GALLERY = 2  # photos of a product that stay to be found


@dataclass(frozen=True)
class Source:
    """A cut-out product, and the photos that show it in the same shot."""

    product: str
    cutout: Rgba
    same_shots: list[Photo]


@dataclass(frozen=True)
class DrinkScene:
    """A composed scene: its picture, the products in it, and their boxes (n, 4) in the same order."""

    picture: Rgb
    products: list[str]
    boxes: Boxes


@dataclass(frozen=True)
class Outcome:
    """Of one scene: whether the best answer is right, and for how many of its objects one is; None: does not say."""

    best: bool
    objects: int | None
    located: int | None = None


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    options.add_detector(arguments)
    options.add_shared(arguments)
    arguments.add_argument("--limit", type=int, default=300, help="scenes (default 300)")
    chosen = arguments.parse_args()
    needed = ("drink/gallery/drink_label_all.txt", "distractors.tar", detectors.COCO_WEIGHTS)
    data = options.shared_data(chosen, *needed)
    detector = detectors.chosen_folder(chosen.detector)
    photos = [photo for photo in datasets.drink(data) if datasets.is_evaluation_product(photo)]
    sources = _sources(photos, data / detectors.COCO_WEIGHTS)
    left_out = {photo for source in sources for photo in source.same_shots}
    gallery = [photo for photo in photos if photo not in left_out]
    scenes = _compose(sources, datasets.distractors(data), chosen.limit)
    settings = serving.hasher_setting(chosen.hasher) | serving.detector_setting(detector)
    outcomes = _ask(scenes, gallery, settings)
    count = sum(len(scene.products) for scene in scenes)
    located = sum(outcome.located or 0 for outcome in outcomes["with detection"])
    tables.show(
        f"{len(scenes)} scenes of {count / len(scenes):.2f} products each, among {len(gallery)} photos of "
        f"{len({photo.label for photo in gallery})} products",
        ["searched", "best match right", "objects found"],
        [_cells(name, some, count) for name, some in outcomes.items()],
        [
            "Best match: of a scene, right if it is any of its products. Objects found: share of all true objects at "
            f"which an object lies (IoU of at least {MATCH_IOU}) whose best match is right.",
            f"At {located / count:.3f} of the true objects the service returned one, whatever it matched.",
            f"{len(sources)} products were cut out; {len(left_out)} photos of those shots are not in the gallery.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _sources(photos: Sequence[Photo], coco_weights: Path) -> list[Source]:
    """Cut each product out of the first of its photos where that succeeds and enough photos of other shots stay."""
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder:
        coco = detectors.CocoDetector.load(detectors.export_coco(coco_weights, Path(folder)))
    products = sorted({photo.label for photo in photos}, key=int)
    found = (
        _source(product, [photo for photo in photos if photo.label == product], coco)
        for product in track(products, "cutting out")
    )
    return [source for source in found if source is not None]


def _source(product: str, photos: Sequence[Photo], coco: detectors.CocoDetector) -> Source | None:
    for photo in photos:
        shots = [other for other in photos if other is photo or same_shot(photo, other)]
        if len(photos) - len(shots) < _LEAST_IN_GALLERY:
            continue
        picture = photo.rgb()
        boxes = coco.detect(picture, detectors.LEAST_SCORE, detectors.MOST_BOXES)[:, :4]
        middle = np.float32(picture.shape[1::-1]) / 2
        # What does not cover the middle is rather a hand or a neighbour than the product.
        central = boxes[((boxes[:, :2] <= middle) & (middle <= boxes[:, 2:])).all(axis=1)]
        cutout = cut_out(picture, central[0]) if len(central) else None
        if cutout is not None:
            return Source(product, cutout, shots)
    return None


def _compose(sources: Sequence[Source], backgrounds: Sequence[Photo], count: int) -> list[DrinkScene]:
    scenes = []
    for number in track(range(count), "composing"):
        rng = np.random.default_rng((_SEED, number))
        some = [sources[index] for index in rng.permutation(len(sources))[: rng.integers(1, _MOST_PRODUCTS + 1)]]
        background = backgrounds[rng.integers(len(backgrounds))].rgb()
        picture, boxes = drink_scenes.compose(rng, [source.cutout for source in some], background)
        scenes.append(DrinkScene(picture, [source.product for source in some], boxes))
    return scenes


def _ask(scenes: Sequence[DrinkScene], gallery: Sequence[Photo], settings: dict[str, str]) -> dict[str, list[Outcome]]:
    """Search every scene in each way, at any distance."""
    with (
        serving.service(settings) as process,
        httpx.Client(base_url=process.url, timeout=120, trust_env=False) as client,
    ):
        bits = int(serving.checked(client.get("/index"))["bits"])
        serving.enrol(client, gallery)

        def search(picture: Rgb, *, detect: bool) -> list[dict[str, Any]]:
            return serving.recognize(client, _as_png(picture), detect=detect, radius=bits)

        outcomes: dict[str, list[Outcome]] = {"whole picture": [], "with detection": [], "cut by the true boxes": []}
        for scene in track(scenes, "searching"):
            whole = search(scene.picture, detect=False)
            outcomes["whole picture"].append(Outcome(_is_any(whole[0], scene), None))
            outcomes["with detection"].append(_detected(search(scene.picture, detect=True), scene))
            crops = [search(_crop(scene.picture, box), detect=False)[0] for box in scene.boxes]
            outcomes["cut by the true boxes"].append(_cut(crops, scene))
        return outcomes


def _detected(objects: Sequence[dict[str, Any]], scene: DrinkScene) -> Outcome:
    """Compare the service's objects, best first, with what is in the scene."""
    boxes = np.float32([each["bbox"] for each in objects])
    is_there = overlaps(scene.boxes, boxes) >= MATCH_IOU
    is_product = np.array([[_label(each) == product for each in objects] for product in scene.products])
    found = int((is_there & is_product).any(axis=1).sum())
    return Outcome(_is_any(objects[0], scene), found, int(is_there.any(axis=1).sum()))


def _cut(crops: Sequence[dict[str, Any]], scene: DrinkScene) -> Outcome:
    best = min(crops, key=lambda each: int(each["matches"][0]["distance"]))
    right = sum(_label(each) == product for each, product in zip(crops, scene.products, strict=True))
    return Outcome(_is_any(best, scene), right)


def _is_any(each: dict[str, Any], scene: DrinkScene) -> bool:
    return _label(each) in scene.products


def _label(each: dict[str, Any]) -> str:
    return str(each["matches"][0]["label"])


def _cells(name: str, outcomes: Sequence[Outcome], count: int) -> list[str]:
    objects = [outcome.objects for outcome in outcomes if outcome.objects is not None]
    best = np.mean([outcome.best for outcome in outcomes])
    return [name, f"{best:.3f}", f"{sum(objects) / count:.3f}" if objects else ""]


def _crop(picture: Rgb, box: np.ndarray) -> Rgb:
    x1, y1, x2, y2 = box.astype(int)
    return picture[y1:y2, x1:x2]


def _as_png(picture: Rgb) -> Photo:
    return Photo("scene.png", "", cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


if __name__ == "__main__":
    sys.exit(main())
