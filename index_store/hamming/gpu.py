"""Exact search on a GPU, where Faiss has one: codes lie in its memory, and on the CPU what keeps them changeable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import faiss
import numpy as np

from index_store.base import Codes, GalleryError
from index_store.hamming.base import SPARE, Chunk, Distances, Rows, SearchParameters
from index_store.hamming.layered import Folding
from index_store.hamming.rowmap import RowMap
from index_store.hamming.segments import Mask, Segments

_MOST_NEIGHBOURS = 2048  # that a GPU can select
_GROWTH = 4
_WORN_SHARE = 4  # of the codes are removed ones, one in so many
_gpu: Any = faiss  # its type stubs do not know what only some builds have


class GpuFailed(GalleryError):
    """The GPU cannot hold or search the codes. It stays inside the package: the CPU searches."""


def why_no_gpu() -> str | None:
    """Say why no search can run on a GPU; None if one can."""
    if not hasattr(_gpu, "GpuIndexBinaryFlat"):
        return "this Faiss is built without GPU support (install faiss-gpu instead of faiss-cpu)"
    if _gpu.get_num_gpus() < 1:
        return "Faiss sees no GPU (is it visible to this process or container, and is the driver there?)"
    return None


def on_gpu(bits: int) -> Any:
    """Return an empty binary Flat index in the memory of the first GPU."""
    resources = _gpu.StandardGpuResources()
    index = _gpu.GpuIndexBinaryFlat(resources, bits)
    index.shitu_resources = resources  # it needs them as long as it lives
    return index


class GpuFlat:
    """A Faiss GpuIndexBinaryFlat whose codes can be marked as removed; a Structure of a LayeredIndex.

    A GPU selects a limited number of neighbours and searches for one thread at a time; what goes beyond is
    done on the CPU, by the same codes. Proven with Faiss's CPU index in the place of the GPU's only.
    """

    method = "GPU Flat"

    def __init__(self, pairs: Segments, threads: int, make: Callable[[int], Any] = on_gpu) -> None:
        """Put pairs into the index that ``make`` makes. Raises GpuFailed."""
        self.bits = pairs.bits
        self._pairs = pairs
        self._threads = threads
        self._make = make
        self._positions = RowMap()
        self._removed = np.zeros(len(pairs), dtype=np.bool_)
        self._removed_count = 0
        self._one_at_a_time = threading.Lock()
        done = 0
        try:
            self._index = make(self.bits)
            for rows, codes in pairs.blocks():
                self._positions.put(rows, np.arange(done, done + len(rows), dtype=np.int64))
                self._index.add(codes)
                done += len(rows)
        except RuntimeError as error:
            raise GpuFailed(f"the GPU cannot take {len(pairs):,} codes of {self.bits} bits: {error}") from error

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self._pairs) - self._removed_count

    @property
    def nbytes(self) -> int:
        """The memory that the pairs take on the CPU; the GPU holds the codes once more."""
        return len(self._pairs) * (self.bits // 8 + 8) + self._positions.nbytes + self._removed.nbytes

    @property
    def parameters(self) -> Mapping[str, int]:
        """Nothing tunes it."""
        return {}

    @property
    def facts(self) -> Mapping[str, int]:
        """The pairs are everything."""
        return {}

    def worn(self) -> str | None:
        """Say that many codes are removed ones."""
        if self._removed_count * _WORN_SHARE > len(self._pairs):
            return f"{self._removed_count:,} of {len(self._pairs):,} codes on the GPU are removed ones"
        return None

    def remove(self, rows: Rows) -> int:
        """Mark codes as removed; return how many there were."""
        positions = np.unique(self._positions.present(rows))
        gone, _ = self._pairs.read(positions, with_codes=False)
        self._positions.discard(gone)
        self._removed[positions] = True
        self._removed_count += int(positions.size)
        return int(positions.size)

    def read(self, rows: Rows) -> tuple[Rows, Codes]:
        """Return copies of those pairs of these rows that it holds."""
        return self._pairs.read(np.unique(self._positions.present(rows)))

    def worth_asking(self, top_k: int, parameters: SearchParameters) -> int:
        """Return some more than ``top_k``, which costs next to nothing."""
        return top_k + SPARE

    def nearest(self, codes: Codes, k: int, parameters: SearchParameters) -> tuple[Distances, Rows]:
        """Return distances and rows (n, k) of the nearest; k is at most how many pairs there are."""
        asked = min(len(self._pairs), k + min(self._removed_count, SPARE))
        while asked <= _MOST_NEIGHBOURS:
            with self._one_at_a_time:
                distances, positions = self._index.search(codes, asked)
            there = ~self._removed[positions]
            if (there.sum(axis=1) >= k).all():
                order = np.argsort(~there, axis=1, kind="stable")[:, :k]  # removed ones last, the others as they are
                rows = self._rows_at(np.take_along_axis(positions, order, axis=1))
                return np.take_along_axis(distances, order, axis=1), rows
            asked = min(len(self._pairs), asked * _GROWTH)
        return self._nearest_on_cpu(codes, k)

    def fold(self, folding: Folding) -> None:
        """Put recent pairs and those that remain into a new index, which takes this one's place."""
        remaining = Segments(self.bits, self._threads)
        for rows, codes in self._pairs.blocks():
            folding.work.go_on()
            there = self._positions.get(rows) >= 0
            remaining.append(rows[there], codes[there])
        remaining.append(folding.rows, folding.codes)
        grown = GpuFlat(remaining, self._threads, self._make)
        with folding.lock.write():
            folding.take(folding.rows)
            folding.adopt(grown)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all pairs that are there."""
        for rows, codes in self._pairs.blocks():
            there = self._positions.get(rows) >= 0
            yield Chunk("pairs", (rows[there], codes[there]))

    def _rows_at(self, positions: Rows) -> Rows:
        unique, back = np.unique(positions, return_inverse=True)
        rows, _ = self._pairs.read(unique, with_codes=False)
        return rows[back].reshape(positions.shape)

    def _nearest_on_cpu(self, codes: Codes, k: int) -> tuple[Distances, Rows]:
        hits = self._pairs.search(codes, self.bits, k, Mask(~self._removed, self._pairs.capacity))
        return np.stack([one.distances[:k] for one in hits]), np.stack([one.rows[:k] for one in hits])
