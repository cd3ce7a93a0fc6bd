"""The galleries of PaddleClas's PP-ShiTu: a folder with ``vector.index`` and ``id_map.pkl``.

``vector.index`` is a binary Faiss index, ``id_map.pkl`` the pickle of a dict from the id of each vector to a
text: a line of the gallery list, that is path, delimiter and label. Both are read as data, so neither a hostile
index nor a hostile pickle runs anything or asks for more memory than its own length warrants.
"""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

from index_store.base import Codes, ExportExists, ForeignGallery, InvalidQuery
from index_store.binary_index_file import IndexVectors, read_binary_index
from index_store.faults import storage_faults
from index_store.folders import make_folder
from index_store.id_map import read_id_map
from index_store.snapshot import sync_folder, temporary_path
from index_store.validation import MAX_LABEL_CHARACTERS, MAX_SOURCE_CHARACTERS

INDEX_NAME = "vector.index"
ID_MAP_NAME = "id_map.pkl"
METHODS = ("Flat", "IVF", "HNSW32")
_MAX_ID_MAP_BYTES = 4 << 30
_BATCH = 10_000
_TRAINED_ON = 32  # codes a list: enough for k-means, and little memory, since Faiss trains on float32
_faiss: Any = faiss  # its type stubs do not know the binary indexes

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PaddleClasGallery:
    """What such a folder holds: codes uint8 (n, bits / 8), and the text of each, in the order of the index."""

    codes: Codes
    texts: list[str]

    @property
    def bits(self) -> int:
        """The length of the codes."""
        return int(self.codes.shape[1]) * 8


def read_paddleclas(folder: Path) -> PaddleClasGallery:
    """Read the gallery in ``folder``, whose index is Flat, IVF or HNSW, perhaps in an id map.

    It takes the memory of both files. Raises ForeignGallery: a file is missing, cut, damaged, hostile or too
    large, the index holds float features, or ids and vectors do not match.
    """
    index_path, map_path = folder / INDEX_NAME, folder / ID_MAP_NAME
    for path in (index_path, map_path):
        _check_file(path)
    vectors = _read(index_path, lambda: read_binary_index(index_path))
    texts = _read(map_path, lambda: _read_texts(map_path, vectors))
    return PaddleClasGallery(vectors.codes, texts)


def write_paddleclas(
    folder: Path,
    items: Iterable[tuple[bytes, str]],
    count: int,
    bits: int,
    *,
    method: str = "Flat",
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write a gallery of ``count`` codes of ``bits`` bits and their texts, in order, as PaddleClas reads it.

    Ids are 0, 1, 2 and so on. ``method`` is "Flat", "IVF" (as many lists as PaddleClas makes, at most four times
    the root of ``count``; a search looks into a twentieth of them) or "HNSW32". Each file takes its place as a
    whole, after both are on the disk. ``progress`` is told how many codes are in the index.

    Raises:
        ExportExists: one of the files is there, and ``overwrite`` is false.
        InvalidQuery: there is no such method, or nothing to train IVF on.
        StorageUnavailable, DiskFull: the folder cannot be written; what was there is unchanged.
    """
    targets = (folder / INDEX_NAME, folder / ID_MAP_NAME)
    for path in targets:
        if not overwrite and path.exists():
            raise ExportExists(path)
    codes, texts = _collect(items, count, bits)
    index = _make_index(codes, method)
    for start in range(0, count, _BATCH):
        index.add(codes[start : start + _BATCH])
        progress(min(start + _BATCH, count), count)

    def write_index(file: BinaryIO) -> None:
        # Through Python's file: Faiss's own does not notice a full disk when it closes.
        _faiss.write_index_binary(index, _faiss.PyCallbackIOWriter(file.write))

    def write_map(file: BinaryIO) -> None:
        pickle.dump(dict(enumerate(texts)), file, protocol=2)

    with storage_faults(folder):
        make_folder(folder.absolute())
        _publish(dict(zip(targets, (write_index, write_map), strict=True)))


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ForeignGallery(
            f"{path} cannot be read ({error.strerror}): name the folder that PaddleClas calls index_dir"
        ) from error
    if not stat.S_ISREG(mode):
        raise ForeignGallery(f"{path} is no file")


def _read(path: Path, read: Callable[[], Any]) -> Any:
    """Read a file; errors name it."""
    try:
        return read()
    except ForeignGallery as error:
        raise ForeignGallery(f"{path}: {error}") from error
    except OSError as error:
        raise ForeignGallery(f"{path} cannot be read: {error.strerror or error}") from error


def _read_texts(path: Path, vectors: IndexVectors) -> list[str]:
    """Read the id map and return its texts in the order of the vectors."""
    ids = vectors.ids.tolist()
    longest = (MAX_SOURCE_CHARACTERS + MAX_LABEL_CHARACTERS) * 4  # bytes, in UTF-8
    limit = min(_MAX_ID_MAP_BYTES, 65_536 + len(ids) * longest)
    if path.stat().st_size > limit:
        raise ForeignGallery(f"it is larger than {limit:,} bytes, the limit for {len(ids):,} vectors")
    texts = read_id_map(path.read_bytes(), len(ids))
    if len(set(ids)) < len(ids):
        raise ForeignGallery("the index has an id twice, so it is not told which text belongs to which vector")
    missing = [number for number in ids if number not in texts]
    if missing:
        shown = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise ForeignGallery(
            f"{len(missing):,} of the index's {len(ids):,} vectors have no entry (ids {shown}): "
            "the two files do not belong together"
        )
    return [texts[number] for number in ids]


def _collect(items: Iterable[tuple[bytes, str]], count: int, bits: int) -> tuple[Codes, list[str]]:
    codes = np.empty((count, bits // 8), np.uint8)
    texts: list[str] = []
    source = iter(items)
    while batch := list(islice(source, _BATCH)):
        joined = np.frombuffer(b"".join([code for code, _ in batch]), np.uint8)
        codes[len(texts) : len(texts) + len(batch)] = joined.reshape(len(batch), bits // 8)
        texts += [text for _, text in batch]
    return codes, texts


def _make_index(codes: Codes, method: str) -> Any:
    """Make an empty index of a method, trained if it needs that."""
    count, bits = len(codes), codes.shape[1] * 8
    if method in ("Flat", "HNSW32"):
        return _faiss.index_binary_factory(bits, f"B{method}")
    if method != "IVF":
        raise InvalidQuery(f"there is no method {method!r} to export as: use {', '.join(METHODS)}")
    if not count:
        raise InvalidQuery("an empty gallery has nothing to train an IVF index on: use Flat")
    nlist = max(1, min(count // 8, round(4 * count**0.5)))
    index = _faiss.index_binary_factory(bits, f"BIVF{nlist}")
    index.nprobe = max(1, nlist // 20)
    index.cp.min_points_per_centroid = 1  # it would warn; small galleries have few
    step = max(1, count // (nlist * _TRAINED_ON))
    index.train(np.ascontiguousarray(codes[::step]))
    return index


def _publish(files: dict[Path, Callable[[BinaryIO], None]]) -> None:
    """Write files beside their places and make them durable, then put each in its place."""
    with ExitStack() as undo:
        for path, write in files.items():
            temporary = temporary_path(path)
            undo.callback(temporary.unlink, missing_ok=True)
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            temporary_path(path).replace(path)
    for folder in {path.parent for path in files}:
        sync_folder(folder)
