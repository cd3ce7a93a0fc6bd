"""Whether two pictures are parts of one shot: many galleries hold a photo and the crop of it."""

from __future__ import annotations

import cv2
import numpy as np

from common.datasets import Photo

_FEATURES = 600
_LEAST_RATIO = 0.75  # of the distances to the nearest and the next feature (Lowe, IJCV 2004, section 7.1)
_LEAST_AGREEING = 8
_REPROJECTION_PIXELS = 2.0
_LEAST_SHARED = 0.05  # of the second picture
_MOST_DIFFERENCE = 10.0  # grey levels, in mean; JPEG and a resize make 1 to 3, another shot of the same pack over 20


def same_shot(first: Photo, second: Photo) -> bool:
    """Whether one picture, moved, turned and scaled, has the very pixels of the other where they overlap.

    SIFT features that agree on a similarity lay the first over the second; then the pixels decide.
    """
    a, b = (cv2.imdecode(np.frombuffer(photo.data, np.uint8), cv2.IMREAD_GRAYSCALE) for photo in (first, second))
    matrix = _similarity(a, b)
    if matrix is None:
        return False
    size = b.shape[::-1]
    inside = cv2.warpAffine(np.full(a.shape, 255, np.uint8), matrix, size) == 255
    # Not the rim, whose interpolated pixels may be white from outside of the picture.
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) == 1
    if inside.mean() < _LEAST_SHARED:
        return False
    laid = cv2.warpAffine(a, matrix, size).astype(np.float32)
    return bool(np.abs(laid - b)[inside].mean() < _MOST_DIFFERENCE)


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The similarity (2, 3) from picture a to picture b that the most features agree on, if enough do."""
    sift = cv2.SIFT_create(_FEATURES)
    (points_a, rows_a), (points_b, rows_b) = (sift.detectAndCompute(picture, None) for picture in (a, b))
    if min(len(points_a), len(points_b)) < _LEAST_AGREEING:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(rows_a, rows_b, k=2)
    good = [nearest for nearest, other in pairs if nearest.distance < _LEAST_RATIO * other.distance]
    if len(good) < _LEAST_AGREEING:
        return None
    source = np.float32([points_a[match.queryIdx].pt for match in good])
    target = np.float32([points_b[match.trainIdx].pt for match in good])
    matrix, agreeing = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=_REPROJECTION_PIXELS)
    return matrix if matrix is not None and agreeing.sum() >= _LEAST_AGREEING else None
