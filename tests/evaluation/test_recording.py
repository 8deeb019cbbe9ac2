import math

import pytest

from moslora.evaluation.answers import Answer
from moslora.evaluation.recording import evaluation_record, scored_text, scoring_notes
from moslora.records import Scored

ASKED = {"task": "mme", "when": "after", "scoring": "generation", "prompt": "plain", "wall_seconds": 1.5}


def picture(number, *right, weight=1.0, kind=None, **fields):
    start = {"unit": str(number), "unit_rule": "mean_and_all", "weight": weight, "kind": kind, "options": 2}
    return [Answer(2 * number + n, "yes", "no", one, **start, **fields) for n, one in enumerate(right)]


def test_plain_answers_leave_a_record_that_says_nothing_of_credits():
    found = evaluation_record([Answer(0, "a", "a", True), Answer(1, "a", "b", False)], **ASKED)
    assert (found.correct, found.total, found.accuracy, found.scored) == (1, 2, 0.5, None)
    assert not {"scored", "unread"} & found.model_dump().keys()
    assert scoring_notes(found) == []


@pytest.mark.parametrize(("score", "share"), [(-20.0, "0.0"), (math.log(0.004), "0.8"), (math.log(0.4), None)])
def test_labels_that_the_model_would_not_answer_with_are_told(score, share):
    answers = [Answer(n, "A", "A", True, scores={"A": score, "B": score}) for n in range(3)]
    chosen = ASKED | {"scoring": "log_probability"}
    for when in ("after", "evaluated"):
        found = evaluation_record(answers, **chosen | {"when": when})
        assert found.label_share == pytest.approx(2 * math.exp(score))
        told = [
            f"mme, {when}: the model gives 'the correct answer is ...' {share} % of the probability, all labels"
            " together: it does not answer in these words, so this accuracy says little; read what it writes"
            " (--scoring generation), or train on such questions (moslora recipes show choice)"
        ]
        assert scoring_notes(found) == (told if share else [])
    assert scoring_notes(evaluation_record(answers, **chosen | {"when": "before"})) == []
    assert evaluation_record(answers, **chosen, rule="yes_no").label_share is None  # its scores are of whole answers
    assert evaluation_record([*answers, Answer(3, "A", None, False)], **chosen).label_share is None


def test_units_are_counted_once_and_the_accuracy_is_their_mean_credit():
    answers = [*picture(0, True, True), *picture(1, True, False), *picture(2, False, False, is_read=False)]
    found = evaluation_record(answers, **ASKED, rule="yes_no")
    assert (found.correct, found.total, found.unread) == (1, 3, 2)
    assert found.accuracy == pytest.approx(1.25 / 3)
    assert found.chance == pytest.approx(0.375)
    assert found.scored == Scored(rule="yes_no", is_counted=False, units=3, answers=6)
    assert scoring_notes(found) == [
        "mme: accuracy is the mean credit (0 to 1) of 3 units of 6 answers, by the rule yes_no",
        "mme, after: nothing could be read from 2 of 6 answers; they count as wrong",
    ]


def test_kinds_hold_their_own_units():
    answers = [*picture(0, True, True, kind="ocr"), *picture(1, True, False, kind="count", weight=0.5)]
    found = evaluation_record(answers, **ASKED).by_kind
    assert {kind: (one.correct, one.total, one.accuracy) for kind, one in found.items()} == {
        "ocr": (1, 1, 1.0),
        "count": (0, 1, 0.25),
    }


def test_how_a_task_is_scored_does_not_depend_on_what_was_answered():
    """A model that gets nothing right, or all, is scored by the same rule as any other."""
    first, second = (
        evaluation_record([*picture(0, right, right), *picture(1, right, right)], **ASKED, rule="yes_no")
        for right in (False, True)
    )
    assert first.scored == second.scored == Scored(rule="yes_no", is_counted=False, units=2, answers=4)
    assert (first.unread, second.unread) == (0, 0)


def test_a_question_in_every_order_is_counted_right_or_wrong():
    answers = [Answer(n, "a", "a", n % 3 > 0, unit=str(n // 2)) for n in range(6)]
    found = evaluation_record(answers, **ASKED)
    assert (found.correct, found.total, found.unread) == (1, 3, None)
    assert scoring_notes(found) == ["mme: accuracy is the share right of 3 units of 6 answers"]


def test_what_an_accuracy_is_the_mean_of_in_words():
    assert scored_text(Scored(rule="vqa", is_counted=False, units=5000, answers=5000)) == (
        "accuracy is the mean credit (0 to 1) of 5,000 questions, by the rule vqa"
    )
