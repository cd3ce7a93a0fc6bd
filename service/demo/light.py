"""How drawn surfaces take light: one soft key light from the upper left, a little sky, and a strip-light gleam."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_KEY = np.array([-0.45, -0.5, 0.74], dtype=np.float32)  # x right, y down, z towards the camera


def shade(colour: Floats, normal: Floats, gloss: Floats | float) -> Floats:
    """Light a surface.

    ``colour`` is float32 (..., 3) in 0..255, ``normal`` unit vectors float32 (..., 3) with x right, y down and z
    towards the camera, ``gloss`` 0 (paper) to 1 (glass) per point or for all. Returns float32 (..., 3), unclipped.
    """
    diffuse = np.clip(normal @ _KEY, 0.0, 1.0)
    level = 0.42 + 0.68 * diffuse
    # Two upright strip lights, as in a product photo: what makes cans and bottles look round.
    angle = np.arctan2(normal[..., 0], np.maximum(normal[..., 2], 1e-3))
    tilt = np.exp(-((normal[..., 1] / 0.75) ** 2))
    strips = np.exp(-(((angle + 0.78) / 0.13) ** 2)) + 0.45 * np.exp(-(((angle - 0.95) / 0.1) ** 2))
    gleam = gloss * (strips * tilt + 0.5 * diffuse**24)
    rim = 0.25 * np.asarray(gloss) * np.clip(1.0 - normal[..., 2], 0.0, 1.0) ** 3
    lit = colour * level[..., None]
    lit += (255.0 - lit) * np.clip(0.62 * gleam - rim, -0.6, 0.9)[..., None]
    return np.asarray(lit, dtype=np.float32)
