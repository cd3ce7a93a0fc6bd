"""Odd but valid pictures over HTTP: each gets exactly the code of its upright RGB twin, as a plain PNG."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

Pixels = np.ndarray
Case = Callable[[Pixels, Any], tuple[bytes, Pixels]]


def cmyk_jpeg(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    file = encode(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=95)
    return file, np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def sixteen_bit_png(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    grey = np.asarray(Image.fromarray(photo).convert("L")).astype(np.uint16)
    samples = grey * 256 + 255 - grey  # another low byte than high byte
    file = encode(Image.fromarray(samples), "PNG")
    return file, np.stack([grey.astype(np.uint8)] * 3, axis=2)


def sixteen_bit_rgb_png(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = photo.shape[:2]
    samples = (photo.astype(np.uint16) * 256 + 77).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks, photo


def grey_jpeg(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    file = encode(Image.fromarray(photo).convert("L"), "JPEG", quality=95)
    return file, np.stack([np.asarray(Image.open(io.BytesIO(file)))] * 3, axis=2)


def rgba_png(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    visible = np.zeros(photo.shape[:2], bool)
    visible[40:-40, 60:-60] = True
    file = encode(np.dstack([photo, visible.astype(np.uint8) * 255]), "PNG")
    return file, np.where(visible[:, :, None], photo, 255).astype(np.uint8)


def palette_png(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    image = Image.fromarray(photo).quantize(64)
    return encode(image, "PNG"), np.asarray(image.convert("RGB"))


def palette_png_with_transparency(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    image = Image.fromarray(photo).quantize(64)
    seen_through = (np.asarray(image) == 0)[:, :, None]
    expected = np.where(seen_through, 255, np.asarray(image.convert("RGB"))).astype(np.uint8)
    return encode(image, "PNG", transparency=0), expected


def animated(kind: str, **options: Any) -> Case:
    def case(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
        first = Image.fromarray(photo).quantize(128).convert("RGB")
        others = [Image.new("RGB", first.size, colour) for colour in ("red", "blue")]
        file = encode(first, kind, save_all=True, append_images=others, duration=40, **options)
        return file, np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))

    return case


def orientation(value: int) -> Case:
    def case(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
        exif = Image.Exif()
        exif[0x0112] = value
        file = encode(photo, "JPEG", quality=95, exif=exif)
        return file, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))

    return case


def panorama(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    wide = np.asarray(Image.fromarray(photo).resize((4000, 100)))
    return encode(wide, "PNG"), wide


def tower(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    high = np.asarray(Image.fromarray(photo).resize((100, 4000)))
    return encode(high, "PNG"), high


def one_pixel(photo: Pixels, encode: Any) -> tuple[bytes, Pixels]:
    return encode(photo[:1, :1], "GIF"), photo[:1, :1]


CASES: dict[str, Case] = {
    "CMYK JPEG": cmyk_jpeg,
    "16-bit grey PNG": sixteen_bit_png,
    "16-bit RGB PNG": sixteen_bit_rgb_png,
    "grey JPEG": grey_jpeg,
    "RGBA PNG": rgba_png,
    "palette PNG": palette_png,
    "palette PNG with transparency": palette_png_with_transparency,
    "animated GIF": animated("GIF"),
    "animated WebP": animated("WEBP", lossless=True),
    "animated PNG": animated("PNG"),
    **{f"EXIF orientation {value}": orientation(value) for value in range(2, 9)},
    "panorama 40:1": panorama,
    "tower 1:40": tower,
    "one pixel": one_pixel,
}


@pytest.mark.parametrize("name", CASES)
def test_odd_pictures_are_enrolled_and_found(server: Any, photos: dict[str, Pixels], encode: Any, name: str) -> None:
    file, upright = CASES[name](photos["chelsea"][:240, :320], encode)

    item = server.enrol(file, f"odd {name}")
    found = server.search(file, label=f"odd {name}")
    twin = server.search(encode(upright, "PNG"), label=f"odd {name}")

    assert found[0]["bbox"] == [0, 0, upright.shape[1], upright.shape[0]]
    assert item["code"] == found[0]["code"] == twin[0]["code"]
    assert [(match["id"], match["distance"]) for match in found[0]["matches"]] == [(item["id"], 0)]


def test_what_a_file_is_called_does_not_matter(server: Any, photos: dict[str, Pixels], encode: Any) -> None:
    file = encode(photos["coffee"], "WEBP", lossless=True)
    codes = [
        server.client.post("/search", files={"image": (name, file, kind)}).json()["objects"][0]["code"]
        for name, kind in [
            ("a.jpg", "image/jpeg"),
            ("../../etc/passwd", "text/plain"),
            ("ü 図.exe", "application/octet-stream"),
        ]
    ]
    assert len(set(codes)) == 1


def test_labels_and_metadata_of_all_kinds_come_back_as_sent(server: Any, photo_files: dict[str, bytes]) -> None:
    label = "农夫山泉 / NFC…\t\u202e 🥤 " + "é" * 480
    metadata = {"nested": {"list": [1, 2.5, None, True, "ß"]}, "": "empty key", "big": 2**60}
    answer = server.client.post(
        "/gallery", json={"code": "00" * (server.bits // 8), "label": label, "metadata": metadata}
    )
    assert answer.status_code == 201, answer.text
    item = server.client.get(f"/gallery/{answer.json()['id']}").json()
    assert item == answer.json()
    assert (item["label"], item["metadata"]) == (label, metadata)
    assert server.client.get("/gallery", params={"label": label}).json()["items"] == [item]
