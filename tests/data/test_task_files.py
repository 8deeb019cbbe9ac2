import json
import re
from pathlib import Path
from typing import Any

import pytest

from moslora.data.choice_files import choice_task
from moslora.data.short_files import ShortTask
from moslora.data.task_files import HeldOut, read_task
from moslora.data.task_names import TaskName, check_names, task_name
from moslora.errors import ConfigError, DataError


def written(folder: Path, *rows: dict[str, Any], name: str = "mine.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, *, sort: str | None = None, limit: int | None = None) -> tuple[Any, list[dict[str, Any]]]:
    return read_task(path, name=path.stem, sort=sort, limit=limit)


def refusal(path: Path, *, sort: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(path, sort=sort)
    return str(caught.value)


TRAINED = {"instruction": "Question", "output": "Best Answer"}
AS_TRAINED = {"QUESTION": "What is ice?", "Best answer": "Frozen water", "Page": "3"}


@pytest.mark.parametrize(("sort", "kind"), [(None, HeldOut), ("samples", HeldOut), ("short", ShortTask)])
def test_columns_name_what_a_file_s_own_names_do_not_tell(tmp_path: Path, sort: str | None, kind: type):
    path = written(tmp_path, AS_TRAINED)
    assert "do not tell what kind of task it is" in refusal(path)
    found, (sample,) = read_task(path, name="mine", sort=sort, limit=None, columns=TRAINED)
    assert isinstance(found, kind)
    answer = {"answers": ["Frozen water"]} if sort == "short" else {"output": "Frozen water"}
    assert sample.items() >= ({"instruction": "What is ice?"} | answer).items()


def test_columns_name_the_question_and_the_answer_of_a_choice(tmp_path: Path):
    path = written(tmp_path, {"Ask": "What is ice?", "A": "Water", "B": "Iron", "Best Answer": "A"})
    task, (sample,) = read_task(path, name="mine", sort=None, limit=None, columns=TRAINED | {"instruction": "ask"})
    assert (task.labels, sample["answer"]) == (("A", "B"), "A")


def test_what_a_file_s_own_names_tell_goes_before_columns(tmp_path: Path):
    path = written(tmp_path, {"Question": "What is ice?", "Answer": "Water", "Best Answer": "Frozen water"})
    task, (sample,) = read_task(path, name="mine", sort=None, limit=None, columns=TRAINED)
    assert isinstance(task, ShortTask)
    assert sample["answers"] == ["Water"]


@pytest.mark.parametrize(
    ("sort", "row", "sample"),
    [
        ("samples", {"question": "Say a.", "answer": "a"}, {"instruction": "Say a.", "output": "a"}),
        ("samples", {"Frage": "Say a.", "Antwort": "a"}, {"instruction": "Say a.", "output": "a"}),
        (None, {"query": "Say a.", "response": "a", "n": 1}, {"instruction": "Say a.", "output": "a", "n": 1}),
        (
            None,
            {"instruction": "Say a.", "output": "a", "context": "b"},
            {"instruction": "Say a.", "output": "a", "input": "b"},
        ),
        ("samples", {"body": "a b"}, {"text": "a b"}),
        (None, {"dialog": [{"role": "user", "content": "a"}]}, {"messages": [{"role": "user", "content": "a"}]}),
    ],
)
def test_held_out_samples_are_found_by_the_columns_that_training_is_proposed_with(
    tmp_path: Path, sort: str | None, row: dict[str, Any], sample: dict[str, Any]
):
    found, samples = read(written(tmp_path, row), sort=sort)
    assert isinstance(found, HeldOut)
    assert samples == [sample]
    assert found.reading.remarks == []


@pytest.mark.parametrize("row", [{"Frage": "Say a.", "Antwort": "a"}, {"query": "Say a.", "Target": "a"}])
def test_questions_with_short_answers_may_have_the_names_of_other_languages(tmp_path: Path, row: dict[str, Any]):
    task, (sample,) = read(written(tmp_path, row))
    assert isinstance(task, ShortTask)
    assert (sample["instruction"], sample["answers"]) == ("Say a.", ["a"])


def test_a_choice_may_have_the_names_of_other_languages(tmp_path: Path):
    task, (sample,) = read(written(tmp_path, {"Frage": "Which?", "A": "x", "B": "y", "Antwort": "B"}))
    assert (task.labels, sample["answer"]) == (("A", "B"), "B")


def test_two_columns_that_say_nothing_are_guessed_and_that_is_told(tmp_path: Path):
    path = written(tmp_path, {"en": "one", "fr": "un"})
    found, samples = read(path)
    assert samples == [{"instruction": "one", "output": "un"}]
    assert found.reading.remarks == [f"{path}: 'en' is taken for the question and 'fr' for the answer"]
    assert "do not tell what kind of task it is" in refusal(written(tmp_path, {"lines": "one"}))


def test_fields_of_training_samples_are_found_in_capitals_too(tmp_path: Path):
    found, samples = read(written(tmp_path, {"Instruction": "Say a.", "OUTPUT": "a", "Note": "b"}))
    assert found.format == "instruction"
    assert samples == [{"instruction": "Say a.", "output": "a", "Note": "b"}]


LISTED = {"question": "Which is a fruit?", "choices": ["a stone", "a pear", "a shoe"]}
SPELLINGS = {
    "a list and a letter": {**LISTED, "answer": "B"},
    "a list and a letter in brackets": {**LISTED, "answer": "(b)"},
    "a list and a text": {**LISTED, "answer": "a pear"},
    "a mapping from labels": {"question": "Q?", "options": {"x": "a stone", "y": "a pear"}, "answer": "y"},
    "the hub's mapping of lists": {
        "question_stem": "Q?",
        "choices": {"text": ["a stone", "a pear"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "a list of labels with texts": {
        "question": "Q?",
        "choices": [{"label": "A", "text": "a stone"}, {"label": "B", "text": "a pear"}],
        "answerKey": "B",
    },
    "columns by letter": {"question": "Q?", "A": "a stone", "B": "a pear", "answer": "B"},
    "columns by number": {"sentence": "Q _?", "option1": "a stone", "option2": "a pear", "answer": "2"},
    "columns of medical questions": {"question": "Q?", "opa": "a stone", "opb": "a pear", "cop": "b"},
    "options in a cell": {"Question": "Q?", "Choices": '["a stone", "a pear"]', "Answer": "a pear"},
}


@pytest.mark.parametrize("row", SPELLINGS.values(), ids=SPELLINGS)
def test_each_spelling_of_a_choice_is_read_alike(tmp_path: Path, row: dict[str, Any]):
    task, (sample,) = read(written(tmp_path, row))
    assert (task.name, sample["answer"], sample["output"]) == ("mine", "B", "the correct answer is B")
    assert "A. a stone\nB. a pear" in sample["instruction"]
    assert task.allowed_labels(sample["instruction"]) == tuple("ABC"[: sample["options"]])


def test_answers_by_place_are_counted_as_the_whole_file_tells(tmp_path: Path):
    from_0 = [{**LISTED, "answer": place} for place in (1, 0, 2)]
    from_1 = [{**LISTED, "answer": str(place)} for place in (1, 3, 2)]
    assert [s["answer"] for s in read(written(tmp_path, *from_0))[1]] == ["B", "A", "C"]
    assert [s["answer"] for s in read(written(tmp_path, *from_1))[1]] == ["A", "C", "B"]
    assert [s["answer"] for s in read(written(tmp_path, *from_0), limit=1)[1]] == ["B"]


def test_a_place_that_may_be_counted_in_two_ways_is_refused(tmp_path: Path):
    path = written(tmp_path, {**LISTED, "answer": 1}, {**LISTED, "answer": 2})
    assert refusal(path) == (
        f"{path}: sample 1: field 'answer' is 1, which may be a place counted from 0 or a place counted from 1; write"
        " the options' texts, or their letters, as answers"
    )


def test_a_number_that_is_an_options_text_is_not_a_place(tmp_path: Path):
    rows = [{"question": "2 + 2?", "choices": ["3", "4", "1"], "answer": answer} for answer in (4, 1)]
    assert [s["answer"] for s in read(written(tmp_path, *rows))[1]] == ["B", "C"]


def test_context_stands_before_the_question_and_input_after_it(tmp_path: Path):
    _, (sample,) = read(written(tmp_path, {**LISTED, "passage": "Read.", "input": "Now.", "answer": "A", "kind": "k"}))
    assert sample["instruction"].startswith("Read.\n\nWhich is a fruit?\nNow.\n\nA. a stone\n")
    assert sample["instruction"].endswith("\n\nAnswer format: A/B/C")
    assert sample["kind"] == "k"


def test_a_label_is_found_in_generated_text_only_where_it_stands_alone(tmp_path: Path):
    task, _ = read(written(tmp_path, {**LISTED, "answer": "B"}))
    assert task.predicted_label("Because BEES, C. Or A") == "C"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**LISTED, "answer": "D"}, "field 'answer' is 'D', which is not one of the options; give a label (A, B, C)"),
        ({**LISTED, "answer": None}, "no answer in field 'answer'; give an option's label, its text or its place"),
        ({"question": "", "choices": ["a", "b"], "answer": "A"}, "field 'question' is '', expected text"),
        ({"question": "Q", "choices": ["a"], "answer": "A"}, "1 options; give 2 to 26"),
        ({"question": "Q", "choices": ["a", "a"], "answer": "A"}, "two options are 'a'; correct the sample"),
        ({"question": "Q", "choices": "a or b", "answer": "A"}, "field 'choices' is 'a or b', expected a list of"),
    ],
)
def test_a_wrong_choice_names_file_and_line(tmp_path: Path, row: dict[str, Any], expected: str):
    path = written(tmp_path, {**LISTED, "answer": "B"}, row)
    assert refusal(path).startswith(f"{path}: sample 2: {expected}")


def test_a_line_of_a_table_is_that_where_the_row_starts(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text('question,A,B,answer\n"two\nlines",x,y,A\nQ?,x,y,Z\n')
    assert refusal(path).startswith(f"{path}: sample 2 (line 4): field 'answer' is 'Z'")


@pytest.mark.parametrize(
    ("row", "accepted"),
    [
        ({"question": "Q?", "answer": "Paris"}, ["Paris"]),
        ({"prompt": "Q?", "target": 4}, ["4"]),
        ({"question": "Q?", "answers": ["Paris", "paris", "Paris"]}, ["Paris", "paris"]),
        ({"question": "Q?", "answers": {"text": ["Paris", "the city"], "answer_start": [1, 5]}}, ["Paris", "the city"]),
        ({"question": "Q?", "answer": {"value": "Paris", "aliases": ["Lutetia"]}}, ["Paris", "Lutetia"]),
        ({"question": "Q?", "answer": "Paris", "aliases": ["Lutetia"]}, ["Paris", "Lutetia"]),
        ({"question": "Q?", "answers": '["Paris", "Lutetia"]'}, ["Paris", "Lutetia"]),
    ],
)
def test_each_spelling_of_short_answers_is_read(tmp_path: Path, row: dict[str, Any], accepted: list[str]):
    task, (sample,) = read(written(tmp_path, {**row, "context": "Read this."}))
    assert (task.name, sample["instruction"], sample["input"]) == ("mine", "Q?", "Read this.")
    assert sample["answers"] == accepted


@pytest.mark.parametrize("answer", ["", None, True, [], [""], {"value": None}])
def test_a_question_without_an_answer_names_its_line(tmp_path: Path, answer: Any):
    path = written(tmp_path, {"question": "Q?", "answer": "a"}, {"question": "Q?", "answer": answer})
    assert refusal(path).startswith(f"{path}: sample 2: field 'answer' is {answer!r}, expected text, a number, or")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": []}, "chat"),
        ({"prompt": "p", "completion": "c"}, "completion"),
        ({"instruction": "i", "output": "o", "input": ""}, "instruction"),
        ({"text": "t", "source": "book"}, "text"),
    ],
)
def test_samples_as_for_training_are_held_out(tmp_path: Path, row: dict[str, Any], expected: str):
    path = written(tmp_path, row, row)
    task, samples = read(path, limit=1)
    assert (type(task), task.name, task.path, task.format) == (HeldOut, "mine", path, expected)
    assert samples == [row]


def test_fields_that_fit_two_sorts_are_refused_until_one_is_named(tmp_path: Path):
    path = written(tmp_path, {"instruction": "Q?", "output": "a", "answer": "a"})
    assert refusal(path) == (
        f"{path}: its fields (instruction, output, answer) fit more than one kind of task; write short:{path} or"
        f" samples:{path}"
    )
    assert read(path, sort="short")[1][0]["answers"] == ["a"]
    assert read(path, sort="samples")[0].format == "instruction"


@pytest.mark.parametrize("row", [{"text": "good film", "label": "positive"}, {"name": "x"}])
def test_fields_that_fit_nothing_are_refused_with_what_each_sort_needs(tmp_path: Path, row: dict[str, Any]):
    path = written(tmp_path, row)
    assert refusal(path).startswith(
        f"{path}: its fields ({', '.join(row)}) do not tell what kind of task it is: a question (question)"
    )
    assert refusal(path, sort="choice").startswith(f"{path}: no field with a question (question, instruction, ")


def test_two_fields_that_may_be_the_question_are_refused(tmp_path: Path):
    path = written(tmp_path, {"instruction": "Answer.", "question": "Q?", "answer": "a"})
    assert refusal(path) == (
        f"{path}: question and instruction may each be the question; leave one, or rename the others"
    )


def test_a_task_is_named_by_its_file():
    assert task_name("everyday") == TaskName("everyday")
    assert task_name("data/exam.v2.jsonl.gz") == TaskName("exam.v2", None, Path("data/exam.v2.jsonl.gz"))
    assert task_name("choice:exam") == TaskName("exam", "choice", Path("exam"))


def test_names_that_fit_nothing_or_are_alike_are_refused():
    with pytest.raises(ConfigError, match=re.escape("unknown task 'evryday'; did you mean 'everyday'?")):
        task_name("evryday")
    with pytest.raises(ConfigError, match=re.escape("a/exam.csv and b/exam.jsonl would both be called 'exam'")):
        check_names(["a/exam.csv", "b/exam.jsonl"])
    with pytest.raises(ConfigError, match=re.escape("everyday.csv: the file has the same name as the built-in task")):
        check_names(["everyday.csv"])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A", "A"),
        ("B.", "B"),
        ("The answer is (C)", "C"),
        ("A is right", "A"),
        ("Hark! A board game", None),
        ("D: x", "D"),
    ],
)
def test_an_article_is_no_label(text: str, label: str | None):
    assert choice_task("mc", [{"options": 4}]).predicted_label(text) == label
