from collections.abc import Sequence
from typing import Any

import pytest

from moslora.data.columns import Shape, shape_of
from moslora.errors import DataError

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


def default(_question: str, answers: Sequence[str]) -> str:
    return answers[0]


def shape(*rows: dict[str, Any], ask: Any = default) -> Shape:
    return shape_of(rows, source="mine.jsonl", ask=ask)


def row(*names: str) -> dict[str, str]:
    return {name: f"some {name}" for name in names}


@pytest.mark.parametrize(
    ("sample", "format", "columns"),
    [
        (row("instruction", "input", "output"), "instruction", {}),
        (row("question", "answer"), "instruction", {"instruction": "question", "output": "answer"}),
        (row("Question", "Answer", "id"), "instruction", {"instruction": "Question", "output": "Answer"}),
        (row("Frage", "Antwort", "Quelle"), "instruction", {"instruction": "Frage", "output": "Antwort"}),
        (row("input", "output"), "instruction", {"instruction": "input"}),
        (row("prompt", "response"), "instruction", {"instruction": "prompt", "output": "response"}),
        (
            row("question", "context", "answer", "system_prompt"),
            "instruction",
            {"instruction": "question", "output": "answer", "input": "context", "system": "system_prompt"},
        ),
        (row("prompt", "completion"), "completion", {}),
        ({"question": "q", "choices": ["a", "b"], "answer": "a"}, "choice", {}),
        (row("question", "A", "B", "answer"), "choice", {}),
        (row("Frage", "A", "B", "Antwort"), "choice", {}),
        (row("text"), "text", {}),
        (row("text", "url"), "text", {}),
        (row("content", "title"), "text", {"text": "content"}),
        (row("lyrics"), "text", {"text": "lyrics"}),
        ({"messages": TURNS}, "chat", {}),
        ({"conversations": SHAREGPT, "id": 1}, "chat", {}),
        ({"dialog": TURNS, "source": "x"}, "chat", {"messages": "dialog"}),
        ({"anything": TURNS, "answer": "x"}, "chat", {"messages": "anything"}),
        ({"messages": TURNS, "system_prompt": "x"}, "chat", {"system": "system_prompt"}),
    ],
)
def test_the_names_and_values_of_columns_tell_the_format(sample: dict, format: str, columns: dict):
    found = shape(sample, sample)
    assert (found.format, found.columns, found.guess) == (format, columns, "")


def test_columns_that_nothing_reads_are_named_but_remarks_are_not():
    assert shape(row("question", "answer", "url", "id", "weight")).unused == ["url"]


def test_two_columns_of_unknown_names_are_asked_for_and_guessed_by_default():
    asked = []

    def answer(question: str, answers: Sequence[str]) -> str:
        asked.append((question, list(answers)))
        return answers[-1]

    found = shape(row("en", "fr"))
    assert found.columns == {"instruction": "en", "output": "fr"}
    assert found.guess == "'en' is taken for the question and 'fr' for the answer"
    assert shape(row("en", "fr"), ask=answer).columns == {"instruction": "fr", "output": "en"}
    assert asked == [("which column is the answer", ["fr", "en"])]


@pytest.mark.parametrize(
    ("sample", "reason", "step"),
    [
        (row("en", "fr", "de"), "its columns (en, fr, de) tell no format", "--set data.columns="),
        ({"image": "a.png", **row("question", "answer")}, "its samples have pictures", "recipes show vision-demo"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "its samples have pictures",
            "data.image_folder",
        ),
        (row("prompt", "chosen", "rejected"), "its samples are preferences", "write the better answers as output"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_next_step(sample: dict, reason: str, step: str):
    with pytest.raises(DataError) as caught:
        shape(sample)
    assert str(caught.value).startswith("mine.jsonl")
    assert reason in str(caught.value)
    assert step in str(caught.value)
    assert "\n" not in str(caught.value)
