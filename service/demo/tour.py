"""What the demonstration does with a running service: enrol the sample gallery, search held-out pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from service.demo.gallery import Photo
from service.demo.server import ServiceFailed
from service.demo.shelf import ShelfPhoto
from service.images import encode_jpeg
from service.recognizer import intersection_over_union

_BATCH_IMAGES = 16
_COVERS = 0.5  # overlap (IoU) from which a box is that of a pack


@dataclass(frozen=True)
class Finding:
    """One search: what was shown, what was found, and how long the whole request took.

    ``found`` and ``distance`` (bits) are None when nothing lay within the Hamming radius.
    """

    label: str
    found: str | None
    distance: int | None
    took_ms: float

    @property
    def right(self) -> bool:
        """Whether the best match has the right label."""
        return self.found == self.label


def enrol(client: httpx.Client, photos: Sequence[Photo], progress: Callable[[int], None]) -> int:
    """Send labelled photos to ``POST /gallery/batch``; calls ``progress`` with the number done.

    Returns the number of items stored; raises `ServiceFailed` when one was refused.
    """
    stored = 0
    for start in range(0, len(photos), _BATCH_IMAGES):
        part = photos[start : start + _BATCH_IMAGES]
        files = [
            ("images", (f"{start + i}.jpg", encode_jpeg(photo.picture), "image/jpeg")) for i, photo in enumerate(part)
        ]
        answer = _checked(client.post("/gallery/batch", files=files, data={"labels": [p.label for p in part]}))
        for photo, result in zip(part, answer["results"], strict=True):
            if "item" not in result or result["item"] is None:
                raise ServiceFailed(f"the service refused a picture of {photo.label!r}: {result}")
        stored += len(part)
        progress(stored)
    return stored


def search(
    client: httpx.Client, photos: Sequence[Photo], hamming_radius: int, progress: Callable[[int], None]
) -> list[Finding]:
    """Search every photo as a whole picture with ``POST /search``; one `Finding` each, in order."""
    fields = {"top_k": "1", "detect": "false", "hamming_radius": str(hamming_radius)}
    findings = []
    for number, photo in enumerate(photos, start=1):
        data = encode_jpeg(photo.picture)
        started = time.perf_counter()
        answer = _checked(client.post("/search", files={"image": ("query.jpg", data, "image/jpeg")}, data=fields))
        took_ms = (time.perf_counter() - started) * 1000
        matches = answer["objects"][0]["matches"]
        best = matches[0] if matches else {"label": None, "distance": None}
        findings.append(Finding(photo.label, best["label"], best["distance"], took_ms))
        progress(number)
    return findings


def find_on_shelf(client: httpx.Client, shelf: ShelfPhoto, hamming_radius: int) -> list[Finding]:
    """Search the whole shelf photo with one ``POST /search``, whose detector finds the packs.

    Returns:
        A `Finding` each pack: what the object that covers it was taken for; nothing where no object does.
    """
    fields = {"top_k": "1", "max_objects": "50", "whole_image": "false", "hamming_radius": str(hamming_radius)}
    started = time.perf_counter()
    files = {"image": ("shelf.jpg", encode_jpeg(shelf.picture), "image/jpeg")}
    objects = _checked(client.post("/search", files=files, data=fields))["objects"]
    took_ms = (time.perf_counter() - started) * 1000
    findings = []
    for (x1, y1, x2, y2), label in zip(shelf.boxes.tolist(), shelf.labels, strict=True):
        shared = [intersection_over_union((x1, y1, x2, y2), tuple(each["bbox"])) for each in objects]
        best = int(np.argmax(shared))
        matches = objects[best]["matches"] if shared[best] >= _COVERS else []
        found = matches[0] if matches else {"label": None, "distance": None}
        findings.append(Finding(label, found["label"], found["distance"], took_ms))
    return findings


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code >= 400:
        raise ServiceFailed(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:500]}")
    body = answer.json()
    if not isinstance(body, dict):
        raise ServiceFailed(f"{answer.request.url.path} answered something other than a JSON object")
    return body
