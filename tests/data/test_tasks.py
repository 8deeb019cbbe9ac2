import gzip
import json
from pathlib import Path

import pytest

from moslora.data.task_names import task_path
from moslora.data.tasks import COMMONSENSE, TASKS, check_answers, task
from moslora.errors import ConfigError, DataError

QUESTION = {"instruction": "Sky?\n\nAnswer format: true/false", "input": "", "output": "true", "answer": "true"}


def test_the_tasks_are_the_papers_eight_and_the_built_in_one():
    assert set(TASKS) == {*COMMONSENSE, "everyday"}
    assert len(COMMONSENSE) == 8


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("boolq", "true false"),
        ("piqa", "solution1 solution2"),
        ("social_i_qa", "answer1 answer2 answer3"),
        ("hellaswag", "ending1 ending2 ending3 ending4"),
        ("winogrande", "option1 option2"),
        ("ARC-Easy", "answer1 answer2 answer3 answer4 answer5"),
        ("ARC-Challenge", "answer1 answer2 answer3 answer4 answer5"),
        ("openbookqa", "answer1 answer2 answer3 answer4"),
        ("everyday", "answer1 answer2 answer3 answer4"),
    ],
)
def test_each_task_has_the_papers_labels_and_finds_each_in_text(name, labels):
    assert task(name).labels == tuple(labels.split())
    for label in labels.split():
        assert task(name).predicted_label(f"  the correct answer is {label}.\n") == label


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown task 'bolq'; did you mean 'boolq'\? \(allowed: ARC-Challenge, "):
        task("bolq")


def test_the_first_match_is_the_prediction_as_in_the_reference_protocol():
    assert task("boolq").predicted_label("false, not true") == "false"
    assert task("boolq").predicted_label("True or so") is None
    assert task("openbookqa").predicted_label("answer5, or answer1") == "answer5"


def test_the_format_line_says_which_labels_a_question_allows():
    arc = task("ARC-Easy")
    assert arc.allowed_labels("Is answer5 it?\n\nAnswer format: answer1/answer2/answer3") == arc.labels[:3]
    assert arc.allowed_labels("Answer1: a Answer2: b; say answer1 or answer2") == arc.labels[:2]
    assert arc.allowed_labels("What is it?") == arc.labels
    assert arc.allowed_labels("Only answer2 is named") == arc.labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "maybe"}, r"a\.jsonl: sample 2: field 'answer' is 'maybe', .* 'boolq' .* \(allowed: true, false\)"),
        ({"answer": None}, r"a\.jsonl: sample 2: field 'answer' is None, .* \(allowed: true, false\)"),
        ({"answer": ["true"]}, r"a\.jsonl: sample 2: field 'answer' is \['true'\], .* \(allowed: true, false\)"),
        ({"output": 3}, r"a\.jsonl: sample 2: field 'output' is 3, expected text"),
        ({"instruction": " "}, r"a\.jsonl: sample 2: field 'instruction' is ' ', expected text"),
    ],
)
def test_a_bad_answer_is_named_with_its_place_value_and_what_is_allowed(change, message):
    with pytest.raises(DataError, match=message):
        check_answers([QUESTION, QUESTION | change], task("boolq"), source="a.jsonl")


@pytest.mark.parametrize("field", ["instruction", "output", "answer"])
def test_a_missing_field_is_named(field):
    sample = {key: value for key, value in QUESTION.items() if key != field}
    with pytest.raises(DataError, match=rf"x: sample 1: field '{field}' is missing"):
        check_answers([sample], task("boolq"), source="x")


def test_an_answer_that_its_question_does_not_offer_is_refused():
    sample = QUESTION | {"instruction": "Answer format: answer1/answer2/answer3", "answer": "answer4"}
    with pytest.raises(DataError, match=r"'answer4', .*\(allowed: answer1, answer2, answer3\)"):
        check_answers([sample], task("ARC-Easy"), source="x")


def test_no_samples_at_all_are_refused():
    with pytest.raises(DataError, match="x: no samples for task 'boolq'"):
        check_answers([], task("boolq"), source="x")


@pytest.mark.parametrize(
    "name", ["train/ARC-Easy", "train/ARC-Challenge", "train/openbookqa", "test/boolq", "test/piqa", "test/hellaswag"]
)
def test_the_real_sets_hold_only_answers_their_questions_allow(real_data, name):
    path = real_data(f"commonsense/{name}.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        samples = [json.loads(line) for line in lines]
    check_answers(samples, task(name.partition("/")[2]), source=name)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("everyday", None),
        ("evryday", None),
        ("mine.csv", ("mine", "mine.csv")),
        ("short:a/mine.jsonl.gz", ("mine", "a/mine.jsonl.gz")),
        ("harness:a/mine.yaml", ("harness-mine", "a/mine.yaml")),
    ],
)
def test_a_task_that_is_a_file_has_a_name_and_a_path(written, expected):
    assert task_path(written) == (expected and (expected[0], Path(expected[1])))
