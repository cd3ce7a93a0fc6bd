"""What the hash model is measured against: a perceptual hash, colour histograms, float embeddings and their sign."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from common.datasets import Photo

Floats = npt.NDArray[np.float32]

PHASH_BYTES = 8
_GRID = 2
_HSV_BINS = (8, 4, 4)
HISTOGRAM_BYTES = 4 * _GRID * _GRID * _HSV_BINS[0] * _HSV_BINS[1] * _HSV_BINS[2]


def phash(photos: Sequence[Photo]) -> npt.NDArray[np.uint8]:
    """The usual perceptual hash: signs of the 8x8 lowest frequencies about their median; packed (n, 8)."""
    bits = []
    for photo in photos:
        grey = cv2.cvtColor(photo.rgb(), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        low = cv2.dct(small)[:8, :8].ravel()
        bits.append(low > np.median(low))
    return np.packbits(np.array(bits), axis=1)


def colour_histograms(photos: Sequence[Photo]) -> Floats:
    """Histograms of hue, saturation and value (8x4x4 bins) in a 2x2 grid; unit vectors (n, 512).

    The square roots of the shares are compared (Hellinger): far better here than the shares themselves.
    """
    rows = []
    for photo in photos:
        square = cv2.resize(photo.rgb(), (256, 256), interpolation=cv2.INTER_AREA)
        hsv, half = cv2.cvtColor(square, cv2.COLOR_RGB2HSV), 256 // _GRID
        cells = [
            cv2.calcHist(
                [np.ascontiguousarray(hsv[y : y + half, x : x + half])],
                [0, 1, 2],
                None,
                list(_HSV_BINS),
                [0, 180, 0, 256, 0, 256],
            ).ravel()
            for y in range(0, 256, half)
            for x in range(0, 256, half)
        ]
        rows.append(np.sqrt(np.concatenate(cells) / 256**2))
    return np.array(rows, dtype=np.float32)


def unit(features: Floats) -> Floats:
    """Rows scaled to length one."""
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32)


def centred_sign(features: Floats, gallery: Floats) -> npt.NDArray[np.uint8]:
    """One bit a feature: whether it is above its mean over the gallery; packed (n, d / 8).

    The features of a network that ends in ReLU are never negative, so their bare sign says nothing.
    """
    return np.packbits(features > gallery.mean(axis=0), axis=1)
