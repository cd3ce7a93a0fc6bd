"""Picture files to codes: decode, detect, hash. No index, no HTTP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference import Detector, Hasher

from .errors import PictureError
from .images import PictureDecoder, Rgb, encode_png
from .timing import StageTimes

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels, x2 and y2 exclusive."""

_MAX_WAITING_BYTES = 256 * 2**20  # decoded crops that may wait for a fuller batch


@dataclass(frozen=True)
class Candidate:
    """A part of a picture that may be an object.

    Attributes:
        box: in pixels of the upright picture.
        det_score: of the detector; None for the whole picture.
    """

    box: Box
    det_score: float | None

    @property
    def is_whole_image(self) -> bool:
        """Whether it is the whole picture and not a detected box."""
        return self.det_score is None


@dataclass(frozen=True)
class DetectOptions:
    """How to look for objects.

    Attributes:
        detect: whether to look for boxes at all.
        threshold: least score of a box, 0 to 1.
        max_objects: at most so many boxes, the best ones.
        whole_image: whether the whole picture is a candidate beside the boxes, as in PP-ShiTu; where there are no
            boxes it is one in any case.
    """

    detect: bool
    threshold: float
    max_objects: int
    whole_image: bool = True


@dataclass(frozen=True)
class CodedPicture:
    """What enrolling needs of a picture.

    Attributes:
        code: packed, ``bits // 8`` bytes.
        hashed: a picture file that decodes to exactly what was hashed: the file itself, or the crop as PNG.
    """

    code: bytes
    hashed: bytes


class Vision:
    """Decoder, detector and hasher as one. Not thread-safe; see :meth:`clone`."""

    def __init__(
        self, decoder: PictureDecoder, hasher: Hasher, detector: Detector | None, *, batch_size: int = 32
    ) -> None:
        """Put the parts together.

        Args:
            decoder: with the limits on pictures.
            hasher: makes the codes.
            detector: finds objects; None: the whole picture is the object.
            batch_size: most crops hashed at a time when many pictures are enrolled.
        """
        self._decoder = decoder
        self._hasher = hasher
        self._detector = detector
        self._batch_size = batch_size

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return self._hasher.bits

    def clone(self) -> Vision:
        """Return another one over the same weights, for another thread."""
        detector = self._detector.clone() if self._detector is not None else None
        return Vision(self._decoder, self._hasher.clone(), detector, batch_size=self._batch_size)

    def decode(self, picture: bytes) -> Rgb:
        """Decode a picture file to the upright pixels that boxes refer to.

        Raises:
            PictureError.
        """
        return self._decoder.decode(picture)

    def find(
        self, picture: bytes, options: DetectOptions, times: StageTimes
    ) -> tuple[list[Candidate], npt.NDArray[np.uint8]]:
        """Find the candidates of one picture with their codes.

        Args:
            picture: a picture file.
            options: how to look for objects.
            times: gets the stages decode, detect and hash.

        Returns:
            The detected boxes by descending score, then the whole picture unless ``options`` leave it out; never
            none at all. Codes uint8 (n, bits // 8).

        Raises:
            PictureError.
        """
        with times.measure("decode"):
            pixels = self._decoder.decode(picture)
        candidates = self._detect(pixels, options, times)
        if options.whole_image or not candidates:
            height, width = pixels.shape[:2]
            candidates.append(Candidate((0, 0, width, height), None))
        with times.measure("hash"):
            codes = self._hasher.hash([_crop(pixels, candidate.box) for candidate in candidates])
        return candidates, codes

    def code(
        self, pictures: Sequence[bytes], options: DetectOptions, times: StageTimes, *, keep: bool = False
    ) -> list[CodedPicture | PictureError]:
        """Code pictures for enrolment, each by its best box if detection is on and finds one, else as a whole.

        Args:
            pictures: picture files.
            options: how to look for objects.
            times: gets the stages decode, detect and hash.
            keep: whether ``hashed`` is needed; it is empty otherwise.

        Returns:
            One outcome a picture, in order: one that is bad does not disturb the others.
        """
        outcomes: list[CodedPicture | PictureError | None] = [None] * len(pictures)
        waiting: list[tuple[int, Rgb, bytes]] = []
        for index, picture in enumerate(pictures):
            try:
                crop, hashed = self._to_enrol(picture, options, times, keep)
            except PictureError as error:
                outcomes[index] = error
                continue
            waiting.append((index, crop, hashed))
            if len(waiting) == self._batch_size or sum(each[1].nbytes for each in waiting) > _MAX_WAITING_BYTES:
                self._hash(waiting, outcomes, times)
        self._hash(waiting, outcomes, times)
        return [outcome for outcome in outcomes if outcome is not None]

    def _to_enrol(self, picture: bytes, options: DetectOptions, times: StageTimes, keep: bool) -> tuple[Rgb, bytes]:
        with times.measure("decode"):
            pixels = self._decoder.decode(picture)
        candidates = self._detect(pixels, options, times)
        if not candidates:
            return pixels, picture if keep else b""
        crop = _crop(pixels, candidates[0].box)
        return crop, encode_png(crop) if keep else b""

    def _detect(self, pixels: Rgb, options: DetectOptions, times: StageTimes) -> list[Candidate]:
        if self._detector is None or not options.detect:
            return []
        with times.measure("detect"):
            rows = self._detector.detect(pixels, options.threshold, options.max_objects)
        height, width = pixels.shape[:2]
        return [Candidate(_whole_pixels(row, width, height), float(row[4])) for row in rows]

    def _hash(
        self,
        waiting: list[tuple[int, Rgb, bytes]],
        outcomes: list[CodedPicture | PictureError | None],
        times: StageTimes,
    ) -> None:
        with times.measure("hash"):
            codes = self._hasher.hash([crop for _, crop, _ in waiting])
        for (index, _, hashed), code in zip(waiting, codes, strict=True):
            outcomes[index] = CodedPicture(code.tobytes(), hashed)
        waiting.clear()


def _whole_pixels(row: npt.NDArray[np.float32], width: int, height: int) -> Box:
    """Round a box outwards to at least one pixel of the picture, also where float32 is coarser than a pixel."""
    x1, y1, x2, y2 = (float(value) for value in row[:4])
    left, top = min(math.floor(x1), width - 1), min(math.floor(y1), height - 1)
    return left, top, max(left + 1, min(math.ceil(x2), width)), max(top + 1, min(math.ceil(y2), height))


def _crop(pixels: Rgb, box: Box) -> Rgb:
    x1, y1, x2, y2 = box
    return np.ascontiguousarray(pixels[y1:y2, x1:x2])
