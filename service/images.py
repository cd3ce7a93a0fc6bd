"""Picture files to upright RGB pixels, with every limit checked before anything is decoded.

Pillow does the decoding: it gives the same pixels as OpenCV, reads the size from the header, and refuses truncated
files, which OpenCV fills with grey. That costs time: it was measured to take 8 to 50 % longer, depending on the file.
"""

from __future__ import annotations

import io
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import EmptyPicture, PictureTooLarge, TooManyPixels, UndecodablePicture, UnsupportedPicture
from .picture_parts import MAX_EXIF_BYTES, check_parts

Rgb = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), C-contiguous, upright."""

MEDIA_TYPES = MappingProxyType(
    {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
)
"""The supported formats, by Pillow's names. Few on purpose: every decoder is exposed to whatever is uploaded."""

_ORIENTATION_TAG = 0x0112
# By Pillow's names; the second one is hexadecimal.
_EXIF_LIMITS = MappingProxyType({"exif": MAX_EXIF_BYTES + 6, "Raw profile type exif": 2 * MAX_EXIF_BYTES})
_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
_KNOWN_OTHERS = (
    (4, (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"), "HEIC"),
    (4, (b"ftypavif", b"ftypavis"), "AVIF"),
    (0, (b"II*\0", b"MM\0*"), "TIFF"),
    (0, (b"%PDF",), "PDF"),
    (0, (b"<svg", b"<?xml"), "SVG or XML"),
    (0, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    (0, (b"8BPS",), "Photoshop"),
)


class PictureDecoder:
    """Decodes picture files within limits. Stateless after construction, so threads may share one."""

    def __init__(self, max_upload_bytes: int, max_pixels: int) -> None:
        """Set the limits.

        Args:
            max_upload_bytes: largest file.
            max_pixels: largest width times height.
        """
        self.max_upload_bytes = max_upload_bytes
        self.max_pixels = max_pixels
        # Pillow has one limit for the whole process; it must not refuse what ours allows.
        if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = max_pixels

    def decode(self, data: bytes) -> Rgb:
        """Decode a picture file to upright RGB.

        The EXIF orientation is applied; 16-bit samples are scaled to 8 bit (their high byte); transparent parts
        are laid on white; of an animation the first frame counts; colour profiles are not applied.

        Args:
            data: a JPEG, PNG, WebP, GIF or BMP file. What it is called does not matter.

        Returns:
            uint8 (H, W, 3).

        Raises:
            EmptyPicture, UnsupportedPicture, UndecodablePicture, PictureTooLarge, TooManyPixels, PictureTooComplex.
        """
        if len(data) > self.max_upload_bytes:
            raise PictureTooLarge(f"the picture has {len(data):,} bytes; at most {self.max_upload_bytes:,} are allowed")
        name = sniff(data)
        if name == "WEBP":
            # Pillow allocates WebP's canvas when it opens the file.
            self._check_size(*_webp_size(data))
        check_parts(name, data)
        try:
            image = Image.open(io.BytesIO(data), formats=[name])
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise TooManyPixels(f"the picture has too many pixels; at most {self.max_pixels:,} are allowed") from error
        except Exception as error:  # decoders raise whatever a hostile file makes them stumble over
            raise _undecodable(name, error) from error
        with image:
            self._check_size(*image.size)
            try:
                image.load()
                pixels = _to_rgb(image)
                return np.ascontiguousarray(_turn_upright(pixels, _orientation(image)))
            except (UnsupportedPicture, MemoryError):
                raise
            except Exception as error:  # as above
                raise _undecodable(name, error) from error

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise TooManyPixels(
                f"the picture is {width} x {height} pixels ({width * height:,}); "
                f"at most {self.max_pixels:,} are allowed"
            )


def sniff(data: bytes) -> str:
    """Tell a picture's format from its first bytes: a key of :data:`MEDIA_TYPES`.

    Raises:
        EmptyPicture: there are no bytes.
        UnsupportedPicture: it is something else.
    """
    if not data:
        raise EmptyPicture("the picture is empty: it has no bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    others = (name for start, heads, name in _KNOWN_OTHERS if data[start : start + 16].startswith(heads))
    what = next(others, None)
    raise UnsupportedPicture(
        f"{f'this looks like {what}' if what else 'these bytes are not a picture'}; "
        f"supported are {', '.join(MEDIA_TYPES.values())}"
    )


def encode_png(pixels: Rgb) -> bytes:
    """Write uint8 RGB (H, W, 3) as a PNG file, which keeps every pixel."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def encode_jpeg(pixels: Rgb) -> bytes:
    """Write uint8 RGB (H, W, 3) as a JPEG file of good quality."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _undecodable(name: str, error: Exception) -> UndecodablePicture:
    # Pillow's own words may quote an object's address; the kind of fault is what helps.
    reason = "it is cut short" if "truncated" in str(error).lower() else "its data are corrupt"
    return UndecodablePicture(f"the picture begins like a {name} file, but cannot be decoded: {reason}")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read width and height of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    chunk, payload = data[12:16], data[20:30]
    if len(payload) == 10:
        if chunk == b"VP8X":
            return int.from_bytes(payload[4:7], "little") + 1, int.from_bytes(payload[7:10], "little") + 1
        if chunk == b"VP8 " and payload[3:6] == b"\x9d\x01\x2a":
            width, height = payload[6:8], payload[8:10]
            return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
        if chunk == b"VP8L" and payload[0] == 0x2F:
            both = int.from_bytes(payload[1:5], "little")
            return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    raise UndecodablePicture("the picture begins like a WEBP file, but cannot be decoded: its header is corrupt")


def _to_rgb(image: Image.Image) -> Rgb:
    if image.mode.startswith("I;16"):
        # Pillow would clip these to 255 instead of scaling them.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UnsupportedPicture("the picture has samples of 32 bit; supported are 8 and 16 bit")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return np.asarray(white)
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    # Reading a larger one can take gigabytes: each of its entries may claim the same bytes.
    if any(len(image.info.get(key) or "") > limit for key, limit in _EXIF_LIMITS.items()):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF says nothing; the pixels are still good
        return 1
    return value if isinstance(value, int) else 1


def _turn_upright(pixels: Rgb, orientation: int) -> Rgb:
    """Undo an EXIF orientation (1 to 8); other values are ignored."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
