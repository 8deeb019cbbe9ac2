from collections import Counter
from itertools import combinations

import pytest

from moslora.judging.pairing import Showing, default_checks, pairs_of, showings

SUBJECTS = ["dog"] * 7 + ["cup"] * 9 + [None] * 4


def drawn(judge: int, *, methods: int = 2, **checks: int) -> list[Showing]:
    return showings(SUBJECTS, methods, judge=judge, seed="secret", **checks)


@pytest.mark.parametrize("methods", [2, 3, 4])
def test_every_judge_sees_every_pair_once(methods: int):
    for judge in range(4):
        pages = drawn(judge, methods=methods)
        wanted = {(item, *pair) for item in range(len(SUBJECTS)) for pair in combinations(range(methods), 2)}
        assert {(one.item, one.first, one.second) for one in pages} == wanted
        assert len(pages) == len(wanted) == pairs_of(len(SUBJECTS), methods)
        assert all({one.left, one.right} == {one.first, one.second} for one in pages)


def test_every_judge_has_an_order_of_their_own_that_the_secret_decides():
    orders = [tuple(one.item for one in drawn(judge)) for judge in range(8)]
    assert len(set(orders)) == 8
    assert drawn(3) == drawn(3)
    assert drawn(3) != showings(SUBJECTS, 2, judge=3, seed="another")


def test_left_and_right_are_balanced_within_a_judge_and_each_subject():
    for judge in range(20):
        lefts = Counter((SUBJECTS[one.item], one.left == one.first) for one in drawn(judge))
        assert lefts.total() == 20
        assert sum(count for (_, is_first), count in lefts.items() if is_first) == 10
        for subject in set(SUBJECTS):
            assert abs(lefts[subject, True] - lefts[subject, False]) <= 1


def test_two_judges_in_a_row_see_each_pair_both_ways_round():
    for judge in (0, 2, 4):
        sides = [{one.item: one.left for one in drawn(number)} for number in (judge, judge + 1)]
        assert all(sides[0][item] != sides[1][item] for item in range(len(SUBJECTS)))


def test_which_side_comes_first_is_chance():
    firsts = Counter(next(one.left for one in drawn(judge) if one.item == 0) for judge in range(0, 400, 2))
    assert 70 < firsts[0] < 130


def test_repeats_come_well_after_the_pair_with_its_sides_swapped():
    for judge in range(30):
        pages = drawn(judge, swapped=4)
        assert len(pages) == 24
        repeats = [place for place, one in enumerate(pages) if one.check == "swapped"]
        assert len(repeats) == 4
        for place in repeats:
            again = pages[place]
            (before,) = (at for at, one in enumerate(pages) if one.item == again.item and one.check is None)
            assert (pages[before].left, pages[before].right) == (again.right, again.left)
            assert place - before >= len(SUBJECTS) // 3


def test_a_check_of_one_answer_has_it_on_both_sides_and_is_never_the_first_page():
    shown = Counter()
    for judge in range(30):
        pages = drawn(judge, same=3)
        checks = [one for one in pages if one.check == "same"]
        assert len({one.item for one in checks}) == len(checks) == 3
        assert pages[0].check is None
        assert all(one.left == one.right for one in checks)
        shown.update(one.left for one in checks)
    assert set(shown) == {0, 1}


@pytest.mark.parametrize(("pairs", "checks"), [(1, 0), (7, 0), (8, 1), (31, 1), (32, 2), (100, 6)])
def test_short_studies_have_no_checks_and_long_ones_one_of_each_kind_in_sixteen_pairs(pairs: int, checks: int):
    assert default_checks(pairs) == checks


def test_no_more_pairs_are_repeated_than_half():
    pages = showings([None] * 4, 2, judge=0, seed="secret", swapped=10)
    assert sum(one.check == "swapped" for one in pages) == 2
