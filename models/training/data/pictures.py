"""Picture files to upright RGB pixels, and a bounded memory of them.

Pillow decodes, as in the service: it gives the same pixels as OpenCV and refuses truncated files, which OpenCV fills
with grey and then trains on.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageOps

from .augment import Image
from .errors import DatasetError


def read_rgb(path: Path) -> Image:
    """Decode a picture file as the service does.

    The EXIF orientation is applied, 16-bit samples are scaled to 8 bit, transparent parts are laid on white, and of
    an animation the first frame counts.

    Returns:
        RGB uint8 (H, W, 3), read-only.

    Raises:
        DatasetError: it cannot be decoded; the text names the file and the reason.
    """
    try:
        with PIL.Image.open(path) as image:
            image.load()
            pixels = np.asarray(_to_rgb(_upright(image)))
    except Exception as error:  # decoders raise whatever a torn file makes them stumble over
        raise DatasetError(f"{path} cannot be decoded as a picture: {_reason(error)}") from error
    pixels.setflags(write=False)
    return pixels


class PictureCache:
    """Decoded pictures, up to a number of bytes.

    Nothing is thrown out: an epoch visits every picture once in a random order, so what was used last comes last,
    and keeping any fixed part serves more reads than keeping the latest. Threads may share one.
    """

    def __init__(self, max_bytes: int) -> None:
        """Begin empty; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._pictures: dict[Hashable, Image] = {}
        self._lock = threading.Lock()

    def read(self, path: Path) -> Image:
        """Give :func:`read_rgb` of a path, from memory where it is there."""
        picture = self._pictures.get(path)
        if picture is None:
            picture = read_rgb(path)
            with self._lock:
                if path not in self._pictures and self.used_bytes + picture.nbytes <= self.max_bytes:
                    self._pictures[path] = picture
                    self.used_bytes += picture.nbytes
        return picture


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF says nothing; the pixels, which are loaded by now, are still good
        return image


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip these to 255 instead of scaling them.
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("it has samples of 32 bit; supported are 8 and 16 bit")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):  # its own text is the path once more
        return "it is not a picture of a known format"
    return str(error) or type(error).__name__
