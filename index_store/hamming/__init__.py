"""Binary indexes in memory, searched by Hamming distance with Faiss.

``methods`` knows which kinds there are: Flat (``flat``; ``gpu`` on a GPU), which compares with every code, and
two approximate ones, IVF (``lists``) and HNSW32 (``graph``), which ``layered`` makes changeable.
"""

from index_store.hamming.base import Chunk, Export, HammingIndex, Hits, Rows, SearchParameters, Work
from index_store.hamming.flat import FlatIndex
from index_store.hamming.gpu import GpuFailed, why_no_gpu
from index_store.hamming.methods import IndexOptions, Plan, build, load, load_flat, make_index, plan
from index_store.hamming.rowmap import RowMap
from index_store.hamming.segments import Segments

__all__ = [
    "Chunk",
    "Export",
    "FlatIndex",
    "GpuFailed",
    "HammingIndex",
    "Hits",
    "IndexOptions",
    "Plan",
    "RowMap",
    "Rows",
    "SearchParameters",
    "Segments",
    "Work",
    "build",
    "load",
    "load_flat",
    "make_index",
    "plan",
    "why_no_gpu",
]
