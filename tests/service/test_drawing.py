"""Drawing what was found: legible in every script, within the picture, and without touching what is not marked."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from service.drawing import LONGEST_SIDE_PX, Colour, Mark, draw_marks, readable_ink

GREY = (128, 128, 128)
LONG = "Cola 0.33 l, bottle"
RED, GREEN, BLUE, VIOLET = (220, 20, 30), (20, 200, 60), (30, 60, 220), (150, 40, 200)


def sheet(width: int = 640, height: int = 480) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def is_colour(picture: np.ndarray, colour: Colour) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(axis=2)


def tag_of(label: str | None, distance: int | None = 7) -> np.ndarray:
    """A picture of one short tag; equal tags give equal pictures."""
    return draw_marks(sheet(), [Mark((40, 200, 600, 300), label, distance, colour=RED)])


@pytest.mark.parametrize(
    "characters", ["农夫山泉橙汁茶乌龙", "かなカタカナ", "한국어라면", "日本語", "aBßÄéñ", "ЖдПя", "/_·…-"]
)
def test_every_character_has_its_own_shape(characters: str) -> None:
    """Neither boxes nor question marks: every character looks unlike every other and unlike a missing one."""
    missing = tag_of("\N{THAI CHARACTER KO KAI}")
    assert np.array_equal(missing, tag_of("?"))
    drawn = {character: tag_of(character) for character in (*characters, "?")}
    for a, b in itertools.combinations(drawn, 2):
        if a != b:
            assert not np.array_equal(drawn[a], drawn[b]), (a, b)


def test_characters_of_several_scripts_stand_in_one_line() -> None:
    mixed = tag_of("农夫山泉 / NFC_500ml 한국어")
    for other in ("农夫山泉 / NFC_500ml 한국", "?夫山泉 / NFC_500ml 한국어", "农夫山泉 / NFC_500ml ???"):
        assert not np.array_equal(mixed, tag_of(other))


def test_what_has_no_shape_is_left_out() -> None:
    assert np.array_equal(tag_of("two \t\n words\u200d\u202e\x00"), tag_of("two words"))
    assert np.array_equal(tag_of("\ud800x"), tag_of("x"))


@pytest.mark.parametrize("label", ["", " \n", "\u202e"])
def test_a_label_of_nothing_still_has_its_distance(label: str) -> None:
    assert not np.array_equal(tag_of(label, 7), tag_of(label, 8))


def test_label_and_distance_are_both_told() -> None:
    pictures = [tag_of("Cola", 61), tag_of("Cola", 62), tag_of("Coda", 61), tag_of("Cola", 1), tag_of(None, None)]
    for a, b in itertools.combinations(pictures, 2):
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("letter", ["W", "橙", "i"])
def test_a_long_label_is_shortened_and_keeps_its_distance(letter: str) -> None:
    narrow = (300, 200, 340, 240)

    def drawn(count: int, distance: int) -> np.ndarray:
        return draw_marks(sheet(), [Mark(narrow, letter * count, distance, colour=RED)])

    assert np.array_equal(drawn(300, 61), drawn(512, 61))
    assert not np.array_equal(drawn(300, 61), drawn(300, 67))
    assert not np.array_equal(drawn(300, 61), drawn(3, 61))
    columns = np.flatnonzero(is_colour(drawn(512, 61), RED).any(axis=0))
    assert np.ptp(columns) < 0.45 * 640


def test_the_frame_lies_around_the_box_and_the_rest_is_untouched() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (480, 640, 3), np.uint8)
    before = picture.copy()
    x1, y1, x2, y2 = box = (200, 150, 400, 300)
    drawn = draw_marks(picture, [Mark(box, "x", 3, colour=RED)])
    assert np.array_equal(picture, before)
    assert np.array_equal(drawn[y1:y2, x1:x2], before[y1:y2, x1:x2])
    assert np.array_equal(drawn[y2 + 10 :], before[y2 + 10 :])
    assert np.array_equal(drawn[:, x2 + 10 :], before[:, x2 + 10 :])
    frame = is_colour(drawn, RED)
    for x in (x1 - 2, x2 + 1):
        assert frame[y1 - 2 : y2 + 2, x].all()
    assert frame[y2 + 1, x1 - 2 : x2 + 2].all()


def test_every_object_has_its_own_colour_and_what_has_no_match_is_grey() -> None:
    boxes = [(20 + 120 * i, 200, 100 + 120 * i, 280) for i in range(5)]
    marks = [Mark(box, None if i == 4 else "", i) for i, box in enumerate(boxes)]
    drawn = draw_marks(sheet(), marks)
    colours = [tuple(int(value) for value in drawn[240, box[2] + 1]) for box in boxes]
    assert len(set(colours)) == 5
    assert all(max(colour) - min(colour) > 60 for colour in colours[:4])
    assert max(colours[4]) - min(colours[4]) < 30


@pytest.mark.parametrize("paper", [RED, GREEN, BLUE, VIOLET, (255, 255, 0), (0, 0, 0), (255, 255, 255), GREY])
def test_letters_stand_out_from_their_tag(paper: Colour) -> None:
    """WCAG's contrast ratio, at least 4: above its level AA for large letters."""

    def luminance(colour: Colour) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(paper), luminance(readable_ink(paper))])
    assert (light + 0.05) / (dark + 0.05) >= 4


def test_colours_chosen_for_many_objects_bear_letters() -> None:
    drawn = draw_marks(sheet(1600, 1200), [Mark((x, 600, x + 8, 700), "", 0) for x in range(10, 1590, 16)])
    colours = {tuple(map(int, pixel)) for pixel in drawn[650]} - {GREY}
    assert len(colours) > 99
    for colour in colours:
        test_letters_stand_out_from_their_tag(colour)


def test_the_whole_picture_gets_a_thinner_frame_with_a_tag() -> None:
    whole = Mark((0, 0, 640, 480), "Cola", 9, is_whole_image=True, colour=RED)
    thin = is_colour(draw_marks(sheet(), [whole]), RED)
    thick = is_colour(draw_marks(sheet(), [Mark(whole.box, "Cola", 9, colour=RED)]), RED)
    middle = 240
    assert 0 < thin[middle].sum() < thick[middle].sum()
    assert thin[:40].sum() > 1000
    assert thin[-40:].sum() < thin[:40].sum()


def test_tags_that_would_meet_make_room_for_each_other() -> None:
    """A tag that nothing covers shows as many pixels of its colour as it does alone."""
    boxes = [(10, 200, 60, 260), (70, 200, 120, 260), (130, 200, 180, 260), (190, 200, 240, 260)]
    colours = (RED, GREEN, BLUE, VIOLET)
    label = "a label wider than its box"
    marks = [Mark(box, label, 12, colour=colour) for box, colour in zip(boxes, colours, strict=True)]
    together = draw_marks(sheet(), marks)
    for mark in marks:
        alone = draw_marks(sheet(), [mark])
        assert mark.colour is not None
        shown, expected = (is_colour(picture, mark.colour).sum() for picture in (together, alone))
        assert shown > 0.9 * expected  # a tag may cover a piece of another one's frame


@pytest.mark.parametrize("corner", [(0, 0), (630, 0), (0, 470), (630, 470)])
def test_tags_stay_inside_the_picture(corner: tuple[int, int]) -> None:
    x, y = corner
    here = draw_marks(sheet(), [Mark((x, y, x + 10, y + 10), LONG, 12, colour=RED)])
    middle = draw_marks(sheet(), [Mark((300, 200, 310, 210), LONG, 12, colour=RED)])
    ink = readable_ink(RED)
    # Its letters are all there; of the frame, whose hairlines have their colour, the half is outside.
    assert is_colour(here, ink).sum() > 0.65 * is_colour(middle, ink).sum()


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [
        ((640, 480), (640, 480)),
        ((1600, 1200), (1600, 1200)),
        ((3200, 1600), (1600, 800)),
        ((1000, 4000), (400, 1600)),
        ((1, 5000), (1, 1600)),
        ((5000, 1), (1600, 1)),
        ((1, 1), (1, 1)),
        ((37, 19), (37, 19)),
    ],
)
def test_large_pictures_are_reduced_and_no_size_is_too_odd(size: tuple[int, int], drawn_size: tuple[int, int]) -> None:
    width, height = size
    marks = [
        Mark((0, 0, width, height), "农夫山泉", 3, is_whole_image=True),
        Mark((width - 1, height - 1, width, height), None, None),
        Mark((width // 2, height // 2, width // 2 + 1, height // 2 + 1), "x", 0),
    ]
    drawn = draw_marks(sheet(width, height), marks)
    assert (drawn.shape[1], drawn.shape[0]) == drawn_size
    assert drawn.dtype == np.uint8
    assert drawn.flags.c_contiguous
    assert max(drawn_size) <= LONGEST_SIDE_PX


def test_boxes_follow_the_reduction() -> None:
    drawn = draw_marks(sheet(3200, 2400), [Mark((800, 600, 1600, 1200), "x", 3, colour=RED)])
    frame = is_colour(drawn, RED)
    assert frame[450, 400 - 4] and frame[450, 800 + 3] and frame[600 + 3, 600]
    assert not frame[310:590, 410:790].any()


def test_lines_and_letters_grow_with_the_picture() -> None:
    shares = []
    for width in (400, 1600):
        box = (width // 4, width // 4, width // 2, width // 2)
        shares.append(is_colour(draw_marks(sheet(width, width), [Mark(box, "Cola", 9, colour=RED)]), RED).mean())
    assert shares[1] == pytest.approx(shares[0], rel=0.6)


def test_no_objects_leave_the_picture_as_it_is() -> None:
    assert np.array_equal(draw_marks(sheet(), []), sheet())


def test_a_hundred_objects_in_one_place_are_drawn() -> None:
    marks = [Mark((100, 100, 120, 120), f"标签 {i}", i) for i in range(100)]
    assert draw_marks(sheet(), marks).shape == sheet().shape


def test_threads_draw_the_same() -> None:
    marks = [
        Mark((40 * i, 100, 40 * i + 60, 200), label, i) for i, label in enumerate(["橙汁", "Cola", "한국", "Привет"])
    ]
    expected = draw_marks(sheet(), marks)
    drawn: list[np.ndarray] = []

    def draw() -> None:
        drawn.extend(draw_marks(sheet(), marks) for _ in range(20))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 80
    assert all(np.array_equal(each, expected) for each in drawn)
