"""A trial run of a model that has just come: loaded as the service loads it, on a picture, in a process of its own.

Paddle 3.2.2 does not refuse every torn or foreign file: some end the process that loads them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from models.hub.catalogue import Kind
from models.inference import Detector, Hasher, ModelInvalid


def try_out(folder: Path, kind: Kind) -> None:
    """Load a model on the CPU and run it on a drawn picture.

    Raises:
        ModelError: it cannot be loaded, ends the process, or gives what is no feature or box.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_stand_aside) as pool:
        try:
            pool.submit(_RUN[kind], folder).result()
        except BrokenProcessPool as error:
            raise ModelInvalid("Paddle crashes on its files: they are damaged, or no export of Paddle") from error


def _stand_aside() -> None:
    """Leave Ctrl-C to the process that waits, and standard output and error to what it says itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)


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
