import pytest

from moslora.data.vision_tasks import VISION_TASKS, Question
from moslora.errors import ConfigError, DataError
from moslora.evaluation.answers import UNIT_RULES
from moslora.evaluation.vision import (
    RULES,
    credits_of,
    rule,
    unread,
)
from moslora.evaluation.vqa import normalised, soft_accuracy

OPTIONS = {"A": "a teddy bear", "B": "a rabbit", "C": "a cat"}


def question(answer="B", *, options=OPTIONS, **fields):
    answers = answer if isinstance(answer, list) else [answer]
    made = {"index": "1", "prompt": "?", "images": [], "options": options, "answers": answers, "unit": "1"}
    return Question(**made | fields)


def predicted(name, text, *, options=OPTIONS):
    (credit,) = credits_of([question(options=options)], [text], rule=rule(name))
    assert credit.is_read == (credit.predicted is not None)
    assert credit.value == (credit.predicted == "B")
    return credit.predicted


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. a cat", "B"),  # the letter goes before the text
        ("The answer is B.", "B"),
        ("**B**", "B"),
        ("It is B, I think", "B"),
        ("B is what one sees", None),  # among the last four words only
        ("B is what is", "B"),
        ("one sees that B is right", "B"),
        ("A or B", None),
        ("The answer is B, and it is what one sees in the picture here", "B"),
        ("The correct answer is: C. It is a cat, as one sees in the picture", "C"),
        ("the answer is dog, and not a thing that one could choose from here", None),  # no letter of dog
        ("I see a RABBIT", "B"),
        ("a rabbit beside a cat", None),
        ("D", None),
        ("a dog", None),
        ("", None),
        ("A cat", "A"),  # the article at the start of a short answer is taken for the letter: so is the rule
    ],
)
def test_letters_are_inferred_as_vlmevalkit_does(text, letter):
    assert predicted("letters", text) == letter


def test_an_option_in_a_text_much_longer_than_all_options_says_nothing():
    assert predicted("letters", "I see a rabbit " + "here " * 6) == "B"
    assert predicted("letters", "I see a rabbit " + "here " * 9) is None


@pytest.mark.parametrize(("text", "letter"), [("B", "B"), (" B\n", "B"), ("B.", None), ("D", None), ("a rabbit", None)])
def test_the_exact_rule_takes_the_letter_alone(text, letter):
    assert predicted("exact-letter", text) == letter


@pytest.mark.parametrize(
    ("text", "letter"), [("B.", "B"), ("So B. It is", "B"), ("B", "B"), ("B a rabbit", None), ("Z.", None)]
)
def test_the_letter_before_a_full_stop_is_taken(text, letter):
    assert predicted("letter-and-stop", text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B. a rabbit", "B"),
        ("B\nbecause", "B"),  # a line break counts as a full stop
        ("The answer is B.", "B"),
        ("LECTURE: bears. The answer is B.", "B"),
        ("The answer is B. The answer is C.", None),
        ("The answer is E.", None),
        ("The answer is B", None),
        ("B: a rabbit", None),
        ("a rabbit", None),
        ("", None),
    ],
)
def test_scienceqas_answers_are_looked_for_in_llavas_order(text, letter):
    assert predicted("answer-is", text) == letter


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        ("yes, it is", "yes"),
        ("No.", "no"),
        ("There is none; no", "no"),
        ("Yes or no", None),
        ("not at all", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_yes_or_no_is_a_word_of_its_own_and_only_one_of_them(text, said):
    for answer in ("yes", "no"):
        (credit,) = credits_of([question(answer, options=None)], [text], rule=rule("yes-no"))
        assert (credit.predicted, credit.is_read, credit.value) == (said, said is not None, float(said == answer))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The Dogs", "dogs"),
        ("two", "2"),
        ("None", "0"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("stop.", "stop"),
        ("u.s.a.", "usa"),
        ("dont stop", "don't stop"),
        ("couldnt've", "couldn't've"),
        ("Joe's", "joe 's"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("well-known - yes", "wellknown yes"),  # it touches a space once, so it goes everywhere
        (" a\nb\t", "b"),
        ("somebody'd", "somebodyd"),
    ],
)
def test_answers_are_made_alike_as_llavas_evaluation_does(text, same):
    assert normalised(text) == same


@pytest.mark.parametrize(
    ("agreeing", "value"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)  # one other of nine, ...
def test_soft_accuracy_is_the_mean_over_all_but_one_of_ten_people(agreeing, value):
    answers = ["Two"] * agreeing + [f"other {n}" for n in range(10 - agreeing)]
    assert soft_accuracy("2", answers) == pytest.approx(value)
    (credit,) = credits_of([question(answers, options=None)], ["2."], rule=rule("soft"))
    assert credit.value == pytest.approx(value)
    assert credit.predicted == "2"


def test_short_answers_are_equal_once_made_alike():
    questions = [question("red", options=None)] * 4
    credits = credits_of(questions, ["Red.", "the red", "dark red", " . "], rule=rule("short"))
    assert [credit.value for credit in credits] == [1, 1, 0, 0]
    assert [credit.is_read for credit in credits] == [True, True, True, False]


def test_texts_without_an_answer_are_counted_apart_from_wrong_ones():
    questions = [question(unit=str(n)) for n in range(4)]
    credits = credits_of(questions, ["B", "C", "I cannot tell", ""], rule=rule("letters"))
    assert [credit.value for credit in credits] == [1, 0, 0, 0]
    assert unread(credits) == 2


def test_a_circular_question_is_right_only_if_all_its_passes_are():
    assert of_unit("letters", "BBB") == 1
    assert of_unit("letters", "BAB") == 0


@pytest.mark.parametrize(("texts", "worth"), [(("yes", "no"), 1), (("yes", "yes"), 0.25), (("no", "yes"), 0)])
def test_a_picture_of_mme_is_worth_one_a_quarter_or_nothing(texts, worth):
    assert of_unit("yes-no", texts, answers=("yes", "no"), options=None) == worth


def of_unit(name, texts, *, answers="BBB", **fields):
    """What one unit's questions are worth together."""
    credits = credits_of([question(answer, **fields) for answer in answers], texts, rule=rule(name))
    return UNIT_RULES[rule(name).unit_rule]([credit.value for credit in credits])


def test_a_question_without_an_answer_is_not_scored():
    with pytest.raises(
        DataError, match=("question 1 has no answer to score against; write the file of predictions instead")
    ):
        credits_of([question([])], ["B"], rule=rule("letters"))


def test_every_task_has_a_rule_whose_record_says_whose_it_is():
    for task in VISION_TASKS.values():
        assert task.rule is None or rule(task.rule).name == task.rule
    assert {task.name for task in VISION_TASKS.values() if task.rule is None} == {"mm-vet", "mathvista"}
    assert all(any(name in one.record for name in ("LLaVA", "VLMEvalKit", "lmms-eval")) for one in RULES.values())


def test_an_unknown_rule_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown scoring rule 'leters'; did you mean 'letters'"):
        rule("leters")
