"""Models and the gallery as the settings ask for them, and what follows from the two together."""

from __future__ import annotations

from index_store import GalleryNotFound, GalleryStore, open_gallery
from models.inference import Detector, Hasher

from .errors import StartupError
from .settings import Settings


def load_hasher(settings: Settings) -> Hasher:
    """Load the feature model.

    Raises:
        ModelError: it cannot be loaded.
        StartupError: its codes are of another length than the configuration expects.
    """
    hasher = Hasher.load(
        settings.hasher_dir,
        settings.device,
        threads=settings.cpu_threads,
        onednn=settings.enable_mkldnn,
        preprocessing=settings.rec_preprocess,
        binarize=settings.binarize,
    )
    if settings.expected_bits not in (None, hasher.bits):
        raise StartupError(
            f"the feature model in {settings.hasher_dir} makes codes of {hasher.bits} bits, "
            f"the configuration expects {settings.expected_bits}"
        )
    return hasher


def load_detector(settings: Settings) -> Detector | None:
    """Load the detector; None if the settings name none.

    Raises:
        ModelError: it cannot be loaded.
    """
    if settings.detector_dir is None:
        return None
    return Detector.load(
        settings.detector_dir,
        settings.device,
        threads=settings.cpu_threads,
        onednn=settings.enable_mkldnn,
        preprocessing=settings.det_preprocess,
    )


def open_store(
    settings: Settings, bits: int | None = None, fingerprint: str | None = None, *, adopt: bool = False
) -> GalleryStore:
    """Open the gallery; with ``bits``, make it if there is none. ``adopt`` is as in ``open_gallery``.

    Raises:
        index_store.GalleryError: see ``open_gallery``.
    """
    return open_gallery(
        settings.data_dir,
        bits,
        settings.index_method,
        fingerprint,
        threads=settings.cpu_threads,
        options=settings.index_options,
        adopt=adopt,
        min_free_bytes=settings.min_free_bytes,
    )


def open_or_make_store(settings: Settings, bits: int, fingerprint: str) -> GalleryStore:
    """Open the gallery whatever codes it holds; if there is none, make one for codes of ``bits`` bits of a model.

    Raises:
        index_store.GalleryError: see ``open_gallery``.
    """
    try:
        return open_store(settings)
    except GalleryNotFound:
        return open_store(settings, bits, fingerprint)


def choose_radius(settings: Settings, bits: int, recommended: int | None) -> int:
    """Take the configured radius, else the model's own, else PP-ShiTu's 100 of 512 bits in proportion.

    Args:
        settings: may say a radius.
        bits: length of the codes.
        recommended: what the model folder says, if anything.

    Raises:
        StartupError: the configured radius is larger than a code.
    """
    if settings.hamming_radius is None:
        return recommended if recommended is not None else round(100 / 512 * bits)
    if settings.hamming_radius > bits:
        raise StartupError(
            f"hamming_radius {settings.hamming_radius} is larger than the {bits} bits of the model's codes"
        )
    return settings.hamming_radius
