"""YAML with places: every value knows its line, and overrides lie over it."""

from pathlib import Path

import pytest
import yaml

from models.yaml_tree import Node, YamlProblem, read_tree, with_override

TEXT = """\
# a comment
one:
  two: 2
  three: [a, {b: c}]

four: &anchor
  - five: null
six: *anchor
seven:
  <<: {x: 1, y: 2}
  y: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(TEXT, "utf-8")
    return path


def leaves(node: Node) -> list[Node]:
    if isinstance(node.value, dict):
        return [leaf for child in node.value.values() for leaf in leaves(child)]
    if isinstance(node.value, list):
        return [leaf for child in node.value for leaf in leaves(child)]
    return [node]


def test_it_reads_what_yaml_reads(file: Path) -> None:
    assert read_tree(file).plain() == yaml.safe_load(TEXT)


def test_every_value_knows_its_line_and_key(file: Path) -> None:
    places = {leaf.key: leaf.source for leaf in leaves(read_tree(file))}
    assert places == {
        "one.two": f"{file}:3",
        "one.three.0": f"{file}:4",
        "one.three.1.b": f"{file}:4",
        "four.0.five": f"{file}:7",
        "six.0.five": f"{file}:7",
        "seven.x": f"{file}:10",
        "seven.y": f"{file}:11",
    }


def test_an_empty_file_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# only a comment\n", "utf-8")
    assert read_tree(path).value is None


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("one.two=5", ["one", "two"], 5),
        ("one.two=", ["one", "two"], None),
        ("one.two=[1, 2]", ["one", "two"], [1, 2]),
        ("one.two={a: true}", ["one", "two"], {"a": True}),
        ("one.three.1.b=1.5", ["one", "three", 1, "b"], 1.5),
        ("four.0.five.new.deep=x=y", ["four", 0, "five", "new", "deep"], "x=y"),
        ("fresh.key=1", ["fresh", "key"], 1),
    ],
)
def test_an_override_changes_one_value(file: Path, override: str, keys: list[str | int], value: object) -> None:
    before = read_tree(file)
    after = with_override(before, override)
    expected = yaml.safe_load(TEXT)
    inner = expected
    for key in keys[:-1]:
        if isinstance(inner, dict) and inner.get(key) is None:
            inner[key] = {}
        inner = inner[key]
    inner[keys[-1]] = value
    if keys[0] == "four":  # PyYAML gives `six` the same object; a tree has two
        expected["six"] = before.plain()["six"]
    assert after.plain() == expected
    assert before.plain() == yaml.safe_load(TEXT)


def test_an_override_is_the_place_of_its_values(file: Path) -> None:
    root = with_override(read_tree(file), "one.three={a: 1}")
    three = root.value["one"].value["three"]
    assert three.place == "-o one.three"
    assert three.value["a"].place == "-o one.three: one.three.a"
    assert root.value["one"].value["two"].place == f"{file}:3: one.two"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("one.two", "-o one.two: must be written as key.key=value"),
        ("=3", "-o =3: must be written as"),
        ("one.three.2=1", "-o one.three.2: one.three is a list of 2 entries, numbered from 0; it has no '2'"),
        ("one.three.b=1", "it has no 'b'"),
        ("one.two.x=1", "-o one.two.x: one.two is 2, which has no 'x' in it"),
        ("one.two=[1", "-o one.two: not valid YAML"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(YamlProblem) as caught:
        with_override(read_tree(file), override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ":3: not valid YAML"),
        (b"a: 1\n\tb: 2\n", ":2: not valid YAML"),
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", ":4: b.c is given twice; first at"),
        (b"a: !!python/object/apply:os.system [ls]\n", ":1: a: the tag"),
        (b"a: 2026-13-45\n", "not valid YAML"),
        (b"a: \xff\n", "is not UTF-8 text"),
        (b"a: " + b"[" * 30 + b"]" * 30, "nested deeper than 20 levels"),
        (b"a: &x [*x]\n", "nested deeper than 20 levels"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(YamlProblem) as caught:
        read_tree(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(YamlProblem, match=r"none\.yaml: cannot be read: No such file"):
        read_tree(tmp_path / "none.yaml")
