"""Are drinks recognised on shelves, on tables and in hands, and does a detector help?

The 13 test photos of the PP-ShiTu drink gallery are searched in all of the gallery through a running service, as whole
pictures and with detection. The products were read off the photos by eye; no shot of theirs is in the gallery.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
from common import datasets, detectors, options, serving, tables
from common.datasets import Photo
from common.progress import track
from common.shots import same_shot

from models.inference import STARTER_HASHER, Manifest


@dataclass(frozen=True)
class Answers:
    """A photo, its objects without detection (the whole picture) and with it; each has its nearest item, best first."""

    photo: Photo
    is_unseen: bool
    whole: list[dict[str, Any]]
    detected: list[dict[str, Any]]

    def cells(self) -> list[str]:
        """A line of the table."""
        product = self.photo.label if self.is_unseen else f"{self.photo.label} *"
        everything = ", ".join(_short(each) for each in self.detected)
        return [self.photo.path, product, self._best(self.whole), self._best(self.detected), everything]

    def _best(self, objects: list[dict[str, Any]]) -> str:
        return f"{'right' if self.is_right(objects) else 'wrong'}: {_short(objects[0])}"

    def is_right(self, objects: list[dict[str, Any]], radius: int | None = None) -> bool:
        """Whether the best match of the best object is the product and, if there is a radius, lies within."""
        match = objects[0]["matches"][0]
        return bool(match["label"] == self.photo.label and (radius is None or match["distance"] <= radius))


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    options.add_detector(arguments)
    options.add_shared(arguments)
    chosen = arguments.parse_args()
    data = options.shared_data(chosen, "drink/gallery/drink_label_all.txt", "drink/test_images")
    detector = detectors.chosen_folder(chosen.detector)
    names = datasets.drink_names(data)
    by_folder = datasets.drink(data)
    unseen = {names[photo.label] for photo in by_folder if datasets.is_evaluation_product(photo)}
    gallery = [replace(photo, label=names[photo.label]) for photo in by_folder]
    photos = datasets.drink_shelf(data)
    doubles = _doubles(photos, gallery)
    searched = [photo for photo in gallery if photo not in doubles]
    settings = serving.hasher_setting(chosen.hasher) | serving.detector_setting(detector)
    answers = _ask(photos, searched, unseen, settings)
    radius = Manifest.read(chosen.hasher or STARTER_HASHER, "hasher").hamming_radius
    tables.show(
        f"{len(photos)} photos of drinks among {len(searched)} of {len({each.label for each in searched})} products",
        ["photo", "product", "whole picture", "with detection", "all objects with detection"],
        [*(each.cells() for each in answers), *_totals(answers, radius)],
        [
            "Each object with its nearest item and the distance to it; the first object is the answer. (w): the whole "
            "picture, which is an object beside the detected ones.",
            "*: the hash model has learned from gallery photos of this product.",
            f"Left out of the gallery, as the same shot: {', '.join(each.path for each in doubles) or 'nothing'}.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _doubles(photos: Sequence[Photo], gallery: Sequence[Photo]) -> list[Photo]:
    """The photos of the gallery that are a test photo, or a part of one."""
    pairs = [(photo, item) for photo in photos for item in gallery if item.label == photo.label]
    return list(dict.fromkeys(item for photo, item in track(pairs, "comparing shots") if same_shot(photo, item)))


def _ask(
    photos: Sequence[Photo], gallery: Sequence[Photo], unseen: set[str], settings: dict[str, str]
) -> list[Answers]:
    """Enrol the gallery and search the photos, at any distance; ``unseen`` are the products of no training."""
    with (
        serving.service(settings) as process,
        httpx.Client(base_url=process.url, timeout=120, trust_env=False) as client,
    ):
        bits = int(serving.checked(client.get("/index"))["bits"])
        serving.enrol(client, gallery)
        return [
            Answers(
                photo,
                photo.label in unseen,
                serving.recognize(client, photo, detect=False, radius=bits),
                serving.recognize(client, photo, detect=True, radius=bits),
            )
            for photo in photos
        ]


def _totals(answers: Sequence[Answers], radius: int | None) -> list[list[str]]:
    """Right answers: of all photos, of those with unseen products, and within the model's radius."""
    unseen = [each for each in answers if each.is_unseen]
    rows = [("right", answers, None), ("right, products never seen", unseen, None)]
    if radius is not None:
        rows.append((f"right, within {radius} bits", answers, radius))
    totals = []
    for name, some, within in rows:
        whole = sum(each.is_right(each.whole, within) for each in some)
        detected = sum(each.is_right(each.detected, within) for each in some)
        totals.append([name, "", f"{whole} of {len(some)}", f"{detected} of {len(some)}", ""])
    return totals


def _short(each: dict[str, Any]) -> str:
    match = each["matches"][0]
    return f"{match['label']} {match['distance']}{' (w)' if each['is_whole_image'] else ''}"


if __name__ == "__main__":
    sys.exit(main())
