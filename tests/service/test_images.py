"""Decoding: the right pixels from odd files, the right refusal of bad ones, limits before decoding."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from service.errors import (
    EmptyPicture,
    PictureTooLarge,
    TooManyPixels,
    UndecodablePicture,
    UnsupportedPicture,
)
from service.images import MEDIA_TYPES, PictureDecoder, encode_png, sniff

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def decoder() -> PictureDecoder:
    return PictureDecoder(20 * 2**20, 50_000_000)


@pytest.fixture(scope="module")
def photo(photos: dict[str, np.ndarray]) -> np.ndarray:
    return photos["chelsea"][:240, :320]


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """Write a PNG by hand, for kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def filter_rows(samples: np.ndarray) -> bytes:
    """Put PNG's filter byte 0 before each row of big-endian samples."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_files_give_their_pixels(decoder: PictureDecoder, photo: np.ndarray, encode: Any, kind: str) -> None:
    decoded = decoder.decode(encode(photo, kind))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, photo)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_equal_what_opencv_decodes(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, kind: str
) -> None:
    file = encode(photo, kind, quality=90)
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(decoder.decode(file), expected)


def test_lossless_webp(decoder: PictureDecoder, photo: np.ndarray, encode: Any) -> None:
    np.testing.assert_array_equal(decoder.decode(encode(photo, "WEBP", lossless=True)), photo)


def test_progressive_jpeg(decoder: PictureDecoder, photo: np.ndarray, encode: Any) -> None:
    decoded = decoder.decode(encode(photo, "JPEG", quality=95, progressive=True))
    assert np.abs(decoded.astype(int) - photo).mean() < 3


def test_cmyk_jpeg_becomes_rgb(decoder: PictureDecoder, photo: np.ndarray, encode: Any) -> None:
    cmyk = Image.fromarray(photo).convert("CMYK")
    decoded = decoder.decode(encode(cmyk, "JPEG", quality=95))
    assert decoded.shape == photo.shape
    assert np.abs(decoded.astype(int) - photo).mean() < 6


def test_sixteen_bit_grey_png_is_scaled_not_clipped(decoder: PictureDecoder) -> None:
    samples = np.linspace(0, 65535, 256 * 4).astype(">u2").reshape(4, 256)
    decoded = decoder.decode(png(256, 4, 16, 0, filter_rows(samples)))
    for channel in range(3):
        np.testing.assert_array_equal(decoded[:, :, channel], (samples // 256).astype(np.uint8))


def test_sixteen_bit_rgb_png_is_scaled(decoder: PictureDecoder) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    decoded = decoder.decode(png(7, 5, 16, 2, filter_rows(samples)))
    np.testing.assert_array_equal(decoded, (samples // 256).astype(np.uint8))


def test_sixteen_bit_grey_with_alpha_is_laid_on_white(decoder: PictureDecoder) -> None:
    samples = np.zeros((2, 2, 2), ">u2")
    samples[0] = 65535, 65535  # white, opaque
    samples[1] = 0, 0  # black, transparent
    decoded = decoder.decode(png(2, 2, 16, 4, filter_rows(samples)))
    np.testing.assert_array_equal(decoded, np.full((2, 2, 3), 255, np.uint8))


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_bilevel_become_three_equal_channels(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, mode: str
) -> None:
    image = Image.fromarray(photo).convert(mode)
    decoded = decoder.decode(encode(image, "PNG"))
    expected = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decoded, np.stack([expected] * 3, axis=2))


def test_transparent_parts_are_laid_on_white(decoder: PictureDecoder, photo: np.ndarray, encode: Any) -> None:
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[:, 100:] = 128
    alpha[:, 200:] = 255
    decoded = decoder.decode(encode(np.dstack([photo, alpha]), "PNG"))
    weight = alpha[:, :, None] / 255
    expected = photo * weight + 255 * (1 - weight)
    assert np.abs(decoded - expected).max() <= 1
    np.testing.assert_array_equal(decoded[:, 200:], photo[:, 200:])
    assert (decoded[:, :100] == 255).all()


def test_grey_with_alpha(decoder: PictureDecoder, encode: Any) -> None:
    image = Image.merge("LA", [Image.new("L", (4, 2), 10), Image.new("L", (4, 2), 0)])
    assert (decoder.decode(encode(image, "PNG")) == 255).all()


def test_palette(decoder: PictureDecoder, photo: np.ndarray, encode: Any) -> None:
    image = Image.fromarray(photo).quantize(32)
    np.testing.assert_array_equal(decoder.decode(encode(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(decoder: PictureDecoder, encode: Any, kind: str) -> None:
    image = Image.new("P", (6, 4), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (3, 0, 6, 4))
    decoded = decoder.decode(encode(image, kind, transparency=0))
    assert (decoded[:, :3] == 255).all()
    assert (decoded[:, 3:] == (0, 0, 200)).all()


def test_rgb_png_with_a_transparent_colour(decoder: PictureDecoder, encode: Any) -> None:
    image = Image.new("RGB", (6, 4), (1, 2, 3))
    image.paste((9, 9, 9), (3, 0, 6, 4))
    decoded = decoder.decode(encode(image, "PNG", transparency=(1, 2, 3)))
    assert (decoded[:, :3] == 255).all()
    assert (decoded[:, 3:] == 9).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(decoder: PictureDecoder, encode: Any, kind: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(file)).n_frames == 3
    assert (decoder.decode(file) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = encode(photo, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB"))
    np.testing.assert_array_equal(decoder.decode(file), expected)
    upright = orientation < 5
    assert expected.shape[:2] == (photo.shape[:2] if upright else photo.shape[1::-1])


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_impossible_orientations_are_ignored(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(decoder.decode(encode(photo, "PNG", exif=exif)), photo)


def test_broken_exif_is_ignored(decoder: PictureDecoder, photo: np.ndarray, encode: Any) -> None:
    file = encode(photo, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(decoder.decode(file), photo)


@pytest.mark.parametrize("size", [(4000, 100), (100, 4000), (1, 1), (1, 700), (700, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_extreme_shapes(decoder: PictureDecoder, encode: Any, size: tuple[int, int], kind: str) -> None:
    decoded = decoder.decode(encode(Image.new("RGB", size, (200, 10, 10)), kind))
    assert decoded.shape == (size[1], size[0], 3)
    assert np.abs(decoded.astype(int) - (200, 10, 10)).max() < 12


def test_no_bytes(decoder: PictureDecoder) -> None:
    with pytest.raises(EmptyPicture):
        decoder.decode(b"")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"hello, I am a text", "not a picture"),
        (b"BM is how this text begins, but it is no bitmap", "not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(100), "AVIF"),
        (b"II*\0" + bytes(100), "TIFF"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not a picture"),
        (b"\xff", "not a picture"),
    ],
)
def test_other_types_are_refused_with_the_supported_ones(decoder: PictureDecoder, data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedPicture, match=named) as caught:
        decoder.decode(data)
    assert all(media_type in str(caught.value) for media_type in MEDIA_TYPES.values())


@pytest.mark.parametrize("kind", list(MEDIA_TYPES))
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_files_are_refused(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, kind: str, share: float
) -> None:
    file = encode(photo, kind)
    with pytest.raises(UndecodablePicture, match=kind):
        decoder.decode(file[: int(len(file) * share)])


@pytest.mark.parametrize("kind", list(MEDIA_TYPES))
@pytest.mark.parametrize("length", range(2, 64, 5))
def test_files_cut_within_the_header_are_refused(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, kind: str, length: int
) -> None:
    with pytest.raises((UndecodablePicture, UnsupportedPicture)):
        decoder.decode(encode(photo, kind)[:length])


@pytest.mark.parametrize("kind", list(MEDIA_TYPES))
def test_garbled_files_never_raise_anything_else(
    decoder: PictureDecoder, photo: np.ndarray, encode: Any, kind: str
) -> None:
    generator = np.random.default_rng(3)
    file = np.frombuffer(encode(photo[:60, :80], kind), np.uint8)
    for _ in range(150):
        garbled = file.copy()
        where = generator.integers(0, len(file), generator.integers(1, 12))
        garbled[where] = generator.integers(0, 256, len(where))
        try:
            decoded = decoder.decode(garbled.tobytes())
        except (UndecodablePicture, UnsupportedPicture, TooManyPixels):
            continue
        assert decoded.dtype == np.uint8
        assert decoded.ndim == 3


def test_too_many_bytes_are_refused_unread(photo: np.ndarray, encode: Any) -> None:
    file = encode(photo, "PNG")
    assert PictureDecoder(len(file), 10**6).decode(file).shape == photo.shape
    with pytest.raises(PictureTooLarge):
        PictureDecoder(len(file) - 1, 10**6).decode(file)


@pytest.mark.parametrize("kind", list(MEDIA_TYPES))
def test_the_pixel_limit_is_inclusive(photo: np.ndarray, encode: Any, kind: str) -> None:
    file = encode(photo, kind)
    pixels = photo.shape[0] * photo.shape[1]
    assert PictureDecoder(10**7, pixels).decode(file).shape == photo.shape
    with pytest.raises(TooManyPixels, match=f"{pixels:,}"):
        PictureDecoder(10**7, pixels - 1).decode(file)


@pytest.mark.parametrize("side", [7_500, 10_000, 30_000])
def test_bombs_are_refused_from_their_headers(decoder: PictureDecoder, side: int) -> None:
    # Below, between and above the two sizes at which Pillow itself warns and raises.
    with pytest.raises(TooManyPixels):
        decoder.decode(png(side, side, 8, 2, b"\0" * 100))


def test_a_large_webp_canvas_is_refused_from_its_header(decoder: PictureDecoder) -> None:
    side = (16_383 - 1).to_bytes(3, "little")
    payload = bytes([0b10, 0, 0, 0]) + side + side
    body = b"WEBPVP8X" + struct.pack("<I", 10) + payload + b"ANMF" + struct.pack("<I", 0)
    with pytest.raises(TooManyPixels, match="16383 x 16383"):
        decoder.decode(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_larger_limit_than_pillows_own_is_honoured() -> None:
    before = Image.MAX_IMAGE_PIXELS
    try:
        decoder = PictureDecoder(10**8, 300_000_000)
        with pytest.raises(UndecodablePicture):  # the header passes, the data are not there
            decoder.decode(png(15_000, 15_000, 1, 0, b"\0" * 100))
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_png_bytes_keep_every_pixel(decoder: PictureDecoder, photo: np.ndarray) -> None:
    np.testing.assert_array_equal(decoder.decode(encode_png(photo)), photo)
    assert sniff(encode_png(photo)) == "PNG"
