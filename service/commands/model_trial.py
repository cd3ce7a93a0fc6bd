"""A trial run of a model that has just come: loaded as the service loads it, on a picture, in a process of its own.

Paddle 3.2.2 does not refuse every torn or foreign file: some end the process that loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.hub.catalogue import Kind
from models.inference import Detector, Hasher, ModelInvalid
from service.child_process import ChildFailed, run_in_child

_TIMEOUT_S = 180.0


def try_out(folder: Path, kind: Kind) -> None:
    """Load a model on the CPU and run it on a drawn picture.

    Raises:
        ModelError: it cannot be loaded, ends the process or keeps it busy, or gives what is no feature or box.
    """
    try:
        run_in_child(_TIMEOUT_S, _RUN[kind], folder)
    except ChildFailed as error:
        raise ModelInvalid(f"Paddle {error} on its files: they are damaged, or no export of Paddle") from error


def _run_hasher(folder: Path) -> None:
    features = Hasher.load(folder, "cpu").features([_picture()])
    if not np.isfinite(features).all() or not features.any():
        raise ModelInvalid("it gives features that are no numbers, or nothing but zeros")


def _run_detector(folder: Path) -> None:
    Detector.load(folder, "cpu").detect(_picture(), threshold=0.0, max_objects=10)


_RUN: dict[Kind, Callable[[Path], None]] = {"hasher": _run_hasher, "detector": _run_detector}


def _picture() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Draw a picture in which something changes in both directions and in each colour."""
    y, x = np.mgrid[:120, :160]
    return np.stack([(x * 2) % 256, (y * 3) % 256, (x * y) % 256], axis=2).astype(np.uint8)
