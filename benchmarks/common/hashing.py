"""The hash model in this process, without the service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.datasets import Photo
from models.inference import STARTER_HASHER, Hasher, ModelError

_BATCH = 32


def load(folder: Path | None) -> Hasher:
    """The model of ``--hasher``, or the bundled one; ends the script with a message when there is none."""
    try:
        return Hasher.load(folder or STARTER_HASHER)
    except ModelError as error:
        print(f"The hash model cannot be loaded: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def codes(hasher: Hasher, photos: Sequence[Photo]) -> npt.NDArray[np.uint8]:
    """Codes of photos as whole pictures, ``uint8 (n, bits / 8)``."""
    parts = [
        hasher.hash([photo.rgb() for photo in photos[start : start + _BATCH]])
        for start in range(0, len(photos), _BATCH)
    ]
    return np.concatenate(parts)
