"""A binary Faiss index read out of its file, without Faiss: codes and ids of Flat, IVF, HNSW and id maps.

Faiss trusts an index file: it allocates what the file's counts ask for and follows its links. Here only codes
and ids are taken, every count is compared with what is left of the file before anything is read, and the graph
of an HNSW index is passed over.

Layout, little-endian, as ``faiss.write_index_binary`` writes it: four characters that name the kind, then d
(int32), bytes a code (int32), vectors (int64), trained (uint8), metric (int32), then what the kind has. A
vector is a count (uint64) and its values. Indexes nest: a quantizer, a graph's storage, what an id map is of.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from index_store.base import Codes, ForeignGallery

_HEADER = struct.Struct("<iiqBi")
_COUNT = struct.Struct("<Q")
_LISTS = struct.Struct("<QQ")
_DEEPEST = 4  # an id map of an IVF index with a graph as quantizer, and the graph's storage
_HNSW_VECTORS = (8, 4, 4, 8, 4)  # bytes a value: probabilities, neighbours a level, levels, offsets, neighbours
_HNSW_NUMBERS = 5 * 4
_NESTED_FLOAT = "it holds float features: only binary galleries (dist_type: hamming) have codes to import"


@dataclass(frozen=True, slots=True)
class IndexVectors:
    """What an index file holds: codes uint8 (n, bits / 8) and the id of each, int64 (n,)."""

    codes: Codes
    ids: NDArray[np.int64]


def read_binary_index(path: Path) -> IndexVectors:
    """Read the codes and ids in an index file, in the order of storage; those of an IVF index by id.

    Raises ForeignGallery for a file that is cut, damaged or of another kind, and OSError.
    """
    with path.open("rb") as file:
        source = _Source(file, path.stat().st_size)
        vectors = _read(source, 1)
        if source.left:
            raise ForeignGallery(f"{source.left:,} bytes follow the index: it is damaged")
    return vectors


class _Source:
    """A file of known length, read from start to end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.left = size

    def take(self, size: int) -> bytes:
        self._claim(size)
        data = self._file.read(size)
        if len(data) != size:
            raise ForeignGallery("it became shorter while it was read")
        return data

    def skip(self, size: int) -> None:
        self._claim(size)
        self._file.seek(size, 1)

    def count(self, value_size: int) -> int:
        """Read how many values a vector has; they are all there."""
        (count,) = _COUNT.unpack(self.take(_COUNT.size))
        self._check(count * value_size)
        return int(count)

    def codes(self, count: int, code_size: int) -> Codes:
        return np.frombuffer(self.take(count * code_size), np.uint8).reshape(count, code_size)

    def integers(self, count: int) -> NDArray[np.int64]:
        return np.frombuffer(self.take(count * 8), "<i8").astype(np.int64, copy=False)

    def _check(self, size: int) -> None:
        if size > self.left:
            raise ForeignGallery(f"it is cut short or damaged: {size:,} bytes are to follow, {self.left:,} do")

    def _claim(self, size: int) -> None:
        self._check(size)
        self.left -= size


def _read(source: _Source, depth: int) -> IndexVectors:
    if depth > _DEEPEST:
        raise ForeignGallery("its indexes are nested too deeply: it is damaged")
    kind = source.take(4)
    reader = _READERS.get(kind)
    if reader is None:
        raise ForeignGallery(_why_not(kind))
    d, code_size, count, _, _ = _HEADER.unpack(source.take(_HEADER.size))
    if d <= 0 or code_size * 8 != d or count < 0:
        raise ForeignGallery(f"its header makes no sense ({d} bits in {code_size} bytes, {count} vectors)")
    vectors = reader(source, code_size, count, depth)
    if vectors.codes.shape != (count, code_size):
        raise ForeignGallery(f"it says that it holds {count:,} codes of {d} bits, and holds others")
    return vectors


def _why_not(kind: bytes) -> str:
    name = kind.decode("ascii", "replace")
    if kind.startswith(b"IB"):
        return f"it is a binary index of a kind that is not imported (Faiss calls it {name!r}): Flat, IVF and HNSW are"
    if kind.startswith(b"I") and kind.isalnum():
        return f"{_NESTED_FLOAT} (Faiss calls this index {name!r})"
    return "it is no Faiss index"


def _read_flat(source: _Source, code_size: int, count: int, depth: int) -> IndexVectors:
    if source.count(1) != count * code_size:
        raise ForeignGallery(f"it does not hold the {count:,} codes that its header tells of")
    return IndexVectors(source.codes(count, code_size), np.arange(count, dtype=np.int64))


def _read_hnsw(source: _Source, code_size: int, count: int, depth: int) -> IndexVectors:
    for value_size in _HNSW_VECTORS:
        source.skip(source.count(value_size) * value_size)
    source.skip(_HNSW_NUMBERS)
    return _read(source, depth + 1)


def _read_id_map(source: _Source, code_size: int, count: int, depth: int) -> IndexVectors:
    inner = _read(source, depth + 1)
    ids = source.integers(source.count(8))
    if len(ids) != len(inner.codes) or not np.all((inner.ids >= 0) & (inner.ids < len(ids))):
        raise ForeignGallery("its map of ids does not fit its vectors: it is damaged")
    return IndexVectors(inner.codes, ids[inner.ids])


def _read_ivf(source: _Source, code_size: int, count: int, depth: int) -> IndexVectors:
    nlist, _ = _LISTS.unpack(source.take(_LISTS.size))
    quantizer = _read(source, depth + 1)
    if len(quantizer.codes) not in (0, nlist):
        raise ForeignGallery(f"it has {nlist:,} lists and {len(quantizer.codes):,} centroids: it is damaged")
    _skip_direct_map(source)
    codes, ids = [np.empty((0, code_size), np.uint8)], [np.empty(0, np.int64)]
    for size in _list_sizes(source, nlist, code_size):
        codes.append(source.codes(size, code_size))
        ids.append(source.integers(size))
    every_id = np.concatenate(ids)
    order = np.argsort(every_id, kind="stable")
    return IndexVectors(np.concatenate(codes)[order], every_id[order])


def _skip_direct_map(source: _Source) -> None:
    kind = source.take(1)[0]
    source.skip(source.count(8) * 8)
    if kind == 2:  # a hash table: pairs of an id and a place
        source.skip(source.count(16) * 16)


def _list_sizes(source: _Source, nlist: int, code_size: int) -> list[int]:
    """Read the sizes of those inverted lists that are not empty, in order."""
    kind = source.take(4)
    if kind == b"il00":  # none at all
        return []
    if kind != b"ilar":
        raise ForeignGallery("its inverted lists are not in the file itself: they cannot be imported")
    if _LISTS.unpack(source.take(_LISTS.size)) != (nlist, code_size):
        raise ForeignGallery("its inverted lists do not fit its header: it is damaged")
    form = source.take(4)
    sizes = source.integers(source.count(8))
    if form == b"sprs":  # pairs of a list and its size
        if len(sizes) % 2 or np.any(np.diff(sizes[::2]) <= 0):
            raise ForeignGallery("the sizes of its inverted lists are damaged")
        sizes = sizes[1::2]
    elif form != b"full" or len(sizes) != nlist:
        raise ForeignGallery("the sizes of its inverted lists are damaged")
    if np.any(sizes < 0):
        raise ForeignGallery("the sizes of its inverted lists are damaged")
    return [size for size in sizes.tolist() if size]


_READERS = {
    b"IBxF": _read_flat,
    b"IBHf": _read_hnsw,
    b"IBwF": _read_ivf,
    b"IBMp": _read_id_map,
    b"IBM2": _read_id_map,
}
