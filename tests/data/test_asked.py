"""Prompts of people and files, as a model is asked them."""

import json
from pathlib import Path
from typing import Any

import pytest

from moslora.data.asked import as_asked, read_asked
from moslora.errors import DataError


def test_the_columns_of_the_training_data_are_used_as_far_as_a_file_has_them(tmp_path: Path):
    (tmp_path / "p.csv").write_text("question,about\nWhat is it?,a wren\n")
    columns = {"instruction": "question", "input": "about", "output": "answer"}
    (asked,) = read_asked(tmp_path / "p.csv", columns=columns, given="an owl")
    assert (asked.request["instruction"], asked.request["input"]) == ("What is it?", "a wren")


@pytest.mark.parametrize(
    ("header", "row", "asked_for"),
    [
        ("question", "Why?", ("Why?", None)),
        ("Frage;Antwort", "Why?;So.", ("Why?", None)),
        ("id,query,context", "3,Why?,A wren.", ("Why?", "A wren.")),
        ("Anfrage", "Why?", ("Why?", None)),
        ("en,fr", "Why?,Pourquoi?", ("Why?", None)),
        ("Prompt,completion", "Why?,So.", ("Why?", None)),
    ],
)
def test_questions_are_found_by_the_columns_that_training_is_proposed_with(
    tmp_path: Path, header: str, row: str, asked_for: tuple[str, str | None]
):
    (tmp_path / "p.csv").write_text(f"{header}\n{row}\n")
    for columns in (None, {"instruction": "Problem", "output": "Antwort"}):  # the file lacks the first of these
        (asked,) = read_asked(tmp_path / "p.csv", columns=columns)
        assert (asked.request["instruction"], asked.request["input"]) == asked_for


def test_chats_under_another_name_are_asked(tmp_path: Path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"dialog": [{"role": "user", "content": "Why?"}]}) + "\n")
    (asked,) = read_asked(tmp_path / "p.jsonl")
    assert asked.text == "Why?"


def test_what_is_given_beside_fills_what_a_sample_lacks():
    bare = as_asked({"prompt": "Translate."}, place="p", given="an owl", system="Be terse.")
    assert (bare.text, bare.request["system"]) == ("Translate.\nan owl", "Be terse.")
    own = as_asked({"instruction": "Go.", "system": "Be kind."}, place="p", system="Be terse.")
    assert own.request["system"] == "Be kind."


def test_a_chat_is_asked_up_to_the_answer_that_ends_it():
    rows = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "Why?"}]
    open_ended = as_asked({"conversations": rows}, place="p", system="Be terse.")
    answered = as_asked({"conversations": [*rows, {"from": "gpt", "value": "So."}]}, place="p", system="Be terse.")
    assert open_ended == answered
    assert [(turn["role"], turn["content"]) for turn in answered.messages] == [
        ("system", "Be terse."),
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "Why?"),
    ]
    assert answered.text == "Why?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "sample 1: no prompt (it has: text); call one field 'instruction', 'prompt' or 'messages'"),
        ({"question": "a", "A": "b", "B": "c"}, "no prompt (it has: question, A, B); call one field 'instruction'"),
        ({"instruction": " "}, "sample 1: the prompt is empty"),
        ({"instruction": 3}, "sample 1: field 'instruction' is 3, expected text"),
        ({"instruction": "a", "tools": ["x"]}, "field 'tools' has no place there"),
        ({"instruction": "\ud800"}, "sample 1: field 'instruction' holds \\ud800"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "sample 1: no question before the answer"),
    ],
)
def test_a_sample_that_asks_nothing_is_refused_with_its_place(row: dict[str, Any], message: str, tmp_path: Path):
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        read_asked(tmp_path / "p.jsonl")
    assert message in str(caught.value)


def test_a_text_without_prompts_is_refused(tmp_path: Path):
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"p\.txt: no (prompts|samples);"):
        read_asked(tmp_path / "p.txt")
