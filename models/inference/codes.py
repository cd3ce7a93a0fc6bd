"""From real-valued features to packed binary codes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

BinarizeMethod = Literal["sign", "round"]
BIT_ORDER = "msb-first"
"""The first feature goes into the highest bit of the first byte, as PP-ShiTu packs (``numpy.packbits``)."""


def pack_bits(features: npt.NDArray[np.floating], method: BinarizeMethod = "sign") -> npt.NDArray[np.uint8]:
    """Binarise features and pack eight bits a byte, the first feature in the highest bit.

    Args:
        features: float (n, bits), bits a positive multiple of 8.
        method: ``sign`` sets the bit of every feature above 0 (for tanh outputs; exactly 0 gives 0), ``round`` of every
            one that rounds to 1, that is above 0.5 (for sigmoid outputs; half rounds to even, so 0.5 is 0).
            Both as ``RecPostProcess.Binarize`` of PP-ShiTu. NaN gives 0.

    Returns:
        uint8 (n, bits // 8), C-contiguous.

    Raises:
        ValueError: features is not a float matrix of whole bytes, or the method is unknown.
    """
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(f"features must be a float matrix (n, bits), not {features.dtype} {features.shape}")
    if features.shape[1] == 0 or features.shape[1] % 8:
        raise ValueError(f"the number of bits must be a positive multiple of 8, not {features.shape[1]}")
    if method == "sign":
        return np.packbits(features > 0, axis=1)
    if method == "round":
        return np.packbits(features > 0.5, axis=1)
    raise ValueError(f"binarise method must be 'sign' or 'round', not {method!r}")
