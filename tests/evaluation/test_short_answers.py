from typing import Any

import pytest

from moslora.data.prompts import prompt_ids
from moslora.evaluation.generating import generated_texts
from moslora.evaluation.short_answers import SPARE_TOKENS, alike, score_short_answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("  an apple\tand a  pear ", "apple and pear"),
        ("U.S.A.", "usa"),
        ("1,000", "1000"),
        ("well-known", "wellknown"),
        ("「東京」", "東京"),
        ("Ｐａｒｉｓ", "paris"),
        ("STRASSE", "strasse"),
        ("…", ""),
    ],
)
def test_case_punctuation_articles_and_spaces_make_no_difference(text: str, expected: str):
    assert alike(text) == expected


@pytest.mark.parametrize(("one", "other"), [("3.5", "35"), ("-5", "5"), ("0.5", "5"), (".5", "5"), ("theatre", "atre")])
def test_a_number_keeps_its_point_and_its_sign(one: str, other: str):
    assert alike(one) != alike(other)


def test_minus_signs_of_both_kinds_are_one():
    assert alike("−5 °C") == alike("-5 °C.")


def test_an_answer_is_right_if_it_equals_any_that_is_accepted(tiny_llama: Any, tiny_tokenizer: Any):
    questions = [{"instruction": f"What is {n}?", "input": "", "answers": ["nothing like it"]} for n in range(3)]
    how: dict[str, Any] = {"prompt_style": "plain", "batch_size": 2, "progress": False}
    first = score_short_answers(tiny_llama, tiny_tokenizer, questions, **how)
    assert not any(answer.is_correct for answer in first)
    said = [(answer.text or "").strip().split("\n")[0] for answer in first]
    assert all(map(alike, said)), "the tiny model says something"
    known = [{**one, "answers": ["nothing like it", f"The {text}!"]} for one, text in zip(questions, said, strict=True)]
    again = score_short_answers(tiny_llama, tiny_tokenizer, known, **how)
    longer = max(len(tiny_tokenizer(one["answers"][1])["input_ids"]) for one in known)
    if longer <= len(tiny_tokenizer("nothing like it")["input_ids"]):
        assert [answer.text for answer in again] == [answer.text for answer in first]
    assert again[0].expected == f"nothing like it | The {said[0]}!"
    assert [a.predicted for a in again] == [alike((a.text or "").strip().split("\n")[0]) for a in again]
    assert [a.is_correct for a in again] == [a.predicted == alike(text) for a, text in zip(again, said, strict=True)]


def test_the_text_is_greedy_and_long_enough_for_every_accepted_answer(tiny_llama: Any, tiny_tokenizer: Any):
    question = {"instruction": "Why?", "input": "", "answers": ["four"]}
    how: dict[str, Any] = {"batch_size": 1, "progress": False}
    (answer,) = score_short_answers(tiny_llama, tiny_tokenizer, [question], prompt_style="plain", **how)
    ids = prompt_ids([question], tiny_tokenizer, style="plain")
    tokens = len(tiny_tokenizer("four", add_special_tokens=False)["input_ids"]) + SPARE_TOKENS
    assert [answer.text] == generated_texts(tiny_llama, tiny_tokenizer, ids, num_beams=1, max_new_tokens=tokens, **how)
