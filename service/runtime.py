"""Everything a running service owns, and the one story of its start and stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI

from index_store import UNKNOWN_FINGERPRINT, FingerprintMismatch, GalleryError, GalleryStore
from models.inference import Hasher, ModelError

from .admission import Admission
from .background import Background
from .batching import WorkerPool
from .enrolment import Enroller
from .errors import ModelMismatch, StartupError
from .images import PictureDecoder
from .loading import choose_radius, load_detector, load_hasher, open_store
from .metrics import Metrics
from .pictures import KeptPictures
from .readiness import Canary, Readiness
from .recognizer import Recognizer
from .schemas import Context
from .settings import Settings
from .vision import DetectOptions, Vision

_LOG = logging.getLogger("shitu.service")
_INFERENCE_THREADS = 2  # one decodes while the other one's model keeps the cores busy
_STORAGE_THREADS = 4
_BATCHES = 2  # batch requests whose bodies may be in memory; further ones wait, unread
_BATCHES_WAITING = 8  # enough to keep the two above busy; further ones are refused
_BATCH_RETRY_AFTER_S = 5  # about what one batch takes
_BACKUPS = 2  # each keeps the catalog's log from shrinking for as long as its client takes
_BACKUP_RETRY_AFTER_S = 30
_SWEEP = "picture sweep"
_IMPORT_LOOK_S = 0.02

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class ModelInfo:
    """What the loaded models are, for answers and people."""

    bits: int
    fingerprint: str
    hamming_radius: int
    hasher: str
    detector: str | None


@dataclass
class Runtime:
    """The parts of a running service. Made by :func:`start`, ended by :meth:`stop`."""

    settings: Settings
    metrics: Metrics
    model: ModelInfo
    store: GalleryStore
    mismatch: ModelMismatch | None
    inference: WorkerPool[Vision]
    storage: WorkerPool[None]
    recognizer: Recognizer
    enroller: Enroller
    readiness: Readiness
    background: Background
    admission: Admission
    batch_admission: Admission  # of their own, so that waiting batches never use up the permits of searches
    batch_slots: asyncio.Semaphore
    backup_admission: Admission
    rebuild_error: str | None = None
    stopping: bool = False
    started_at: float = field(default_factory=time.time)

    @property
    def requests_under_way(self) -> int:
        """How many requests are admitted, batches that wait among them."""
        return sum(admission.under_way for admission in self._admissions)

    @property
    def was_ready(self) -> bool:
        """Whether the last probe found the service ready, and nothing has ended that since."""
        return not self.stopping and self.mismatch is None and self.readiness.was_ready

    @property
    def _admissions(self) -> tuple[Admission, ...]:
        return self.admission, self.batch_admission, self.backup_admission

    def require_model(self) -> None:
        """Raise ModelMismatch if the gallery's codes are of another model than the loaded one."""
        if self.mismatch is not None:
            raise self.mismatch

    def context(self, *, form: bool = False) -> Context:
        """Give what the validation of a request has to know."""
        return Context(self.store.bits, form, self.settings.max_metadata_bytes)

    def detect_options(
        self,
        detect: bool,
        threshold: float | None = None,
        max_objects: int | None = None,
        whole_image: bool | None = None,
    ) -> DetectOptions:
        """Fill in the configured values."""
        return DetectOptions(
            detect,
            self.settings.det_threshold if threshold is None else threshold,
            self.settings.max_objects if max_objects is None else max_objects,
            self.settings.whole_image if whole_image is None else whole_image,
        )

    def leave(self) -> None:
        """Say from now on that the service is not ready; requests are still taken."""
        self.stopping = True

    async def stop(self) -> None:
        """Not ready, no admission, finish what was accepted (up to a deadline), snapshot, close."""
        deadline = time.monotonic() + self.settings.drain_timeout_s
        self.leave()
        admissions = self._admissions
        for admission in admissions:
            admission.stop()
        if not all(await asyncio.gather(*(each.drained(self.settings.drain_timeout_s) for each in admissions))):
            _LOG.warning("stopping although %d requests are under way", self.requests_under_way)
        else:
            _LOG.info("no request is under way; the gallery is closed")
        await self.background.stop()
        self.store.interrupt()
        for pool in (self.inference, self.storage):
            left_s = max(1.0, deadline - time.monotonic())
            if not await asyncio.to_thread(pool.close, left_s):
                _LOG.warning("a thread did not end within %.0f s", left_s)
        await asyncio.to_thread(self.store.close)
        _LOG.info("stopped")


def running_in(app: FastAPI) -> Runtime | None:
    """Give what runs in an application; None before its start is over."""
    runtime: Runtime | None = getattr(app.state, "runtime", None)
    return runtime


async def start(settings: Settings, metrics: Metrics, *, adopt: bool = False) -> Runtime:
    """Load the hasher, recover the store, load the detector, warm up, open the queues.

    The hasher comes before the store, since a new gallery takes its bits and fingerprint from it. With ``adopt``, a
    gallery of unknown model takes the hasher's fingerprint, too; any other gallery must be the hasher's.

    Raises:
        StartupError: something cannot be used; nothing is left open.
    """
    try:
        hasher = await _while_paddle_is_imported(asyncio.to_thread(load_hasher, settings))
        radius = choose_radius(settings, hasher.bits, hasher.recommended_radius)
        store, mismatch = await asyncio.to_thread(_open_store, settings, hasher, adopt)
    except (ModelError, GalleryError) as error:
        raise StartupError(str(error)) from error
    try:
        return await _start(settings, metrics, hasher=hasher, hamming_radius=radius, store=store, mismatch=mismatch)
    except BaseException as error:
        await asyncio.to_thread(store.close)
        if isinstance(error, ModelError | GalleryError | OSError):
            raise StartupError(str(error)) from error
        raise


async def _start(
    settings: Settings,
    metrics: Metrics,
    *,
    hasher: Hasher,
    hamming_radius: int,
    store: GalleryStore,
    mismatch: ModelMismatch | None,
) -> Runtime:
    await asyncio.to_thread(store.check_writable)
    detector = await asyncio.to_thread(load_detector, settings)
    pictures = KeptPictures(settings.data_dir / "images", store.has_source, store.check_room)
    await asyncio.to_thread(pictures.remove_torn)
    decoder = PictureDecoder(settings.max_upload_bytes, settings.max_pixels)
    vision = Vision(decoder, hasher, detector, batch_size=settings.hash_batch_size)
    visions = [vision, *(vision.clone() for _ in range(_INFERENCE_THREADS - 1))]
    canary = Canary()
    for each in visions:
        await asyncio.to_thread(canary.run, each)
    inference = WorkerPool("inference", visions)
    storage = WorkerPool[None]("storage", [None] * _STORAGE_THREADS)
    background = Background()
    runtime = Runtime(
        settings=settings,
        metrics=metrics,
        model=ModelInfo(
            hasher.bits,
            hasher.fingerprint,
            hamming_radius,
            hasher.describe(),
            detector.describe() if detector is not None else None,
        ),
        store=store,
        mismatch=mismatch,
        inference=inference,
        storage=storage,
        recognizer=Recognizer(store, settings.rec_nms_threshold),
        enroller=Enroller(store, pictures),
        readiness=Readiness(store, inference, storage, background, canary),
        background=background,
        admission=Admission(settings.max_concurrent_requests),
        batch_admission=Admission(_BATCHES + _BATCHES_WAITING, "batches", _BATCH_RETRY_AFTER_S),
        batch_slots=asyncio.Semaphore(_BATCHES),
        backup_admission=Admission(_BACKUPS, "backups", _BACKUP_RETRY_AFTER_S),
    )
    background.start(_SWEEP, _sweep(storage, pictures))
    _say(runtime)
    return runtime


async def _while_paddle_is_imported(loading: Coroutine[Any, Any, Loaded]) -> Loaded:
    """Wait for what imports Paddle on a thread, and put back what that changes as soon as it does."""
    log_level = logging.getLogger().level
    task = asyncio.create_task(loading)
    while not task.done():
        await asyncio.wait({task}, timeout=_IMPORT_LOOK_S)
        _undo_what_paddle_sets(log_level)
    return task.result()


def _undo_what_paddle_sets(log_level: int) -> None:
    """Put back what Paddle changes for the whole process when it is imported.

    Its signal handlers end the process at SIGTERM at once, and it silences every log below WARNING.
    """
    logging.getLogger().setLevel(log_level)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is not None:
                signal.signal(number, handler)


def _open_store(settings: Settings, hasher: Hasher, adopt: bool) -> tuple[GalleryStore, ModelMismatch | None]:
    try:
        return open_store(settings, hasher.bits, hasher.fingerprint, adopt=adopt), None
    except FingerprintMismatch as error:
        if adopt:
            raise StartupError(f"--adopt is only for galleries of unknown model and equal bits: {error}") from error
        mismatch = ModelMismatch(error.stored or UNKNOWN_FINGERPRINT, hasher.fingerprint, adoptable=error.adoptable)
    return open_store(settings), mismatch


async def _sweep(storage: WorkerPool[None], pictures: KeptPictures) -> None:
    removed = 0
    for shard in pictures.shards():  # one by one, so that a stop need not wait for all
        removed += await storage.run(partial(_sweep_shard, pictures, shard))
    if removed:
        _LOG.info("removed %d kept pictures that no item uses", removed)


def _sweep_shard(pictures: KeptPictures, shard: str, _: None) -> int:
    return pictures.sweep(shard)


def _say(runtime: Runtime) -> None:
    _LOG.info(runtime.model.hasher)
    _LOG.info(runtime.model.detector or "no detector: the whole picture is the object")
    stats = runtime.store.stats()
    _LOG.info("gallery %s: %d items of %d bits", runtime.store.path, stats.items, stats.bits)
    _LOG.info("index: %s serves (%s)", stats.serving, stats.reason)
    if runtime.mismatch is not None:
        _LOG.error("%s", runtime.mismatch)
