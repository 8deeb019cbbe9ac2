import pytest

from moslora.data.choice_files import choice_samples
from moslora.data.choice_training import choice_instructions
from moslora.data.reading import Reading
from moslora.data.task_fields import Fields
from moslora.errors import DataError

QUESTION = {"question": "Which is a fruit?", "A": "pear", "B": "chair", "answer": "A", "url": "x"}


def made(*rows: dict) -> tuple[list[dict], list[str]]:
    return choice_instructions(rows, reading=Reading.of("quiz.csv", len(rows)))


def test_a_question_is_trained_on_in_the_words_in_which_a_task_asks_it():
    (sample,), unused = made(QUESTION)
    (asked,) = choice_samples([QUESTION], Fields([QUESTION]), places=["sample 1"])
    assert sample["instruction"] == asked["instruction"]
    assert sample["output"] == asked["output"] == "the correct answer is A"
    assert unused == ["url"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Z"}, "quiz.csv: sample 1: field 'answer' is 'Z', which is not one of the options"),
        ({"image": "a.png"}, "quiz.csv: sample 1: field 'image' is not text"),
        ({"train": False}, "quiz.csv: sample 1: field 'train' is False, which says not to learn it"),
    ],
)
def test_a_wrong_question_is_refused_with_its_place(change: dict, message: str):
    with pytest.raises(DataError) as caught:
        made(QUESTION | change)
    assert str(caught.value).startswith(message)


def test_a_file_without_options_is_refused_with_what_it_has():
    with pytest.raises(DataError) as caught:
        made({"question": "Which?", "answer": "a"})
    assert "needs a question (question), options (choices, or columns A, B, ...)" in str(caught.value)
    assert "it has question, answer: name them in data.columns" in str(caught.value)
