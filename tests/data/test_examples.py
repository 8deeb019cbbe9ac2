import copy

import pytest
from tokenizers.processors import TemplateProcessing

from moslora.data.examples import instruction_examples
from moslora.data.prompts import build_prompt, prompt_ids
from moslora.errors import ConfigError, DataError

SAMPLES = [
    {"instruction": "Is it?", "input": "", "output": "the correct answer is true"},
    {"instruction": "Ärger?", "input": "more", "output": "no"},
]


def made(samples, tokenizer, **options):
    defaults = {"prompt_style": "plain", "loss_on": "sequence", "source": "a.jsonl"}
    return instruction_examples(samples, tokenizer, **(defaults | options))


@pytest.mark.parametrize("style", ["alpaca", "plain"])
def test_an_example_is_the_prompt_of_evaluation_then_response_and_end(tiny_tokenizer, style):
    result = made(SAMPLES, tiny_tokenizer, prompt_style=style)
    for sample, example, prompt in zip(SAMPLES, result, prompt_ids(SAMPLES, tiny_tokenizer, style=style), strict=True):
        assert example["input_ids"][: len(prompt)] == prompt
        assert example["input_ids"][-1] == tiny_tokenizer.eos_token_id
        text = build_prompt(sample, style=style) + sample["output"]
        assert tiny_tokenizer.decode(example["input_ids"][:-1]) == text


def test_the_loss_is_on_everything_or_on_response_and_end(tiny_tokenizer):
    whole = made(SAMPLES, tiny_tokenizer)
    masked = made(SAMPLES, tiny_tokenizer, loss_on="response")
    for sample, all_tokens, own_tokens in zip(SAMPLES, whole, masked, strict=True):
        assert all_tokens["labels"] == all_tokens["input_ids"] == own_tokens["input_ids"]
        learned = [label for label in own_tokens["labels"] if label != -100]
        assert tiny_tokenizer.decode(learned[:-1]) == sample["output"]
        assert learned == own_tokens["labels"][-len(learned) :]


def test_a_start_token_is_kept_if_the_tokenizer_adds_one(tiny_tokenizer):
    adding = copy.deepcopy(tiny_tokenizer)
    start, end = adding.bos_token_id, adding.eos_token_id
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|start|>", start), ("<|end|>", end)]
    )
    for plain, started in zip(made(SAMPLES, tiny_tokenizer), made(SAMPLES, adding), strict=True):
        assert started["input_ids"] == [start, *plain["input_ids"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": None}, r"a\.jsonl: sample 2: field 'output' is None, expected text"),
        ({"output": ""}, r"a\.jsonl: sample 2: field 'output' is '', expected text"),
        ({"instruction": 5}, r"a\.jsonl: sample 2: field 'instruction' is 5, expected text"),
        ({"input": 5}, r"a\.jsonl: sample 2: field 'input' is 5, expected text or nothing"),
    ],
)
def test_a_bad_field_is_named(tiny_tokenizer, change, message):
    with pytest.raises(DataError, match=message):
        made([SAMPLES[0], SAMPLES[1] | change], tiny_tokenizer)


def test_a_missing_field_is_named_with_those_present(tiny_tokenizer):
    with pytest.raises(DataError, match=r"sample 1: field 'output' is missing \(it has: instruction, answer\); add it"):
        made([{"instruction": "x", "answer": "y"}], tiny_tokenizer)


def test_an_unknown_place_of_the_loss_is_refused(tiny_tokenizer):
    with pytest.raises(
        ConfigError, match=r"unknown loss_on 'reponse'; did you mean 'response'\? \(allowed: response, seq"
    ):
        made(SAMPLES, tiny_tokenizer, loss_on="reponse")
