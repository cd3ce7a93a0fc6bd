"""Archives of models, honest and evil, made entry by entry."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

MODEL = {
    "inference.pdmodel": b"graph " * 50,
    "inference.pdiparams": bytes(range(256)) * 40,
    "inference.yml": b"kind: hasher\n",
}
"""Files that have the names of a model's; nothing loads them."""


def entry(name: str, **attributes: object) -> tarfile.TarInfo:
    """A header that says what it is told to say."""
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def tar(
    files: Mapping[str, bytes] = MODEL,
    *extra: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes],
    folder: str = "my_infer",
    format: int = tarfile.PAX_FORMAT,  # noqa: A002 (tarfile's name)
) -> bytes:
    """A tar as `tar -cf` makes it of a folder, and then what is given with its own headers."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        if folder:
            archive.addfile(entry(folder, type=tarfile.DIRTYPE, mode=0o755))
        for name, content in files.items():
            archive.addfile(entry(f"{folder}/{name}" if folder else name, size=len(content)), io.BytesIO(content))
        for info, content in (each if isinstance(each, tuple) else (each, b"") for each in extra):
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def before_its_end(content: bytes) -> bytes:
    """A tar without the zeros that end it, so that something can follow."""
    with tarfile.open(fileobj=io.BytesIO(content)) as entries:
        last = entries.getmembers()[-1]
    return content[: last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE]


def tar_gz(*arguments: object, **options: object) -> bytes:
    return gzip.compress(tar(*arguments, **options))  # type: ignore[arg-type]


def zipped(files: Mapping[str, bytes] = MODEL, *extra: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"my_infer/{name}", content)
        for info, content in extra:
            archive.writestr(info, content)
    return buffer.getvalue()
