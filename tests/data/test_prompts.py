import pytest

from moslora.data.prompts import PROMPTS, build_prompt, prompt_ids, response_ids
from moslora.errors import ConfigError, DataError

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nName {it}.\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nName {it}.\n\n### Input:\nA cat\n\n### Response:\n"
)


@pytest.mark.parametrize("absent", [{}, {"input": ""}, {"input": None}])
def test_the_prompt_without_input(absent):
    sample = {"instruction": "Name {it}.", **absent}
    assert build_prompt(sample) == build_prompt(sample, style="alpaca") == ALPACA
    assert build_prompt(sample, style="plain") == "Name {it}.\nResponse:\n"


def test_the_prompt_with_input():
    sample = {"instruction": "Name {it}.", "input": "A cat"}
    assert build_prompt(sample) == ALPACA_WITH_INPUT
    assert build_prompt(sample, style="plain") == "Name {it}.\nA cat\nResponse:\n"


def test_an_unknown_style_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"unknown prompt style 'plane'; did you mean 'plain'\? \(allowed: alpaca, none, plain"
    ):
        build_prompt({"instruction": "x"}, style="plane")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({}, "field 'instruction' is None, expected text"),
        ({"instruction": 3}, "field 'instruction' is 3, expected text"),
        ({"instruction": "x", "input": 4}, "field 'input' is 4, expected text"),
    ],
)
def test_a_field_that_is_not_text_is_refused(sample, message):
    with pytest.raises(DataError, match=message):
        build_prompt(sample)


@pytest.mark.parametrize("style", PROMPTS)
def test_prompt_and_response_ids_give_back_their_texts(tiny_tokenizer, style):
    sample = {"instruction": "Größe?"}
    (prompt,), (response,) = prompt_ids([sample], tiny_tokenizer, style=style), response_ids(["yes"], tiny_tokenizer)
    assert tiny_tokenizer.decode(prompt + response) == build_prompt(sample, style=style) + "yes"
    assert prompt_ids([], tiny_tokenizer, style=style) == response_ids([], tiny_tokenizer) == []


def test_the_tokenizers_start_token_stays_and_its_end_token_goes(tiny_tokenizer):
    plain = prompt_ids([{"instruction": "x"}], tiny_tokenizer, style="plain")[0]
    start, end = tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id

    class Wrapping:
        eos_token_id = end

        def __call__(self, texts, **options):
            assert not options
            return {"input_ids": [[start, *tiny_tokenizer(text)["input_ids"], end] for text in texts]}

    assert prompt_ids([{"instruction": "x"}], Wrapping(), style="plain") == [[start, *plain]]
