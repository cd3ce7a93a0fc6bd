"""YAML that remembers where each value was written, so that a message about it can say so.

:func:`read_tree` reads a file; :func:`with_override` lays a value given on the command line (``-o a.b=value``) over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

_MAX_DEPTH = 20


class YamlProblem(Exception):
    """A text is not YAML that can be used; the message names file and line, or the override."""


@dataclass(frozen=True)
class Node:
    """A value and where it was written.

    Attributes:
        value: of a map its nodes by key, of a list its nodes, else what YAML makes of the text.
        key: the full dotted key, list entries by number; empty for the whole file.
        source: ``file:line`` of the key (of a list entry, of the entry), or ``-o key`` of an override.
    """

    value: Any
    key: str
    source: str

    @property
    def place(self) -> str:
        """The start of a message about this value: source and key."""
        return self.source if not self.key or self.source == f"-o {self.key}" else f"{self.source}: {self.key}"

    def child(self, key: str) -> str:
        """Give the full key of an entry."""
        return f"{self.key}.{key}" if self.key else key

    def plain(self) -> Any:
        """Give the value without places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read_tree(path: Path) -> Node:
    """Read a YAML file in UTF-8.

    Raises:
        YamlProblem: it cannot be read, is not YAML, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise YamlProblem(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise YamlProblem(f"{path}: is not UTF-8 text ({error.reason})") from None
    return _parse(text, "", lambda line: f"{path}:{line}")


def with_override(root: Node, override: str) -> Node:
    """Lay ``a.b=value`` over a tree. The value is read as YAML; maps on the way are made where they are missing.

    Raises:
        YamlProblem: it is not ``key=value``, the value is not YAML, or the key leads through something that has no
            such entry.
    """
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise YamlProblem(f"-o {override}: must be written as key.key=value")
    leaf = _parse(text, key, lambda _: f"-o {key}")
    return _replace(root, key.split("."), leaf)


def _replace(node: Node, keys: list[str], leaf: Node) -> Node:
    if not keys:
        return leaf
    key, *rest = keys
    if node.value is None or isinstance(node.value, dict):
        below = (node.value or {}).get(key) or Node(None, node.child(key), leaf.source)
        return replace(node, value={**(node.value or {}), key: _replace(below, rest, leaf)})
    if isinstance(node.value, list):
        if not key.isdecimal() or int(key) >= len(node.value):
            raise YamlProblem(
                f"{leaf.source}: {node.key} is a list of {len(node.value)} entries, numbered from 0; it has no {key!r}"
            )
        entries = list(node.value)
        entries[int(key)] = _replace(entries[int(key)], rest, leaf)
        return replace(node, value=entries)
    raise YamlProblem(f"{leaf.source}: {node.key} is {node.value!r}, which has no {key!r} in it")


def _parse(text: str, key: str, source: Callable[[int], str]) -> Node:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return Node(None, key, source(1)) if root is None else _convert(loader, root, key, source, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise YamlProblem(f"{source(line)}: not valid YAML: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-13-01 looks like a date and is none
        raise YamlProblem(f"{source(1)}: not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _convert(loader: yaml.SafeLoader, node: yaml.Node, key: str, source: Callable[[int], str], depth: int) -> Node:
    here = Node(None, key, source(node.start_mark.line + 1))
    if depth > _MAX_DEPTH:
        raise YamlProblem(f"{here.place}: nested deeper than {_MAX_DEPTH} levels")
    if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
        raise YamlProblem(f"{here.place}: the tag {node.tag} is not used here")
    if isinstance(node, yaml.MappingNode):
        _refuse_repeats(loader, node, here, source)
        loader.flatten_mapping(node)  # what `<<` merges comes first, so that the map's own keys replace it
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            name = str(loader.construct_object(key_node))
            below = _convert(loader, value_node, here.child(name), source, depth + 1)
            entries[name] = replace(below, source=source(key_node.start_mark.line + 1))
        return replace(here, value=entries)
    if isinstance(node, yaml.SequenceNode):
        nodes = [_convert(loader, child, here.child(str(n)), source, depth + 1) for n, child in enumerate(node.value)]
        return replace(here, value=nodes)
    return replace(here, value=loader.construct_object(node))


def _refuse_repeats(loader: yaml.SafeLoader, node: yaml.MappingNode, here: Node, source: Callable[[int], str]) -> None:
    first: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = str(loader.construct_object(key_node)), key_node.start_mark.line + 1
        if name in first:
            raise YamlProblem(f"{source(line)}: {here.child(name)} is given twice; first at {source(first[name])}")
        first[name] = line
