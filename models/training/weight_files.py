"""Reading weights and checkpoints: ``.pdparams`` and ``.npz`` files, without running what a pickle may contain.

A ``.pdparams`` file is a pickle, and unpickling calls whatever the file names. So the only names that are honoured
here are those of dictionaries of NumPy arrays, and even they stand for classes of this module that merely write down
what the file says: NumPy's own unpickling trusts the sizes and types it is told. Arrays are made of the bytes
afterwards, once type, shape and length agree.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SUFFIX = ".pdparams"
Weights = dict[str, npt.NDArray[Any]]

_NAME_TABLE = "StructuredToParameterName@@"  # Paddle keeps its own parameter names beside the weights
_ARCHIVE = b"PK\x03\x04"  # what a zip file, as .npz is, begins with
_TYPES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


class WeightFileError(Exception):
    """A file cannot be read as weights; the text says why, without the file's name."""


def find_file(path: Path) -> Path | None:
    """Find a file of weights, whose suffix :data:`SUFFIX` may be left out; None where there is neither."""
    return next((one for one in (path, Path(f"{path}{SUFFIX}")) if one.is_file()), None)


def read_weights(path: Path) -> Weights:
    """Read arrays by name.

    Args:
        path: a ``.pdparams`` (a pickled dictionary of arrays, as ``paddle.save`` writes a state) or an ``.npz``;
            which of them is told by its first bytes.

    Returns:
        The arrays in the file's order; they may be read-only.

    Raises:
        WeightFileError: it is torn, holds something else, or asks for anything but arrays to be made.
        OSError: it cannot be opened.
    """
    weights = read_state(path)
    for name, array in weights.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise WeightFileError(f"it holds more than weights: {str(name)[:60]!r} is a {type(array).__name__}")
    if not weights:
        raise WeightFileError("it holds no weights")
    return weights


def read_state(path: Path) -> dict[Any, Any]:
    """Read a checkpoint: a dictionary of dictionaries, lists, texts, numbers and arrays.

    Args:
        path: as for :func:`read_weights`.

    Returns:
        What was saved, tensors as arrays (they may be read-only) and without Paddle's tables of names: what
        ``paddle.load(path, return_numpy=True)`` gives, had nothing but this been in the file.

    Raises:
        WeightFileError: it is torn, holds something else, or asks for anything but these to be made.
        OSError: it cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            is_archive = stream.read(len(_ARCHIVE)) == _ARCHIVE
            stream.seek(0)
            if is_archive:
                with np.load(stream, allow_pickle=False) as archive:
                    return {name: archive[name] for name in archive.files}
            # Python 2 wrote the first of them: its byte strings come as text then, one character a byte.
            content = _to_plain(_WeightUnpickler(stream, encoding="latin1").load())
    except (OSError, WeightFileError):
        raise
    except Exception as error:  # torn pickles and archives raise whatever their readers stumble over
        raise WeightFileError(f"it is torn or no file of weights ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise WeightFileError(f"it holds a {type(content).__name__}, not weights by name")
    return content


def _to_plain(content: object) -> Any:
    """Make arrays of their records, at any depth."""
    if isinstance(content, _ArrayRecord):
        return content.to_array()
    if isinstance(content, _TypeRecord):
        raise WeightFileError("it holds the type of an array without the array")
    # Tensors that were saved outside a state are pairs of Paddle's name and the array.
    if isinstance(content, tuple) and len(content) == 2 and isinstance(content[1], _ArrayRecord):
        return content[1].to_array()
    if isinstance(content, (list, tuple)):
        return type(content)(_to_plain(value) for value in content)
    if isinstance(content, dict):
        return {key: _named(key, value) for key, value in content.items() if key != _NAME_TABLE}
    return content


def _named(key: object, value: object) -> Any:
    try:
        return _to_plain(value)
    except (TypeError, ValueError) as error:
        raise WeightFileError(f"{str(key)[:60]}: {error}") from error


class _TypeRecord:
    """What a pickle says of an array's type: stands for ``numpy.dtype``."""

    def __init__(self, code: object = None, *_: object) -> None:
        self._code = code
        self._order: object = "|"

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags), by numpy.dtype.__reduce__
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise WeightFileError("an array is of a compound type")
        self._order = state[1]

    def to_dtype(self) -> np.dtype[Any]:
        if self._code not in _TYPES or self._order not in ("<", ">", "=", "|"):
            raise WeightFileError(f"an array is of the type {str(self._code)[:20]!r}, not of numbers")
        return np.dtype(f"{self._order}{self._code}")


class _ArrayRecord:
    """What a pickle says of an array: stands for ``numpy.ndarray`` and what makes it."""

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        # (version, shape, type, whether columns come first, bytes), by numpy.ndarray.__reduce__
        self._state = state if isinstance(state, tuple) else ()

    def to_array(self) -> npt.NDArray[Any]:
        if len(self._state) != 5:
            raise WeightFileError("an array lacks its content")
        _, shape, kind, columns_first, data = self._state
        if isinstance(data, str):
            data = data.encode("latin1")
        if not (isinstance(kind, _TypeRecord) and isinstance(data, bytes) and isinstance(shape, tuple)):
            raise WeightFileError("an array is described by other things than type, shape and bytes")
        order = "F" if columns_first else "C"
        array: npt.NDArray[Any] = np.frombuffer(data, kind.to_dtype()).reshape(shape, order=order)
        return array


def _make_number(kind: object, data: object) -> Any:
    """Stand for NumPy's ``scalar``, which makes a single number: ``numpy.float32`` and the like."""
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(kind, _TypeRecord) or not isinstance(data, bytes):
        raise WeightFileError("a number is described by other things than type and bytes")
    return np.frombuffer(data, kind.to_dtype(), count=1)[0]


def _no_bytes() -> bytes:
    """Stand for ``bytes()``, in which old pickles keep the content of empty arrays."""
    return b""


def _encode(text: object, encoding: object) -> bytes:
    """Stand for ``_codecs.encode``, in which old pickles keep bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise WeightFileError("it keeps bytes in an unusual way")
    return text.encode("latin1")


_HONOURED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ArrayRecord,
    ("numpy", "dtype"): _TypeRecord,
    ("numpy.core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy._core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy.core.multiarray", "scalar"): _make_number,
    ("numpy._core.multiarray", "scalar"): _make_number,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
}


class _WeightUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, texts, numbers, and records of arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name, if it is one that weights need."""
        try:
            return _HONOURED[module, name]
        except KeyError:
            raise WeightFileError(
                f"it is not safe to read: it asks for {module}.{name}, which weights need not"
            ) from None
