"""Pictures to binary codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .codes import BinarizeMethod, pack_bits
from .engine import Device, Engine
from .errors import ModelInvalid
from .manifest import Manifest
from .preprocessing import Image, Preprocessing, Tensor

_MAX_BATCH = 32  # a larger one is no faster on CPU and would hold ever more memory


class Hasher:
    """A binary feature model: RGB pictures in, packed codes out. Not thread-safe; see :meth:`clone`.

    Attributes:
        bits: length of a code.
        fingerprint: identifies the codes; two hashers with the same fingerprint make the same codes.
        recommended_radius: inclusive Hamming radius its trainer measured to be useful, or None.
    """

    def __init__(self, engine: Engine, manifest: Manifest, bits: int, fingerprint: str) -> None:
        """Wrap loaded parts; use :meth:`load`."""
        self._engine = engine
        self._manifest = manifest
        self.bits = bits
        self.fingerprint = fingerprint
        self.recommended_radius = manifest.hamming_radius

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: Device = "auto",
        *,
        threads: int | None = None,
        onednn: bool = True,
        preprocessing: Preprocessing | None = None,
        binarize: BinarizeMethod | None = None,
    ) -> Hasher:
        """Load an exported feature model and run it once.

        Args:
            folder: an export of ``models.export`` or a PP-ShiTu feature model.
            device, threads, onednn: see :meth:`Engine.load`.
            preprocessing, binarize: use these instead of what the folder says.

        Raises:
            ModelNotFound, ModelInvalid, DeviceUnavailable.
        """
        engine = Engine.load(folder, device, threads=threads, onednn=onednn)
        manifest = Manifest.read(folder, "hasher")
        manifest = replace(
            manifest,
            preprocessing=preprocessing or manifest.preprocessing,
            binarize=binarize or manifest.binarize,
            fingerprint=manifest.fingerprint if preprocessing is None and binarize is None else None,
        )
        height, width = manifest.preprocessing.input_size or (224, 224)
        features = _features(engine, np.zeros((1, 3, height, width), np.float32))
        bits = features.shape[1]
        if manifest.bits not in (None, bits):
            raise ModelInvalid(f"{folder}: inference.yml says {manifest.bits} bits, but the graph gives {bits}")
        if bits == 0 or bits % 8:
            raise ModelInvalid(f"{folder}: the graph gives {bits} features; a code needs a multiple of 8")
        if manifest.hamming_radius is not None and manifest.hamming_radius > bits:
            raise ModelInvalid(f"{folder}: hamming_radius {manifest.hamming_radius} is larger than {bits} bits")
        fingerprint = manifest.compute_fingerprint(engine.files, bits)
        if manifest.fingerprint not in (None, fingerprint):
            raise ModelInvalid(
                f"{folder}: the files give fingerprint {fingerprint}, inference.yml says {manifest.fingerprint}; "
                "the folder was changed or copied incompletely: export or copy it again"
            )
        return cls(engine, manifest, bits, fingerprint)

    def clone(self) -> Hasher:
        """Load the same hasher again, for another thread."""
        return Hasher(self._engine.clone(), self._manifest, self.bits, self.fingerprint)

    def describe(self) -> str:
        """Say in one line what was loaded and on what it runs."""
        size = self._manifest.preprocessing.input_size
        pixels = f"{size[0]} x {size[1]}" if size else "any size"
        return f"hasher {self._engine.description}: {self.bits} bits ({self._manifest.binarize}), input {pixels}"

    def hash(self, images: Sequence[Image]) -> npt.NDArray[np.uint8]:
        """Hash pictures.

        Args:
            images: RGB uint8 (H, W, 3), each of any size from 1 x 1.

        Returns:
            uint8 (len(images), bits // 8), the first feature in the highest bit.

        Raises:
            ValueError: a picture has another dtype or shape.
        """
        return pack_bits(self.features(images), self._manifest.binarize)

    def features(self, images: Sequence[Image]) -> Tensor:
        """Give the real-valued features behind the codes: float32 (len(images), bits)."""
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(f"a picture must be RGB uint8 (H, W, 3), not {image.dtype} {image.shape}")
        parts: list[Tensor] = [np.zeros((0, self.bits), np.float32)]
        for start in range(0, len(images), _MAX_BATCH):
            batch = np.stack([self._manifest.preprocessing(image) for image in images[start : start + _MAX_BATCH]])
            parts.append(_features(self._engine, batch))
        return np.concatenate(parts)


def _features(engine: Engine, batch: Tensor) -> Tensor:
    """Run one batch and check that the graph is a feature model at all."""
    outputs = engine.run([batch])
    if len(outputs) != 1 or outputs[0].ndim != 2 or len(outputs[0]) != len(batch):
        shapes = [output.shape for output in outputs]
        raise ModelInvalid(f"{engine.files.graph} is no feature model: for {batch.shape} it gives {shapes}")
    return np.asarray(outputs[0], np.float32)
