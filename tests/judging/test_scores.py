import numpy as np
import pytest

from moslora.errors import ConfigError
from moslora.judging.scores import all_scores
from tests.judging.simulated import drawn, judgement, study, written


def test_answers_become_ones_zeros_and_minus_ones_and_checks_are_left_out():
    checks = [judgement("ann", "p0", "second", check=kind) for kind in ("same", "swapped")]
    (found,) = all_scores(study([*written({"ann": "wtl", "ben": "w.t"}), *checks]))
    np.testing.assert_array_equal(found.values, [[1, 0, -1], [1, np.nan, 0]])
    assert (found.first, found.second, found.judges, found.pairs) == ("a", "b", ("ann", "ben"), ("p0", "p1", "p2"))


def test_a_baseline_stands_second_and_turns_the_scores():
    (found,) = all_scores(study(written({"ann": "wtl", "ben": "wwt"})), baseline="a")
    assert (found.first, found.second) == ("b", "a")
    np.testing.assert_array_equal(found.values, [[-1, 0, 1], [-1, -1, 0]])


def test_an_unknown_baseline_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"unknown method 'c' \(allowed: a, b\)"):
        [*all_scores(study(written({"ann": "w"})), baseline="c")]


def test_pairs_of_one_prompt_are_one_unit():
    judgements = [judgement(judge, f"p{n}", "first", prompt=f"prompt {n // 2}") for judge in "xy" for n in range(6)]
    (found,) = all_scores(study(judgements))
    assert found.unit == "prompt"
    assert found.unit_of_pair.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.counts().shape == (3, 2, 3)
    assert found.counts()[0].tolist() == [[2, 2, 2], [2, 2, 2]]


def test_the_same_prompt_with_another_subject_is_another_unit():
    judgements = [
        judgement(judge, subject, "tie", prompt="on a beach", subject=subject) for judge in "xy" for subject in "cd"
    ]
    (found,) = all_scores(study(judgements))
    assert found.units == (("c", "on a beach"), ("d", "on a beach"))


def test_pairs_that_all_have_one_prompt_stand_alone():
    judgements = [judgement("ann", f"p{n}", "tie", prompt="a cat") for n in range(3)]
    (found,) = all_scores(study(judgements))
    assert found.unit == "pair"
    assert found.unit_of_pair.tolist() == [0, 1, 2]


def test_a_subject_keeps_its_pairs_and_the_judges_who_saw_them():
    judgements = drawn(3, 8, gain=0, seed=1, subjects=("cat", "dog"))
    judgements = [one for one in judgements if not (one.judge == "judge 2" and one.subject == "dog")]
    (found,) = all_scores(study(judgements))
    dogs = found.of_subject("dog")
    assert dogs.judges == ("judge 0", "judge 1")
    assert dogs.pairs == ("p1", "p3", "p5", "p7")
    assert found.of_subject("horse") is None
