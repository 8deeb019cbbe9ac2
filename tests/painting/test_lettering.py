from itertools import pairwise

import pytest

from moslora.painting.lettering import font_for, line_height, text_width, wrapped

TEXT = "a cat on top of a purple rug in a forest of old oaks"


@pytest.mark.parametrize("width", [60, 120, 500])
def test_every_line_fits_and_no_word_is_lost(width: int) -> None:
    lines = wrapped(TEXT, width, size_pixels=14)
    assert all(0 < text_width(line, 14) <= width for line in lines)
    assert " ".join(lines) == TEXT
    for line, following in pairwise(lines):  # as full as can be
        assert text_width(f"{line} {following.split()[0]}", 14) > width


def test_a_word_wider_than_the_line_is_broken() -> None:
    lines = wrapped("x" * 50, 60, size_pixels=14)
    assert len(lines) > 1
    assert "".join(lines) == "x" * 50
    assert all(text_width(line, 14) <= 60 for line in lines)
    assert wrapped("wide", 1, size_pixels=14) == ["w", "i", "d", "e"]


def test_what_is_left_out_is_shown_by_an_ellipsis() -> None:
    lines = wrapped(TEXT, 120, size_pixels=14, most_lines=2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert text_width(lines[1], 14) <= 120
    assert wrapped("short", 120, size_pixels=14, most_lines=1) == ["short"]


def test_lines_of_a_text_stay_apart() -> None:
    assert wrapped("one\ntwo three", 500, size_pixels=14) == ["one", "two three"]
    assert wrapped("", 100, size_pixels=14) == []


def test_larger_letters_are_wider_and_their_lines_higher() -> None:
    assert text_width(TEXT, 28) == pytest.approx(2 * text_width(TEXT, 14), rel=0.05)  # letters are hinted
    assert line_height(28) == pytest.approx(2 * line_height(14), abs=1)


@pytest.mark.parametrize("text", ["a cat, 0.62 ± 0.04 · “x”…", "café – 3 × 4", "кот в снегу", "γάτα → łódź"])
def test_every_letter_has_a_shape_of_its_own(text: str) -> None:
    letters = font_for(text, 24)
    signs = sorted({sign for sign in text if not sign.isspace()})
    shapes = {bytes(letters.getmask(sign)) for sign in signs}
    assert bytes(letters.getmask("\U0010ffff")) not in shapes  # the box of a sign that is missing
    assert len(shapes) >= len(signs) - 1  # а and a are alike


def test_plain_texts_are_set_in_pillows_own_font() -> None:
    assert font_for("a cat", 14).getname() == font_for("", 14).getname() != font_for("café", 14).getname()
