"""Lines of keys: what they mean, and that every mistake in them is told with its place and without a secret."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import KeyFileError
from service.security.access import SCOPES
from service.security.key_lines import Source, new_key, parse, write_line
from service.security.keys import digest_of, is_key, make_key
from service.security.limits import LimitOverrides

from ..conftest import Issue

HASH = f"sha256:{'ab' * 32}"
OTHER = f"sha256:{'cd' * 32}"


def problems(*texts: str) -> tuple[str, ...]:
    with pytest.raises(KeyFileError) as caught:
        parse([Source(f"file{number}", text) for number, text in enumerate(texts, 1)])
    return caught.value.problems


def test_a_line_gives_name_scopes_hash_and_limits() -> None:
    text = f"# tills\n\n  camera1\tsearch,gallery  {HASH}  rate=0.5 burst=20 concurrent=4  # by the door; left\r\n"
    (key,) = parse([Source("keys.txt", text)])
    assert (key.name, key.scopes) == ("camera1", {"search", "gallery"})
    assert key.digest == bytes.fromhex("ab" * 32)
    assert key.limits == LimitOverrides(0.5, 20, 4)


def test_limits_can_be_lifted_and_left_alone() -> None:
    first, second = parse([Source("keys.txt", f"a search {HASH} rate=none concurrent=none\nb admin {OTHER}")])
    assert first.limits == LimitOverrides(math.inf, None, math.inf)
    assert second.limits == LimitOverrides()


def test_a_variable_parts_its_lines_by_semicolons_too() -> None:
    keys = parse([Source.variable("SHITU_API_KEYS", f"a search {HASH}; b admin {OTHER};")])
    assert [key.name for key in keys] == ["a", "b"]


@pytest.mark.parametrize("first", ["# made by hand\n", "\n", ""])
def test_a_file_may_begin_with_a_byte_order_mark(first: str) -> None:
    (key,) = parse([Source("keys.txt", f"\ufeff{first}a search {HASH}")])
    assert key.name == "a"


def test_all_mistakes_are_told_together_with_their_lines() -> None:
    text = "\n".join(
        [
            "# a comment",
            f"ok search {HASH}",
            "short search",
            f"b@d search {OTHER}",
            f"scopes search,root {OTHER}",
            f"again search,search {OTHER}",
            "hash search sha256:zz",
            f"limit search {OTHER} speed=3",
            f"rate search {OTHER} rate=-1",
            f"burst search {OTHER} burst=none",
            f"both search {OTHER} rate=none burst=3",
            f"ok gallery {OTHER}",
            f"same search {HASH}",
        ]
    )
    found = problems(text)
    assert [problem.partition(": ")[0] for problem in found] == [f"file1:{number}" for number in range(3, 14)]
    assert "the name ok is there already, in file1:2" in found[-2]
    assert "the hash is there already, in file1:2" in found[-1]


def test_names_and_hashes_are_unique_in_all_sources_together() -> None:
    assert problems(f"a search {HASH}", f"a search {OTHER}") == ("file2:1: the name a is there already, in file1:1",)
    assert problems(f"a search {HASH}", f"b search {HASH}") == ("file2:1: the hash is there already, in file1:1",)


@pytest.mark.parametrize("column", range(4))
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(column: int) -> None:
    secret = make_key()
    words = ["a", "search", HASH, "rate=1"]
    words[column] = secret
    (problem,) = problems(" ".join(words))
    assert secret not in problem
    assert HASH not in problem


WORDS = st.sampled_from(["a", "b", "search", "admin,search", HASH, OTHER, "rate=1", "rate=none", "burst=2", "#", "\n"])
TEXTS = st.lists(WORDS | st.text(max_size=12), max_size=30).map(" ".join) | st.text()


@given(TEXTS)
@example("a search sha256:" + "٣" * 64)
@example("a search " + HASH + " rate=٣")
@example("\udcff\udcfe")
def test_any_text_is_keys_or_mistakes_with_lines(text: str) -> None:
    try:
        keys = parse([Source("keys.txt", text)])
    except KeyFileError as error:
        assert error.problems
        lines = [int(re.match(r"keys\.txt:(\d+): ", problem)[1]) for problem in error.problems]  # type: ignore[index]
        assert lines == sorted(lines)
        assert all(1 <= line <= text.count("\n") + 1 for line in lines)
    else:
        again = parse([Source("again", "\n".join(map(write_line, keys)))])
        assert list(again) == list(keys)


@given(
    st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(lambda name: not name.startswith("shitu_")),
    st.sets(st.sampled_from(SCOPES), min_size=1),
    st.fixed_dictionaries(
        {},
        optional={
            "rate": st.decimals("0.000001", 999_999, places=6).map("{:f}".format),
            "burst": st.integers(1, 10**6).map(str),
            "concurrent": st.integers(1, 10**6).map(str) | st.just("none"),
        },
    ),
)
def test_a_written_line_reads_back(name: str, scopes: set[str], limits: dict[str, str]) -> None:
    key = new_key(name, sorted(scopes), digest_of(make_key()), limits)
    assert list(parse([Source("x", write_line(key))])) == [key]


def test_keys_are_long_random_and_of_one_form() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_key(key) and len(key) == len("shitu_") + 43 for key in keys)
    assert not is_key("shitu_password")


def test_every_digest_is_compared_wherever_the_key_is(issue: Issue, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = [issue(f"key{number}", "search") for number in range(5)]
    ring = parse([Source("keys.txt", "\n".join(each.line for each in issued))])
    compared: list[bytes] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append(first)
        return first == second

    monkeypatch.setattr("hmac.compare_digest", compare)
    for number, each in enumerate(issued):
        found = ring.find(each.secret)
        assert found is not None
        assert found.name == f"key{number}"
    assert ring.find(make_key()) is None
    assert compared == [key.digest for key in ring] * 6
