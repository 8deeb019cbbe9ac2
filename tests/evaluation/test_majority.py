from moslora.evaluation.answers import Answer
from moslora.evaluation.majority import commonest, majority
from moslora.evaluation.recording import evaluation_record


def answers(*expected, kind=None, **fields):
    return [Answer(n, text, "x", False, kind=kind, **fields) for n, text in enumerate(expected)]


def test_each_kind_has_its_own_commonest_answer():
    found = [*answers("red", "blue", "red", kind="colour"), *answers("yes", "no", kind="yes/no")]
    assert commonest(found) == {"colour": "red", "yes/no": "no"}  # as often as yes, and before it in the alphabet
    assert [answer.is_correct for answer in majority(found)] == [True, False, True, False, True]


def test_of_several_answers_that_count_each_is_counted():
    found = answers("cat | kitten", "dog | puppy", "cat")
    assert [answer.is_correct for answer in majority(found)] == [True, False, True]


def test_always_the_same_letter_gets_no_question_that_is_asked_in_every_order():
    found = [*answers("A", "B", "A", unit="first"), *answers("A", "A", unit="second")]
    record = evaluation_record(
        found, task="t", when="after", scoring="generation", prompt=None, wall_seconds=0, rule="letters"
    )
    assert record.majority
    assert (record.majority.answer, record.majority.correct, record.majority.total) == ("A", 1, 2)


def test_answers_worth_parts_have_no_commonest_one():
    record = evaluation_record(
        [Answer(0, "a | b", "a", False, credit=0.3, step=0.1)],
        task="textvqa",
        when="after",
        scoring="generation",
        prompt=None,
        wall_seconds=0,
        rule="soft",
    )
    assert not {"majority", "majority_by_kind"} & record.model_dump().keys()


def test_the_record_holds_it_by_kind_with_intervals():
    found = [*answers("red", "blue", "red", kind="colour"), *answers("yes", "no", kind="yes/no")]
    record = evaluation_record(
        found, task="t", when="after", scoring="generation", prompt=None, wall_seconds=0, rule="short"
    )
    assert record.majority
    assert (record.majority.answer, record.majority.correct) == (None, 3)
    own = record.majority_by_kind["colour"]
    assert (own.answer, own.correct, own.total) == ("red", 2, 3)
    assert 0 < own.low < 2 / 3 < own.high < 1
