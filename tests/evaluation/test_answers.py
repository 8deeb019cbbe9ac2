import json
from itertools import product

import numpy as np
import pytest

from moslora.errors import DataError
from moslora.evaluation.answers import UNIT_RULES, Answer, units


def soft(credit, **fields):
    return Answer(0, "a", "b", credit == 1, credit=credit, **{"step": 0.1, **fields})


def passes(*right, rule="all", **fields):
    """The answers of one unit."""
    return [Answer(n, "a", "b", one, unit="17", unit_rule=rule, **fields) for n, one in enumerate(right)]


def test_an_answer_without_a_credit_is_worth_all_or_nothing():
    assert [Answer(0, "a", "a", True).credit, Answer(0, "a", "b", False).credit] == [1, 0]


def test_the_line_of_a_plain_answer_says_nothing_of_credits():
    answer = Answer(3, "a", "b", False, kind="is-a", options=2)
    assert [*answer.to_dict()] == [
        "index", "expected", "predicted", "is_correct", "kind", "text", "scores", "options", "group",
    ]  # fmt: skip


def test_a_line_of_json_gives_the_answer_back():
    plain = Answer(3, "a", "b", False, scores={"a": -1.5, "b": -0.5}, options=2)
    scored = Answer(4, "a", None, False, credit=0.3, step=0.1, unit="u", unit_rule="mean", weight=0.5, is_read=False)
    for answer in (plain, scored):
        assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def test_lines_of_former_versions_tell_their_options_by_their_scores():
    line = {"index": 0, "expected": "a", "predicted": "a", "is_correct": True, "scores": {"a": -1.0, "b": -2.0}}
    assert Answer.from_dict(line).options == 2
    assert Answer.from_dict(line | {"scores": None, "of a later version": 1}).options is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"is_correct": True, "credit": 0.3, "step": 0.1}, "an answer that is right has a credit of 0.3"),
        ({"credit": 1.0}, "an answer that is wrong has a credit of 1.0; give 1 if it is right, else less"),
        ({"credit": -0.1, "step": 0.1}, "an answer that is wrong has a credit of -0.1"),
        ({"credit": float("nan"), "step": 0.1}, "an answer that is wrong has a credit of nan"),
        ({"credit": 0.3}, "a credit of 0.3 in steps of 1.0; give the least that credits differ by"),
        ({"step": 0.0}, "a credit of 0.0 in steps of 0.0"),
        ({"weight": 0.0}, "an answer has a weight of 0.0; give a positive number"),
        ({"weight": float("inf")}, "an answer has a weight of inf"),
        ({"unit_rule": "any"}, "unknown unit_rule 'any' .allowed: all, mean, mean_and_all."),
    ],
)
def test_values_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Answer(**{"index": 0, "expected": "a", "predicted": "b", "is_correct": False, **fields})


def test_answers_without_a_unit_are_units_of_their_own():
    found = units([Answer(0, "a", "a", True, kind="x", group="g", options=4), soft(0.3, weight=2.0)])
    assert found[0] == (1, 0.25, 1, 1, "x", "g")
    assert found[1] == (0.3, None, 0.1, 2, None, None)


def test_a_question_asked_in_every_order_is_right_if_every_answer_is():
    (right,), (wrong,) = units(passes(True, True, True, options=4)), units(passes(True, False, True, options=4))
    assert (right.credit, wrong.credit, right.step) == (1, 0, 1)
    assert right.chance == 1 / 64


def test_a_picture_of_mme_is_worth_a_quarter_for_one_of_its_two_questions():
    found = [units(passes(*right, rule="mean_and_all", options=2))[0] for right in product((False, True), repeat=2)]
    assert [unit.credit for unit in found] == [0, 0.25, 0.25, 1]
    assert {unit.step for unit in found} == {0.25}


@pytest.mark.parametrize("rule", UNIT_RULES)
def test_chance_is_what_independent_guesses_get_on_average(rule):
    options = (2, 3, 4)
    guesses = [[n == 0 for n in guess] for guess in product(*map(range, options))]
    credits = [UNIT_RULES[rule]([float(right) for right in guess]) for guess in guesses]
    answers = [Answer(n, "a", "a", True, unit="u", unit_rule=rule, options=count) for n, count in enumerate(options)]
    assert units(answers)[0].chance == pytest.approx(np.mean(credits))


@pytest.mark.parametrize("rule", UNIT_RULES)
def test_a_step_is_the_least_that_a_units_credit_changes_by(rule):
    credits = {units(passes(*right, rule=rule))[0].credit for right in product((False, True), repeat=3)}
    step = units(passes(True, False, True, rule=rule))[0].step
    assert step <= min(np.diff(sorted(credits))) + 1e-12


def test_units_keep_the_order_of_their_first_answers():
    given = [Answer(n, "a", "a", True, unit=unit, kind=unit) for n, unit in enumerate("xyxzy")]
    assert [unit.kind for unit in units(given)] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("name", "values"),
    [("kind", ("x", "y")), ("group", (None, "g")), ("weight", (1.0, 0.5)), ("unit_rule", ("all", "mean"))],
)
def test_answers_of_a_unit_that_do_not_fit_together_are_refused(name, values):
    given = [Answer(n, "a", "a", True, **{"unit": "17", name: value}) for n, value in enumerate(values)]
    message = f"the answers of unit 17 differ in {name} .{values[0]} and {values[1]}.; give them the same"
    with pytest.raises(DataError, match=message):
        units(given)
