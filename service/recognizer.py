"""Candidates to recognised objects: search each by its code, then drop what overlaps a better one. No HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index_store import GalleryStore, Match

from .timing import StageTimes
from .vision import Box, Candidate


@dataclass(frozen=True)
class Query:
    """What counts as a match.

    Attributes:
        hamming_radius: greatest distance, inclusive, in bits.
        top_k: most matches an object.
        label: only items with exactly this label; None: all.
        explain: also find the closest item outside the radius.
        nprobe: inverted lists that an IVF index looks at; None: its default.
        ef_search: candidates that an HNSW32 index keeps; None: its default.
    """

    hamming_radius: int
    top_k: int
    label: str | None = None
    explain: bool = False
    nprobe: int | None = None
    ef_search: int | None = None


@dataclass(frozen=True)
class RecognizedObject:
    """One object with its matches, best first.

    Attributes:
        candidate: where it is; None if the query was a code.
        code: packed.
        matches: by (distance, id).
        truncated: more items lie within the radius than ``top_k``.
        nearest_outside: the closest item outside the radius, if the query asked for it.
    """

    candidate: Candidate | None
    code: bytes
    matches: list[Match]
    truncated: bool
    nearest_outside: Match | None = None

    @property
    def best_distance(self) -> int | None:
        """Distance of the best match."""
        return self.matches[0].distance if self.matches else None


@dataclass(frozen=True)
class DroppedObject:
    """An object that another one made superfluous, and why."""

    object: RecognizedObject
    reason: str


@dataclass(frozen=True)
class Recognition:
    """What was found: ``objects`` with matches by distance, then those without; ``dropped`` ones apart."""

    objects: list[RecognizedObject]
    dropped: list[DroppedObject]


class Recognizer:
    """Searches a gallery for candidates. Threads may share it."""

    def __init__(self, store: GalleryStore, nms_threshold: float) -> None:
        """Search ``store``.

        Args:
            store: the gallery.
            nms_threshold: overlap (IoU) above which the worse of two recognised objects is dropped.
        """
        self._store = store
        self._nms_threshold = nms_threshold

    def recognize(
        self,
        candidates: Sequence[Candidate | None],
        codes: npt.NDArray[np.uint8],
        query: Query,
        times: StageTimes,
    ) -> Recognition:
        """Search the codes and keep the best of every group of overlapping objects.

        Of two objects that overlap, the one with the smaller distance stays, of equal ones the one with the
        better detection score. (The reference sorts by score and so keeps the worst Hamming match.) Objects
        without a match neither drop others nor are dropped.

        Args:
            candidates: what each code is of; None for a bare code.
            codes: uint8 (n, bits // 8).
            query: what counts as a match.
            times: gets the stage search.

        Raises:
            index_store.GalleryError.
        """
        with times.measure("search"):
            effort = {"nprobe": query.nprobe, "ef_search": query.ef_search}
            results = self._store.search(codes, query.hamming_radius, query.top_k, query.label, **effort)
            outside: Sequence[Match | None] = [None] * len(results)
            if query.explain:
                outside = self._store.nearest(codes, query.hamming_radius, query.label, **effort)
        objects = [
            RecognizedObject(candidate, code.tobytes(), result.matches, result.truncated, nearest)
            for candidate, code, result, nearest in zip(candidates, codes, results, outside, strict=True)
        ]
        return drop_overlapping(objects, self._nms_threshold)


def drop_overlapping(objects: Sequence[RecognizedObject], threshold: float) -> Recognition:
    """Keep the best of every group of overlapping objects; see :meth:`Recognizer.recognize`."""
    matched = [each for each in objects if each.matches]
    matched.sort(key=lambda each: (each.matches[0].distance, -_score(each)))
    unmatched = [each for each in objects if not each.matches]
    unmatched.sort(key=lambda each: -_score(each))
    kept: list[RecognizedObject] = []
    dropped: list[DroppedObject] = []
    for each in matched:
        reason = _reason_to_drop(each, kept, threshold)
        if reason is None:
            kept.append(each)
        else:
            dropped.append(DroppedObject(each, reason))
    return Recognition(kept + unmatched, dropped)


def _reason_to_drop(each: RecognizedObject, kept: Sequence[RecognizedObject], threshold: float) -> str | None:
    for index, better in enumerate(kept):
        if each.candidate is None or better.candidate is None:
            continue
        overlap = intersection_over_union(each.candidate.box, better.candidate.box)
        if overlap > threshold:
            return (
                f"overlap: IoU {overlap:.3f} with objects[{index}], whose best match is at distance "
                f"{better.best_distance}, not {each.best_distance}"
            )
    return None


def _score(each: RecognizedObject) -> float:
    score = each.candidate.det_score if each.candidate is not None else None
    return score if score is not None else 0.0


def intersection_over_union(a: Box, b: Box) -> float:
    """Give the area that two boxes share as a share of what they cover together, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
