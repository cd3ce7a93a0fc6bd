"""Running exported models on Paddle Inference: no training code, no HTTP, no index.

Paddle itself is imported when a model is loaded, not when this package is.
"""

from pathlib import Path

from .codes import BIT_ORDER, BinarizeMethod, pack_bits
from .detector import Detector, select_boxes
from .engine import Device, Engine, ModelFiles, available_cores
from .errors import DeviceUnavailable, ModelError, ModelInvalid, ModelNotFound
from .hasher import Hasher
from .manifest import Manifest
from .preprocessing import DETECTION, RECOGNITION, Preprocessing

STARTER_HASHER = Path(__file__).parent.parent / "starter" / "hasher"
"""Folder of the bundled hash model."""

STARTER_DETECTOR = Path(__file__).parent.parent / "starter" / "detector"
"""Folder of the bundled main-body detector; absent where none is bundled."""

__all__ = [
    "BIT_ORDER",
    "DETECTION",
    "RECOGNITION",
    "STARTER_DETECTOR",
    "STARTER_HASHER",
    "BinarizeMethod",
    "Detector",
    "Device",
    "DeviceUnavailable",
    "Engine",
    "Hasher",
    "Manifest",
    "ModelError",
    "ModelFiles",
    "ModelInvalid",
    "ModelNotFound",
    "Preprocessing",
    "available_cores",
    "pack_bits",
    "select_boxes",
]
