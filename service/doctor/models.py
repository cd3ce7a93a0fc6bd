"""The models: whether they load, what they are, and whether they code a picture; in a process of its own.

A library that crashes takes its process with it. That is to be a line of the report, not its end.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

from service.child_process import ChildFailed, run_in_child
from service.settings import Settings

from .data_folder import catalog_of
from .findings import Check, Finding

_TIMEOUT_S = 180.0
_INSTALL = "pip install 'shitu-hash[cpu]'"


def checks(settings: Settings) -> list[Check]:
    """Give the checks of this module."""
    return [Check("models", lambda: _models(settings))]


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        yield from run_in_child(_TIMEOUT_S, examine_models, settings)
    except ChildFailed as error:
        remedy = (
            f"look at the machine's load and memory; install the tested versions: {_INSTALL}; SHITU_ENABLE_MKLDNN=0"
        )
        yield Finding("models", "fail", f"the process that loaded the models {error}", remedy)


def examine_models(settings: Settings) -> list[Finding]:
    """Load the models, code a picture twice, and compare with the gallery. Runs in the other process."""
    try:
        import paddle
    except Exception as error:  # whatever a broken installation raises
        return [Finding("paddle", "fail", f"cannot be imported: {error}", f"install it again: {_INSTALL}")]
    return [_device(paddle, settings.device), *_loaded(settings)]


def _device(paddle: object, wanted: str) -> Finding:
    built = bool(paddle.device.is_compiled_with_cuda())  # type: ignore[attr-defined]
    count = int(paddle.device.cuda.device_count()) if built else 0  # type: ignore[attr-defined]
    told = f"Paddle is built {'with' if built else 'without'} CUDA; {count} devices; SHITU_DEVICE is {wanted}"
    if wanted == "gpu" and not count:
        return Finding("gpu", "fail", told, "SHITU_DEVICE=auto, or install paddlepaddle-gpu where there is a GPU")
    if built and not count:
        return Finding(
            "gpu", "warn", f"{told}: the CPU is used", "give the container the GPU, or install the CPU build"
        )
    return Finding("gpu", "ok", told)


def _loaded(settings: Settings) -> Iterator[Finding]:
    from models.inference import ModelError
    from service.errors import StartupError
    from service.loading import load_detector, load_hasher

    try:
        hasher = load_hasher(settings)
    except (ModelError, StartupError) as error:
        yield Finding("feature model", "fail", str(error), "name another SHITU_HASHER_DIR")
        return
    yield Finding("feature model", "ok", f"{hasher.describe()}, model {hasher.fingerprint}")
    yield from _compared(settings, hasher.bits, hasher.fingerprint)
    try:
        detector = load_detector(settings)
    except ModelError as error:
        yield Finding("detector", "fail", str(error), "name another SHITU_DETECTOR_DIR, or an empty one for none")
        return
    yield Finding("detector", "ok", detector.describe() if detector is not None else "none: the whole picture counts")
    yield _inference(settings, hasher, detector)


def _compared(settings: Settings, bits: int, fingerprint: str) -> Iterator[Finding]:
    facts = catalog_of(settings.data_dir.absolute())
    if facts is None:
        return  # the check of the catalog says why
    if (facts.bits, facts.fingerprint) == (bits, fingerprint):
        yield Finding("model of the gallery", "ok", "the feature model made its codes")
    else:
        text = f"its codes have {facts.bits} bits and are of model {facts.fingerprint}, not {fingerprint} ({bits} bits)"
        remedy = "use the model that made them, or `shitu gallery rehash`; an import: once `shitu serve --adopt`"
        yield Finding("model of the gallery", "fail", text, remedy)


def _inference(settings: Settings, hasher: object, detector: object) -> Finding:
    from service.images import PictureDecoder
    from service.readiness import Canary
    from service.vision import Vision

    decoder = PictureDecoder(settings.max_upload_bytes, settings.max_pixels)
    vision = Vision(decoder, hasher, detector, batch_size=settings.hash_batch_size)  # type: ignore[arg-type]
    canary = Canary()
    canary.run(vision)  # the first one warms up
    start = time.perf_counter()
    right = canary.run(vision)
    took_ms = (time.perf_counter() - start) * 1000
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if not right:
        text = "the same picture got two different codes"
        return Finding("inference", "fail", text, f"install the tested versions: {_INSTALL}")
    return Finding("inference", "ok", f"{took_ms:.0f} ms for a small picture; {memory:,.0f} MiB with the models")
