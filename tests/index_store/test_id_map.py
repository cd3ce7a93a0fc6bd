"""The restricted reader of ``id_map.pkl``: what it takes, and that nothing in a pickle ever runs."""

from __future__ import annotations

import codecs
import collections
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store import ForeignGallery
from index_store.id_map import read_id_map

PROTOCOLS = [2, 3, 4, 5]
TEXTS = {0: "a.jpg\tCola 0.33 l", 1: "饮料/b.jpg\t绿茶", 7: "", 300: "x" * 300, 70_000: "x", 1 << 40: "y", -1: "z"}
STR_0 = b"\x8c\x010"  # SHORT_BINUNICODE "0"


def wrapped(value: bytes) -> bytes:
    """The pickle of {0: value}, for the operations that make a value."""
    return b"\x80\x04}K\x00" + value + b"s."


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_plain_dict_is_read(protocol: int) -> None:
    assert read_id_map(pickle.dumps(TEXTS, protocol), 10) == TEXTS
    assert read_id_map(pickle.dumps({}, protocol), 0) == {}
    assert read_id_map(pickle.dumps({5: "one"}, protocol), 1) == {5: "one"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_python_code_reads_alike(protocol: int) -> None:
    assert read_id_map(pickle._dumps(TEXTS, protocol), 10) == TEXTS


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["<i8", ">i4", "<u2", "i1", "u8"])
def test_integers_of_numpy_become_plain_ones(protocol: int, kind: str) -> None:
    numbers = np.array([0, 1, 2, 100, 127], kind)
    entries = {number: f"text {number}" for number in numbers}
    read = read_id_map(pickle.dumps(entries, protocol), 5)
    assert read == entries
    assert {type(number) for number in read} == {int}


def test_negative_integers_of_numpy_keep_their_sign() -> None:
    assert read_id_map(pickle.dumps({np.int16(-3): "x", np.int16(4): "y"}), 2) == {-3: "x", 4: "y"}


def test_the_name_of_numpy_1_is_known() -> None:
    new = pickle.dumps({np.int64(3): "x"}, 2)
    assert b"numpy._core.multiarray" in new
    assert read_id_map(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"), 1) == {3: "x"}


def test_many_entries_and_a_text_that_comes_again_are_read() -> None:
    entries = {np.int64(number): "the same text" if number % 2 else f"text {number}" for number in range(5_000)}
    assert read_id_map(pickle.dumps(entries), 5_000) == entries


# What must not run


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: Path) -> dict[str, Any]:
    system = Call(os.system, f"touch {marker}")
    write = Call(eval, f"open({str(marker)!r}, 'w').close()")
    return {
        "the dict itself": system,
        "a text": {0: system},
        "a text, through eval": {0: write},
        "a text after good ones": {0: "a", 1: "b", 2: write},
        "an id": {system: "a"},
        "nested": {0: {1: [write]}},
        "a class that is a dict": collections.OrderedDict([(0, system)]),
        "an argument of a numpy integer": {Call(type(np.int64(0)), system): "x"},
        "a bytes codec": {0: Call(codecs.encode, system, "latin1")},
    }


@pytest.mark.parametrize("protocol", [0, 1, *PROTOCOLS])
@pytest.mark.parametrize("where", hostile(Path()))
def test_a_call_is_refused_and_not_made(tmp_path: Path, where: str, protocol: int) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps(hostile(marker)[where], protocol)
    with pytest.raises(ForeignGallery):
        read_id_map(data, 10)
    assert not marker.exists()


def test_a_call_that_unpickling_makes_is_one_in_these_tests(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(hostile(marker)["a text, through eval"]))
    assert marker.exists()


def test_a_refused_name_is_told() -> None:
    with pytest.raises(ForeignGallery, match="asks for 'builtins' 'eval'; nothing was run"):
        read_id_map(pickle.dumps({0: Call(eval, "1")}), 1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(pickle.dumps({0: "a"}, 0), "protocol 2 to 5", id="protocol 0"),
        pytest.param(b"\x80\x06}.", "protocol 2 to 5", id="a protocol there is not"),
        pytest.param(pickle.dumps({"0": "a"}), "an entry of str to str", id="a text as id"),
        pytest.param(pickle.dumps({0: 1}), "an entry of int to int", id="a number as text"),
        pytest.param(pickle.dumps({0: b"a"}), "an entry of int to bytes", id="bytes as text"),
        pytest.param(pickle.dumps({True: "a"}), "an entry of bool to str", id="a truth as id"),
        pytest.param(pickle.dumps({0.0: "a"}), "BINFLOAT", id="a float as id"),
        pytest.param(pickle.dumps({np.float64(0): "a"}), "another type", id="a numpy float as id"),
        pytest.param(pickle.dumps({(0, 1): "a"}), "an entry of tuple", id="a tuple as id"),
        pytest.param(pickle.dumps([0]), "EMPTY_LIST", id="a list"),
        pytest.param(pickle.dumps("a"), "not a plain dict", id="a text alone"),
        pytest.param(pickle.dumps({0: {}}), "several", id="a dict as text"),
        pytest.param(pickle.dumps(np.arange(3)), "nothing was run", id="an array"),
        pytest.param(pickle.dumps(Path("x")), "nothing was run", id="an object"),
        pytest.param(wrapped(b"\x82\x01"), "EXT1", id="an extension code"),
        pytest.param(wrapped(b"Pid\n"), "PERSID", id="a persistent id"),
        pytest.param(wrapped(b"\x8c\x08builtins\x8c\x04eval\x93"), "asks for", id="a name"),
        pytest.param(wrapped(b"cnumpy\ndtype\n"), "an entry of int to Name", id="a known name as text"),
        pytest.param(wrapped(STR_0 + STR_0 + b"R"), "calls something", id="a call of a text"),
        pytest.param(wrapped(STR_0 + STR_0 + b"b"), "builds something", id="the state of a text"),
        pytest.param(wrapped(b"cnumpy\ndtype\n\x8c\x01O\x89\x88\x87R"), "another type", id="numpy objects"),
        pytest.param(wrapped(b"}"), "several", id="a second dict"),
        pytest.param(b"\x80\x04}h\x00.", "no whole pickle", id="a memo that was not set"),
        pytest.param(b"\x80\x04}K\x00K\x01u.", "mark is missing", id="a mark that is missing"),
        pytest.param(b"\x80\x04}K\x00s.", "no whole pickle", id="an entry without an id"),
        pytest.param(b"\x80\x04}(K\x00" + STR_0 + b"K\x00u.", "not a plain dict", id="half an entry"),
        pytest.param(wrapped(STR_0)[:-1] + b"K\x00" + STR_0 + b"s.", "id 0 twice", id="an id twice"),
        pytest.param(b"\x80\x04}}.", "several", id="two dicts"),
        pytest.param(b"\x80\x04}N.", "not a plain dict", id="something over the dict"),
        pytest.param(b"\x80\x04.", "not a plain dict", id="nothing"),
        pytest.param(pickle.dumps({}) + b"x", "more in it", id="more than a pickle"),
        pytest.param(b"", "no whole pickle", id="an empty file"),
        pytest.param(b"PK\x03\x04", "no whole pickle|not a plain dict", id="a zip"),
        pytest.param(wrapped(b"\x8d" + struct.pack("<Q", 1 << 62)), "no whole pickle", id="a text that is not there"),
        pytest.param(wrapped(b"X" + struct.pack("<I", 1 << 31)), "no whole pickle", id="a long text that is not there"),
        pytest.param(wrapped(b"\x8c\x02\xff\xfe"), "no whole pickle", id="a text that is not UTF-8"),
        pytest.param(wrapped(b"2" * 1000), "DUP", id="copies"),
        pytest.param(wrapped(STR_0 + b"\x85" * 100_000), "TUPLE1", id="tuples in tuples"),
        pytest.param(wrapped(b"N" + b"N\x86" * 100_000), "an entry of int to tuple", id="pairs in pairs"),
        pytest.param(wrapped(b"N" + b"N\x86" * 100_000 + STR_0 + b"\x93"), "asks for tuple", id="pairs as a name"),
        pytest.param(b"\x80\x04}" + b"(" * 100_000 + b"u.", "not a plain dict", id="marks"),
    ],
)
def test_anything_else_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ForeignGallery, match=says):
        read_id_map(data, 10)


def test_a_huge_memo_number_costs_nothing() -> None:
    assert read_id_map(b"\x80\x04}r\xff\xff\xff\xffK\x00" + STR_0 + b"s.", 1) == {0: "0"}


def test_more_entries_than_allowed_are_refused() -> None:
    with pytest.raises(ForeignGallery, match="more ids than the index has vectors"):
        read_id_map(pickle.dumps({0: "a", 1: "b"}), 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere_is_refused(protocol: int) -> None:
    whole = pickle.dumps({np.int64(0): "a", np.int64(1): "b"}, protocol)
    for length in range(len(whole)):
        with pytest.raises(ForeignGallery):
            read_id_map(whole[:length], 2)


def test_damage_is_refused_or_leaves_integers_and_texts(rng: random.Random) -> None:
    wholes = [pickle.dumps({np.int64(0): "a\tb", np.int64(1): "c"}, protocol) for protocol in PROTOCOLS]
    for _ in range(3_000):
        damaged = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read = read_id_map(bytes(damaged), 2)
        except ForeignGallery:
            continue
        assert all(type(key) is int and type(text) is str for key, text in read.items())
