"""``id_map.pkl`` read as data: the pickle of a plain dict from integers to texts, of which nothing is run.

A pickle is a program for a small machine, and whoever unpickles one runs it. This module reads the program's
operations one by one (PEP 307, PEP 3154 and PEP 574 describe them) and follows only those that write such a
dict down: protocols 2 to 5, with integers of Python or of numpy as keys. Names that a pickle imports are
compared with the three that numpy's integers need and never looked up, so no code of the file's choice is
reached. What it takes in memory is bounded by the length of the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from index_store.base import ForeignGallery

_PROTOCOLS = range(2, 6)
_NO_DICT = "it is not a plain dict of integers and texts"


class _Name(Enum):
    """What a pickle of numpy integers imports."""

    SCALAR = "scalar"
    DTYPE = "dtype"
    ENCODE = "encode"  # how protocol 2 writes bytes


_NAMES = {
    ("numpy.core.multiarray", "scalar"): _Name.SCALAR,  # numpy 1
    ("numpy._core.multiarray", "scalar"): _Name.SCALAR,
    ("numpy", "dtype"): _Name.DTYPE,
    ("_codecs", "encode"): _Name.ENCODE,
}
_INTEGER_TYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_MARK = object()


@dataclass
class _IntegerType:
    """A numpy type of integers, such as ``<i8``; its byte order is told after the type itself."""

    signed: bool
    size: int
    order: Literal["little", "big"] = "little"


def read_id_map(data: bytes, most: int) -> dict[int, str]:
    """Return the dict that ``data`` is the pickle of.

    Args:
        data: the whole file.
        most: how many entries there may be.

    Raises:
        ForeignGallery: it is anything but a plain dict of at most ``most`` integers to texts.
    """
    try:
        return _Machine(most).follow(pickletools.genops(data), len(data))
    except (ValueError, IndexError, KeyError) as error:  # what cut or damaged operations lead to
        raise ForeignGallery(f"it is no whole pickle ({error or type(error).__name__})") from error


class _Machine:
    """A pickle machine with a stack and a memo, which knows the operations of one dict and no others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._entries: dict[int, str] | None = None

    def follow(self, operations: Iterator[tuple[Any, Any, int | None]], length: int) -> dict[int, str]:
        operation, protocol, _ = next(operations)
        if operation.name != "PROTO" or protocol not in _PROTOCOLS:
            raise ForeignGallery(f"{_NO_DICT}: it is no pickle of protocol 2 to 5")
        end: int | None = None
        for operation, argument, position in operations:
            handle = _OPERATIONS.get(operation.name)
            if handle is None:
                raise ForeignGallery(f"{_NO_DICT}: operation {operation.name} at byte {position}; nothing was run")
            handle(self, argument)
            end = position
        if end != length - 1:
            raise ForeignGallery("there is more in it than one pickle")
        if self._entries is None or len(self._stack) != 1 or self._stack[0] is not self._entries:
            raise ForeignGallery(_NO_DICT)
        return self._entries

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pass_over(self, _: Any) -> None:
        """FRAME and STOP need nothing done."""

    def push_none(self, _: Any) -> None:
        self._stack.append(None)

    def push_true(self, _: Any) -> None:
        self._stack.append(True)

    def push_false(self, _: Any) -> None:
        self._stack.append(False)

    def push_dict(self, _: Any) -> None:
        if self._entries is not None:
            raise ForeignGallery(f"{_NO_DICT}: it holds several")
        self._entries = {}
        self._stack.append(self._entries)

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def pair(self, _: Any) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def triple(self, _: Any) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def tuple_to_mark(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def push_name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_known(module, name))

    def name_from_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_known(module, name))

    def call(self, _: Any) -> None:
        """REDUCE: make what numpy's integers consist of; ``_CALLS`` has all that can be asked for."""
        arguments, name = self._stack.pop(), self._stack.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ForeignGallery(f"{_NO_DICT}: it calls something; nothing was run")
        self._stack.append(_CALLS[name](*arguments[:2]))

    def set_byte_order(self, _: Any) -> None:
        """BUILD: the state of a numpy type says its byte order in the second place."""
        state = self._stack.pop()
        kind = self._stack[-1]
        if not isinstance(kind, _IntegerType) or not isinstance(state, tuple) or state[1] not in ("<", ">", "|"):
            raise ForeignGallery(f"{_NO_DICT}: it builds something; nothing was run")
        kind.order = "big" if state[1] == ">" else "little"

    def set_one(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_to_mark(self, _: Any) -> None:
        self._set(self._pop_to_mark())

    def _set(self, flat: list[Any]) -> None:
        entries = self._stack[-1]
        if self._entries is None or entries is not self._entries or len(flat) % 2:
            raise ForeignGallery(_NO_DICT)
        for key, text in zip(flat[::2], flat[1::2], strict=True):
            if type(key) is not int or type(text) is not str:
                raise ForeignGallery(f"{_NO_DICT}: it has an entry of {_kind(key)} to {_kind(text)}")
            if key in entries:
                raise ForeignGallery(f"it has the id {key} twice")
            if len(entries) == self._most:
                raise ForeignGallery(f"it has more ids than the index has vectors ({self._most:,})")
            entries[key] = text

    def _pop_to_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ForeignGallery("it is no whole pickle (a mark is missing)")
        taken = self._stack[place + 1 :]
        del self._stack[place:]
        return taken


def _known(module: object, name: object) -> _Name:
    # Looked up by equality, among texts only: what else a stack may hold need not be hashable.
    if isinstance(module, str) and isinstance(name, str) and (module, name) in _NAMES:
        return _NAMES[module, name]
    raise ForeignGallery(f"{_NO_DICT}: it asks for {_shown(module)} {_shown(name)}; nothing was run")


def _shown(value: object) -> str:
    return ascii(value[:80]) if isinstance(value, str) else _kind(value)


def _kind(value: object) -> str:
    return type(value).__name__.lstrip("_")


def _integer_type(name: object = None, *_: object) -> _IntegerType:
    if not isinstance(name, str) or name not in _INTEGER_TYPES:
        raise ForeignGallery(f"{_NO_DICT}: its ids are of another type")
    return _IntegerType(name[0] == "i", int(name[1:]))


def _integer(kind: object = None, data: object = None) -> int:
    if not isinstance(kind, _IntegerType) or not isinstance(data, bytes) or len(data) != kind.size:
        raise ForeignGallery(f"{_NO_DICT}: an id is no integer")
    return int.from_bytes(data, kind.order, signed=kind.signed)


def _encoded(text: object = None, encoding: object = None) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ForeignGallery(f"{_NO_DICT}: an id is no integer")
    return text.encode("latin1")


_CALLS: dict[_Name, Callable[..., Any]] = {
    _Name.SCALAR: _integer,
    _Name.DTYPE: _integer_type,
    _Name.ENCODE: _encoded,
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "FRAME": _Machine.pass_over,
    "STOP": _Machine.pass_over,
    "EMPTY_DICT": _Machine.push_dict,
    "MARK": _Machine.mark,
    "SETITEM": _Machine.set_one,
    "SETITEMS": _Machine.set_to_mark,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "SHORT_BINUNICODE": _Machine.push,
    "BINUNICODE": _Machine.push,
    "BINUNICODE8": _Machine.push,
    "MEMOIZE": _Machine.memoize,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    # What numpy's integers need besides
    "GLOBAL": _Machine.push_name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.set_byte_order,
    "SHORT_BINBYTES": _Machine.push,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE2": _Machine.pair,
    "TUPLE3": _Machine.triple,
    "NONE": _Machine.push_none,
    "NEWTRUE": _Machine.push_true,
    "NEWFALSE": _Machine.push_false,
}
