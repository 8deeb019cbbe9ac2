import copy

import pytest
from tokenizers.processors import TemplateProcessing

from moslora.data.examples import completion_examples, instruction_examples, text_examples
from moslora.data.prompts import build_prompt, prompt_ids
from moslora.data.reading import Reading
from moslora.data.tokens import IGNORED
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


def rows(samples, tokenizer, make=completion_examples, **options):
    return make(samples, tokenizer, reading=Reading.of("a.jsonl", len(samples)), **options)


@pytest.mark.parametrize("prompt", ["Translate: hund =>", "", None])
def test_a_completion_follows_its_prompt_as_it_is(tiny_tokenizer, prompt):
    sample = {"prompt": prompt, "completion": " dog"}
    (sequence,) = rows([sample], tiny_tokenizer, loss_on="sequence")
    (response,) = rows([sample], tiny_tokenizer, loss_on="response")
    asked = prompt_ids([{"instruction": prompt or ""}], tiny_tokenizer, style="none")[0]
    end = tiny_tokenizer.eos_token_id
    answer = [*tiny_tokenizer(" dog", add_special_tokens=False)["input_ids"], end]
    assert sequence["input_ids"] == response["input_ids"] == sequence["labels"] == asked + answer
    assert response["labels"] == [IGNORED] * len(asked) + answer
    assert tiny_tokenizer.decode(asked, skip_special_tokens=True) == (prompt or "")


def test_a_text_is_learned_whole_with_its_end(tiny_tokenizer):
    (made,) = rows([{"text": "Once."}], tiny_tokenizer, make=text_examples)
    assert made["input_ids"] == made["labels"]
    assert made["input_ids"] == [*tiny_tokenizer("Once.")["input_ids"], tiny_tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"prompt": "a", "completion": " "}, "a.jsonl: sample 1: field 'completion' is ' ', expected text"),
        ({"completion": "b"}, "field 'prompt' is missing (it has: completion); add it, or name its column in data.col"),
        ({"prompt": 3, "completion": "b"}, "field 'prompt' is 3, expected text"),
        ({"prompt": [{"role": "user"}], "completion": []}, "field 'prompt' is a list; write chats as 'messages'"),
        ({"prompt": "a", "completion": "b", "system": "s"}, "field 'system' has no place in data.format completion"),
        ({"prompt": "a", "completion": "b", "history": [["c", "d"]]}, "field 'history' has no place in data.format"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "field 'chosen' is for preference training"),
        ({"instruction": "a", "output": "b"}, "'prompt' is missing (it has: instruction, output); set data.format to"),
    ],
)
def test_a_sample_that_is_no_completion_is_refused(tiny_tokenizer, sample, message):
    with pytest.raises(DataError) as caught:
        rows([sample], tiny_tokenizer, loss_on="sequence")
    assert message in str(caught.value)


def test_a_sample_in_another_format_is_told_which(tiny_tokenizer):
    def refused(sample):
        with pytest.raises(DataError) as caught:
            made([sample], tiny_tokenizer)
        return str(caught.value)

    assert "set data.format to text, which it fits" in refused({"text": "a"})
    assert "set data.format to completion, which it fits" in refused({"prompt": "a", "completion": "b"})
    assert "is a chat; set data.format to chat" in refused({"messages": [{"role": "user", "content": "a"}]})
