import pytest
from scipy import stats

from moslora.judging.trust import Repeats, judge_records, repeats, sides
from tests.judging.simulated import judgement, study, written


def test_sides_count_who_stood_left_in_answers_that_are_no_ties():
    judgements = [
        judgement("ann", "p0", "first", left="a"),
        judgement("ann", "p1", "second", left="b"),
        judgement("ann", "p2", "first", left="b"),
        judgement("ann", "p3", "tie"),
        judgement("ann", "p0", "second", left="b", check="swapped"),
    ]
    found = sides(judgements)
    assert (found.left, found.right) == (2, 1)
    assert found.p_value == pytest.approx(stats.binomtest(2, 3).pvalue)


def test_questions_about_one_pair_count_its_sides_once():
    judgements = [
        judgement("ann", pair, "first", question=question, left="a") for pair in ("p0", "p1") for question in "xyz"
    ]
    split = [judgement("ann", "p2", outcome, question=outcome, left="a") for outcome in ("first", "second")]
    found = sides(judgements + split)
    assert (found.left, found.right, found.p_value) == (2, 0, 0.5)


def test_a_preference_for_a_method_is_no_preference_for_a_side():
    found = sides(written({"ann": "w" * 40}))  # the first method stands left every other time
    assert (found.left, found.right) == (20, 20)


def test_one_sided_judges_are_found_and_adjusted_for_their_number():
    honest = {f"judge {number}": "wwlltttt" * 5 for number in range(4)}
    lefty = [judgement("lefty", f"p{n}", "first" if n % 2 else "second", left="ba"[n % 2]) for n in range(40)]
    found = {one.judge: one for one in judge_records(study([*written(honest), *lefty]))}
    assert found["lefty"].sides.left == 40
    assert found["lefty"].sides.p_value == pytest.approx(5 * 2 * 0.5**40)
    assert found["judge 0"].sides.p_value == 1


def test_all_ties_favour_no_side():
    found = judge_records(study(written({"ann": "ttt"})))[0]
    assert (found.sides.left, found.sides.right, found.sides.p_value) == (0, 0, None)


def test_a_check_of_the_same_answer_twice_fails_unless_all_its_answers_are_ties():
    real = written({"ann": "wwt"})
    checks = [
        judgement("ann", "p0", "tie", check="same", left="a", question="x"),
        judgement("ann", "p0", "second", check="same", left="a", question="y"),
        judgement("ann", "p1", "tie", check="same", left="b", question="x"),
    ]
    (found,) = judge_records(study(real + checks))
    assert (found.checks_failed, found.checks) == (1, 2)
    assert found.judgements == 3


def test_swapped_repeats_are_held_against_the_first_answer():
    first = written({"ann": "wltw", "ben": "www"})
    again = [
        judgement("ann", "p0", "first", check="swapped"),
        judgement("ann", "p1", "first", check="swapped"),
        judgement("ann", "p2", "second", check="swapped"),
        judgement("ben", "p7", "second", check="swapped"),  # the first answer was undone
    ]
    assert repeats(first + again) == Repeats(asked=3, same=1, opposite=1)


def test_missing_judgements_and_the_time_a_pair_took():
    judgements = [judgement("ann", f"p{n}", "tie", question=q, seconds=4.0 + n) for n in range(3) for q in "xy"]
    (found,) = judge_records(study(judgements, pairs=8))
    assert (found.judgements, found.missing, found.median_seconds) == (6, 10, 5.0)


def test_a_judge_who_has_not_begun_is_told_as_such():
    judgements = written({"ann": "wt"})
    record = study(judgements, judges=("ann", "ben"))
    ben = judge_records(record)[1]
    assert (ben.judge, ben.judgements, ben.missing, ben.median_seconds) == ("ben", 0, 2, None)
