"""The hub's rows become the samples of the paper's sets, text for text."""

from typing import Any

import datasets
import pytest

from moslora.data.source import load_samples, task_samples
from moslora.data.tasks import task
from moslora.errors import DataError

ARC = {
    "id": "MCAS_2003_8_1",
    "question": "The sun is responsible for",
    "choices": {"text": ["puppies learning new tricks", "plants sprouting"], "label": ["A", "B"]},
    "answerKey": "B",
}
ARC_SAMPLE = {
    "instruction": (
        "Please choose the correct answer to the question: The sun is responsible for\n\nAnswer1: puppies learning new"
        " tricks Answer2: plants sprouting\n\nAnswer format: answer1/answer2"
    ),
    "input": "",
    "output": "the correct answer is answer2",
    "answer": "answer2",
}
PIQA = {"goal": "When boiling butter", "sol1": "Pour it onto a plate", "sol2": "Pour it into a jar", "label": 1}
PIQA_SAMPLE = {
    "instruction": (
        "Please choose the correct solution to the question: When boiling butter\n\nSolution1: Pour it onto a plate\n\n"
        "Solution2: Pour it into a jar\n\nAnswer format: solution1/solution2"
    ),
    "input": "",
    "output": "the correct answer is solution2",
    "answer": "solution2",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None, str], list[dict[str, Any]]]:
    """What lies on a hub that holds nothing else, by name, config and split."""
    sets: dict[tuple[str, str | None, str], list[dict[str, Any]]] = {}

    def load(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        return datasets.Dataset.from_list(sets[name, config, split])

    monkeypatch.setattr(datasets, "load_dataset", load)
    return sets


def test_questions_with_choices_are_written_as_the_papers_instructions(hub: Any):
    numbered = ARC | {"choices": {"text": ["no", "yes"], "label": ["1", "2"]}, "answerKey": "1"}
    hub["allenai/ai2_arc", "ARC-Easy", "test"] = [ARC, numbered]
    found = task_samples(task("ARC-Easy"), None, split="test")
    assert found[0] == ARC_SAMPLE
    assert found[1]["answer"] == "answer1"


def test_openbookqa_has_its_question_in_another_field(hub: Any):
    row = {key: value for key, value in ARC.items() if key != "question"} | {"question_stem": ARC["question"]}
    hub["allenai/openbookqa", "main", "train"] = [row, row]
    assert load_samples("openbookqa", limit=1) == [ARC_SAMPLE]


def test_piqa_is_tested_on_its_validation_set(hub: Any):
    hub["baber/piqa", None, "validation"] = [PIQA]
    assert task_samples(task("piqa"), None, split="test") == [PIQA_SAMPLE]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ARC | {"answerKey": "E"}, "ValueError: 'E' is not in list"),
        ({key: value for key, value in ARC.items() if key != "choices"}, "KeyError: 'choices'"),
    ],
)
def test_a_row_of_another_form_is_refused(hub: Any, row: dict[str, Any], reason: str):
    hub["allenai/ai2_arc", "ARC-Easy", "train"] = [row]
    with pytest.raises(DataError) as refused:
        load_samples("ARC-Easy")
    assert str(refused.value) == (
        f"hub set 'allenai/ai2_arc': sample 1 is not in the expected form ({reason}); give a data folder"
    )


def test_an_answer_that_is_not_public_is_refused(hub: Any):
    hub["baber/piqa", None, "validation"] = [PIQA | {"label": -1}]
    with pytest.raises(DataError, match=r"sample 1 is not in the expected form \(ValueError: label -1\)"):
        task_samples(task("piqa"), None, split="test")
