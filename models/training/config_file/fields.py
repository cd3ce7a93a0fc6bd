"""What the keys of a configuration may hold: a reader for each kind of value, and sections made of them.

A reader takes a :class:`~models.yaml_tree.Node` and gives a value, or raises :class:`Unusable` with what was expected.
:class:`Reading` collects all problems of a file, so that they are reported together. A key with nothing after it
(``null``) counts as absent.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from models.yaml_tree import Node

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
ABSENT = object()
"""What a reader gives where a key leaves its section as if it were not there."""


class Unusable(Exception):
    """A value cannot be used; the text says what was expected, without the key."""


class Reading:
    """What was found while a file is read.

    Attributes:
        problems: each names file, line and key.
        notes: keys without effect by what is said about them.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: dict[str, list[str]] = {}

    def refuse(self, node: Node, message: str) -> None:
        """Record a problem; one that was found before does not count again."""
        text = f"{node.place}: {message}"
        if text not in self.problems:
            self.problems.append(text)

    def note(self, node: Node, message: str) -> None:
        """Record that a key has no effect, or another than one may think."""
        places = self.notes.setdefault(message, [])
        if node.place not in places:
            places.append(node.place)

    def read(self, node: Node, reader: Reader, default: Any = None) -> Any:
        """Read one value; where it is unusable, record why and give the default."""
        try:
            return reader(self, node)
        except Unusable as error:
            self.refuse(node, str(error))
            return default

    def section(self, node: Node | None, readers: Mapping[str, Reader], what: str = "") -> dict[str, Any]:
        """Read a map.

        Args:
            node: the map; None or empty gives no values.
            readers: by key; every other key is a problem.
            what: whose keys they are, for messages.

        Returns:
            The values of the keys that are given and usable.
        """
        values: dict[str, Any] = {}
        for key, child in entries(self, node).items():
            if key not in readers:
                self.refuse(child, f"is not a key{f' of {what}' if what else ''}{suggest(key, readers)}")
            elif child.value is not None:
                value = self.read(child, readers[key], ABSENT)
                if value is not ABSENT:
                    values[key] = value
        return values

    def require(self, node: Node, key: str, why: str) -> None:
        """Record a problem if a map does not have a key."""
        child = node.value.get(key) if isinstance(node.value, dict) else None
        if child is None or child.value is None:
            self.refuse(Node(None, node.child(key), node.source), f"is missing: {why}")

    def name(self, node: Node, kind: str, known: Collection[str], default: str | None = None) -> str | None:
        """Read the ``name`` of a map, on which its other keys depend.

        Args:
            node: the map.
            kind: what is named, for messages.
            known: the names there are.
            default: where the map has none.

        Returns:
            One of the names; or None, with a problem recorded.
        """
        child = entries(self, node).get("name")
        if child is None or child.value is None:
            if default is None and isinstance(node.value, dict):
                self.require(node, "name", f"which {kind}{listing(known)}")
            return default
        if child.value in known:
            return str(child.value)
        self.refuse(child, f"no {kind} is called {_shown(child)}{suggest(str(child.value), known)}")
        return None


Reader = Callable[[Reading, Node], Any]


def entries(reading: Reading, node: Node | None) -> Mapping[str, Node]:
    """Give the entries of a map; none, with a problem recorded, if it is no map."""
    if node is None or node.value is None:
        return {}
    if not isinstance(node.value, dict):
        reading.refuse(node, f"must be a map of keys, not {_shown(node)}")
        return {}
    return node.value


def suggest(name: str, known: Collection[str]) -> str:
    """Say what may have been meant instead of an unknown name."""
    folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1)
    return f"; did you mean {folded[near[0]]}?" if near else listing(known)


def listing(known: Collection[str]) -> str:
    """List names for the end of a message."""
    return f"; there are {', '.join(known)}" if known else "; there are none"


def flag(_: Reading, node: Node) -> bool:
    """Read true or false."""
    if not isinstance(node.value, bool):
        raise Unusable(f"must be true or false, not {_shown(node)}")
    return node.value


def text(_: Reading, node: Node) -> str:
    """Read text; a number counts as text."""
    if isinstance(node.value, (dict, list, bool)) or str(node.value) == "":
        raise Unusable(f"must be text, not {_shown(node)}")
    return str(node.value)


def path(_: Reading, node: Node) -> Path | None:
    """Read a path, relative to where the command runs; an empty one counts as absent."""
    if not isinstance(node.value, str):
        raise Unusable(f"must be a path, not {_shown(node)}")
    return Path(node.value) if node.value else None


def whole(least: int, most: int | None = None) -> Reader:
    """Make a reader of whole numbers in a range."""

    def read(_: Reading, node: Node) -> int:
        value = node.value
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < least or (most is not None and value > most):
            wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise Unusable(f"must be a whole number {wanted}, not {_shown(node)}")
        return int(value)

    return read


def number(
    least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf, below: float = math.inf
) -> Reader:
    """Make a reader of finite numbers in a range; ``least`` and ``most`` belong to it, ``above`` and ``below`` do not.

    YAML takes ``1e-5`` for text, because it has no point; here it is a number.
    """

    ends = {"of at least": least, "above": above, "of at most": most, "below": below}
    bounds = " and".join(f" {word} {end:g}" for word, end in ends.items() if math.isfinite(end))

    def read(_: Reading, node: Node) -> float:
        value = node.value
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and least <= value <= most and above < value < below):
            raise Unusable(f"must be a number{bounds}, not {_shown(node)}")
        return float(value)

    return read


def one_of(*names: str) -> Reader:
    """Make a reader of names, which may be written in any case."""

    def read(_: Reading, node: Node) -> str:
        folded = {name.lower(): name for name in names}
        name = folded.get(node.value.lower()) if isinstance(node.value, str) else None
        if name is None:
            raise Unusable(f"must be one of {', '.join(names)}, not {_shown(node)}")
        return name

    return read


def list_of(reader: Reader, *, single: bool = False) -> Reader:
    """Make a reader of lists; with ``single`` a bare value counts as a list of one."""

    def read(reading: Reading, node: Node) -> Any:
        if not isinstance(node.value, list):
            if single:
                return (reader(reading, node),)
            raise Unusable(f"must be a list, not {_shown(node)}")
        values = tuple(reading.read(child, reader, ABSENT) for child in node.value)
        return ABSENT if ABSENT in values else values

    return read


def named_maps(reading: Reading, node: Node) -> list[tuple[str, Node]]:
    """Read a list of one-key maps, as ``Loss.Train`` and ``Metric.Eval`` are: name and settings of each."""
    if not isinstance(node.value, list):
        raise Unusable(f"must be a list of names with their settings, not {_shown(node)}")
    found: list[tuple[str, Node]] = []
    for child in node.value:
        if isinstance(child.value, dict) and len(child.value) == 1:
            found += child.value.items()
        else:
            reading.refuse(child, f"must be one name with its settings below it, not {_shown(child)}")
    return found


def anything(_: Reading, node: Node) -> Any:
    """Read a value that is checked elsewhere."""
    return node.plain()


def node_itself(_: Reading, node: Node) -> Node:
    """Give the node, for a section that is read later."""
    return node


def without_effect(why: str) -> Reader:
    """Accept a key that does nothing here, with a note."""

    def read(reading: Reading, node: Node) -> Any:
        reading.note(node, f"has no effect here: {why}")
        return ABSENT

    return read


def only(accepted: Any, otherwise: str) -> Reader:
    """Accept the one value that asks for what happens anyway, and say why there is no other."""

    def read(_: Reading, node: Node) -> Any:
        if node.plain() != accepted or isinstance(accepted, bool) != isinstance(node.value, bool):
            raise Unusable(f"{_shown(node)} cannot be honoured: {otherwise}")
        return ABSENT

    return read


def settings_of(kind: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Reader]:
    """Make readers for the parameters that a registered class or function takes, by their annotations.

    Args:
        kind: from a registry such as :data:`models.losses.LOSSES`.
        without: parameters that a configuration may not give.
    """
    readers: dict[str, Reader] = {"bool": flag, "int": whole(0), "float": number(), "str": text}
    readers["Sequence[int]"] = list_of(whole(0))
    found = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        annotation = parameter.annotation
        annotation = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        if name not in without and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            found[name] = readers.get(annotation.removesuffix(" | None"), anything)
    return found


def required_by(kind: Callable[..., Any]) -> list[str]:
    """Name the parameters without a default."""
    parameters = inspect.signature(kind).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]


def _shown(node: Node) -> str:
    """Show a value, cut where it is long."""
    shown = repr(node.plain())
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
