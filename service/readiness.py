"""Whether the service can do its work now: asked for real, not remembered."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from index_store import DiskFull, GalleryError, GalleryStore

from .background import Background
from .batching import WorkerPool
from .errors import NotReady
from .timing import StageTimes
from .vision import DetectOptions, Vision

_LOG = logging.getLogger("shitu.readiness")
_FRESH_S = 1.0  # probes that come together share one check
_TIMEOUT_S = 15.0
_EVERYTHING = DetectOptions(detect=True, threshold=0.0, max_objects=1)


@dataclass(frozen=True)
class Failure:
    """What is wrong: a stable code and a sentence; ``fatal``: the service is not ready because of it."""

    code: str
    detail: str
    fatal: bool = True


def fatal(failures: Mapping[str, Failure | None]) -> Iterator[Failure]:
    """Give those that keep a service from being ready."""
    return (failure for failure in failures.values() if failure is not None and failure.fatal)


class Canary:
    """A fixed picture whose code is known since the start; a model that works gives it again."""

    def __init__(self) -> None:
        """Draw the picture."""
        rows, columns = np.mgrid[0:96, 0:128]
        pixels = np.stack([rows * 2, columns * 2, (rows ^ columns) * 2], axis=2).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        self._picture = stream.getvalue()
        self._expected: npt.NDArray[np.uint8] | None = None

    def run(self, vision: Vision) -> bool:
        """Decode, detect and hash the picture; tell whether the whole picture's code is what it was first."""
        _, codes = vision.find(self._picture, _EVERYTHING, StageTimes())
        code = codes[-1]
        if self._expected is None:
            self._expected = code
        # Threads may add floats in another order, which can turn a bit whose feature is next to zero.
        return int(np.unpackbits(code ^ self._expected).sum()) <= vision.bits // 32


class Readiness:
    """Checks models, index, storage and background tasks."""

    def __init__(
        self,
        store: GalleryStore,
        inference: WorkerPool[Vision],
        storage: WorkerPool[None],
        background: Background,
        canary: Canary,
    ) -> None:
        """Look after these parts."""
        self._store = store
        self._inference = inference
        self._storage = storage
        self._background = background
        self._canary = canary
        self._lock = asyncio.Lock()
        self._failures: Mapping[str, Failure | None] = {}
        self._checked_at = -_FRESH_S

    @property
    def was_ready(self) -> bool:
        """Whether the last check found nothing that is fatal; the start of a service is the first."""
        return not any(fatal(self._failures))

    async def check(self) -> Mapping[str, Failure | None]:
        """Check every part: its failure by name, None if it is well."""
        async with self._lock:
            if time.monotonic() - self._checked_at >= _FRESH_S:
                failures = {
                    "models": await self._check_models(),
                    "storage": await self._check_storage(),
                    "background": self._check_background(),
                    "disk": await self._check_disk(),
                }
                _log_changes(self._failures, failures)
                self._failures = failures
                self._checked_at = time.monotonic()
            return self._failures

    async def _check_models(self) -> Failure | None:
        if not self._inference.alive:
            return Failure("inference_failed", "an inference thread has ended")
        try:
            right = await asyncio.wait_for(self._inference.run(self._canary.run, urgent=True), _TIMEOUT_S)
        except asyncio.TimeoutError:
            return Failure("inference_stuck", f"the canary picture got no code within {_TIMEOUT_S:.0f} s")
        except Exception:  # whatever a broken model raises, the answer is the same: not ready
            _LOG.exception("the canary inference failed")
            return Failure("inference_failed", "the canary picture could not be coded; the log says why")
        return None if right else Failure("inference_failed", "the canary picture got another code than at start")

    async def _check_storage(self) -> Failure | None:
        if not self._storage.alive:
            return Failure("storage_unavailable", "a storage thread has ended")
        try:
            await asyncio.wait_for(self._storage.run(lambda _: self._store.check_writable(), urgent=True), _TIMEOUT_S)
        except asyncio.TimeoutError:
            return Failure("storage_unavailable", f"the data folder did not answer within {_TIMEOUT_S:.0f} s")
        except GalleryError as error:
            return Failure("storage_unavailable", str(error))
        return None

    async def _check_disk(self) -> Failure | None:
        """Tell whether there is room to enrol; searches and removals need none, so the service is ready anyway."""
        try:
            await asyncio.wait_for(self._storage.run(lambda _: self._store.check_room(), urgent=True), _TIMEOUT_S)
        except DiskFull as error:
            return Failure("disk_full", str(error), fatal=False)
        except (asyncio.TimeoutError, GalleryError, NotReady):
            return None  # the check of the storage says so
        return None

    def _check_background(self) -> Failure | None:
        failures = self._background.failures
        error = self._store.background_error
        if error is not None and not isinstance(error, DiskFull):  # a snapshot put off: the catalog has everything
            failures["index"] = f"{type(error).__name__}: {error}"
        if failures:
            return Failure("background_failed", "; ".join(f"{name}: {text}" for name, text in failures.items()))
        return None


def _log_changes(before: Mapping[str, Failure | None], now: Mapping[str, Failure | None]) -> None:
    """Log what has begun or ceased to fail: the requests of probes are not logged."""
    for name, failure in now.items():
        former = before.get(name)
        if failure is None and former is not None:
            _LOG.info("the check %s is passed again", name)
        elif failure is not None and (former is None or former.code != failure.code):
            _LOG.warning("the check %s fails: %s: %s", name, failure.code, failure.detail)
