"""PP-ShiTu's gallery lists: delimiters, odd labels, bad lines, stable ids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.commands.listing import Entry, ListingError, parse_listing, read_listing


def test_labels_keep_blanks_cjk_and_punctuation() -> None:
    listing = parse_listing(["0/0.jpg\t茉莉 花茶/原味_500ml…", "1/0 front.jpg\tTwo words, and more", ""])
    assert [(entry.path, entry.label) for entry in listing.entries] == [
        ("0/0.jpg", "茉莉 花茶/原味_500ml…"),
        ("1/0 front.jpg", "Two words, and more"),
    ]
    assert listing.bad_lines == ()


def test_a_line_is_cut_at_the_first_delimiter_only() -> None:
    assert parse_listing(["a.jpg Green tea 500 ml"], " ").entries[0].label == "Green tea 500 ml"
    assert parse_listing(["a.jpg,Tea, green"], ",").entries[0].label == "Tea, green"


def test_byte_order_marks_windows_line_ends_and_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa.jpg\tCola\r\n\r\nb.jpg\tTea\r\n  \n".encode())
    listing = read_listing(path)
    assert [(entry.path, entry.label, entry.line) for entry in listing.entries] == [
        ("a.jpg", "Cola", 1),
        ("b.jpg", "Tea", 3),
    ]


def test_bad_lines_are_told_with_their_numbers() -> None:
    listing = parse_listing(["a.jpg\tCola", "only-a-path.jpg", "b.jpg\t", "c.jpg Tea"])
    assert [entry.path for entry in listing.entries] == ["a.jpg"]
    assert [bad.line for bad in listing.bad_lines] == [2, 3, 4]
    assert all("no label" in bad.reason for bad in listing.bad_lines)


def test_a_list_for_removal_needs_no_labels() -> None:
    listing = parse_listing(["a.jpg", "b.jpg\tTea", "b.jpg\tCoffee"], labels=False)
    assert [entry.path for entry in listing.entries] == ["a.jpg", "b.jpg"]
    assert listing.bad_lines == ()


def test_a_path_counts_once_and_contradicting_labels_are_told() -> None:
    listing = parse_listing(["a.jpg\tCola", "./a.jpg\tCola", "x/../a.jpg\tTea"])
    assert [(entry.path, entry.label) for entry in listing.entries] == [("a.jpg", "Cola")]
    (bad,) = listing.bad_lines
    assert bad.line == 3
    assert "'Cola' in line 1" in bad.reason


def test_ids_depend_on_the_path_alone_and_are_valid() -> None:
    first, moved = Entry("牛奶/0.jpg", "Milk", 1), Entry("牛奶/0.jpg", "Milch", 7)
    assert first.id == moved.id != Entry("牛奶/1.jpg", "Milk", 1).id
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", first.id)
    assert first.source == "file:牛奶/0.jpg"
    # Written down, because galleries that exist depend on it.
    assert Entry("0/0.jpg", "x", 1).id == "file:60eec52ce31ceadd4f10c57c52fed39a"


def test_a_list_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ListingError, match=r"none\.txt cannot be read: No such file"):
        read_listing(tmp_path / "none.txt")
    gbk = tmp_path / "gbk.txt"
    gbk.write_bytes("a.jpg\t牛奶\n".encode("gbk"))
    with pytest.raises(ListingError, match="not UTF-8"):
        read_listing(gbk)
