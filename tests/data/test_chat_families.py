"""What is learned of a chat with the templates of each family of models, on a tokenizer of its kind."""

import copy
from typing import Any

import pytest
from transformers import ByT5Tokenizer

from moslora.data.chat import chat_examples
from moslora.errors import DataError
from moslora.runs.groups import ModelSettings
from moslora.runs.models import load_tokenizer
from tests.data.chat_families import (
    GEMMA,
    LLAMA3,
    MISTRAL,
    OLD_PHI,
    PHI,
    QWEN3,
    QWEN25,
    R1,
    byte_level,
    metaspace,
)

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
FAMILIES = {
    "llama3": (LLAMA3, byte_level, "llama3"),
    "qwen2.5": (QWEN25, byte_level, "qwen"),
    "qwen3": (QWEN3, byte_level, "qwen"),
    "r1": (R1, byte_level, "r1"),
    "gemma": (GEMMA, metaspace, "gemma"),
    "mistral": (MISTRAL, metaspace, "mistral"),
    "phi3": (PHI, metaspace, "phi"),
    "phi4": (PHI, byte_level, "phi"),
    "chatml on gpt2": (QWEN25, byte_level, "gpt2"),
    "llama3 on gpt2": (LLAMA3, byte_level, "gpt2"),
}
# What is learned of two answers, "Goodbye, Jürgen" and " It is brown\n".
LEARNED = {
    "llama3": ["Goodbye, Jürgen<|eot_id|>", "It is brown<|eot_id|>"],
    "qwen2.5": ["Goodbye, Jürgen<|im_end|>", " It is brown\n<|im_end|>"],
    "qwen3": ["Goodbye, Jürgen<|im_end|>", "<think>\n\n</think>\n\n It is brown\n<|im_end|>"],
    "r1": ["Goodbye, Jürgen<|end_of_sentence|>", " It is brown\n<|end_of_sentence|>"],
    "gemma": ["Goodbye, Jürgen<end_of_turn>", "It is brown<end_of_turn>"],
    "mistral": [" Goodbye, Jürgen</s>", " It is brown</s>"],
    "phi3": ["Goodbye, Jürgen<|end|>", " It is brown\n<|end|>\n<|endoftext|>"],
    "phi4": ["Goodbye, Jürgen<|end|>", " It is brown\n<|end|>\n<|endoftext|>"],
    "chatml on gpt2": ["Goodbye, Jürgen<|im_end|>\n", " It is brown\n<|im_end|>\n"],
    "llama3 on gpt2": ["Goodbye, Jürgen<|eot_id|>", "It is brown<|eot_id|>"],
}


def tokenizer_of(family: str) -> Any:
    template, make, name = FAMILIES[family]
    tokenizer = copy.deepcopy(make(name))
    tokenizer.chat_template = template
    return tokenizer


def chat(*texts: str, **last: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)
    ]
    rows[-1] |= last
    return {"messages": rows}


def example_of(sample: Any, tokenizer: Any, loss_on: str = "response") -> Any:
    (example,) = chat_examples([sample], tokenizer, loss_on=loss_on, source="a.jsonl")
    return example


def learned(example: Any, tokenizer: Any) -> list[str]:
    runs: list[list[int]] = [[]]
    for token, label in zip(example["input_ids"], example["labels"], strict=True):
        assert label in (-100, token)
        if label != -100:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


CHAT = chat("Hello there", "Goodbye, Jürgen", " And a colour?\n", " It is brown\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_and_their_ends_are_learned_and_nothing_else(family: str):
    tokenizer = tokenizer_of(family)
    example = example_of(CHAT, tokenizer)
    assert learned(example, tokenizer) == LEARNED[family]
    whole = tokenizer.apply_chat_template(CHAT["messages"], return_dict=True)["input_ids"]
    if family != "llama3 on gpt2":  # which divides line breaks by what follows them
        assert example["input_ids"] == whole
    assert example_of(CHAT, tokenizer, "sequence") == {"input_ids": whole, "labels": whole}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "r1"])
@pytest.mark.parametrize("answer", ["A bird.", "\n\nThank you!\n\n", " It is", "x"])
def test_what_is_learned_follows_the_very_tokens_that_generation_is_asked_with(family: str, answer: str):
    tokenizer = tokenizer_of(family)
    sample = chat("Hello there", answer)
    example = example_of(sample, tokenizer)
    asked = tokenizer.apply_chat_template(sample["messages"][:1], add_generation_prompt=True, return_dict=True)
    prompt = asked["input_ids"]
    assert example["input_ids"][: len(prompt)] == prompt
    assert example["labels"][: len(prompt)] == [-100] * len(prompt)
    assert example["labels"][len(prompt)] == example["input_ids"][len(prompt)]


def test_a_token_over_an_answers_start_is_divided_there_and_the_text_is_the_same():
    tokenizer = tokenizer_of("qwen2.5")
    sample = chat("Hello there", "\n\nThank you!")
    whole = tokenizer.apply_chat_template(sample["messages"], return_dict=True)["input_ids"]
    example = example_of(sample, tokenizer)
    assert example["input_ids"] != whole  # the header's line break and the answer's were one token
    assert tokenizer.decode(example["input_ids"]) == tokenizer.decode(whole)
    assert learned(example, tokenizer) == ["\n\nThank you!<|im_end|>"]


def test_a_token_over_an_answers_start_that_cannot_be_divided_is_not_learned():
    tokenizer = copy.deepcopy(metaspace("phi", "always"))  # it would put a space before the second part
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] + m.content + eos_token }}{% endfor %}{{ 'a' if add_generation_prompt }}"
    )
    sample = chat("there", "nd a colour?")  # whose start is within the token of " and"
    example = example_of(sample, tokenizer)
    whole = tokenizer.apply_chat_template(sample["messages"], return_dict=True)["input_ids"]
    assert example["input_ids"] == whole
    (text,) = learned(example, tokenizer)
    assert text.endswith("colour?<|endoftext|>")
    assert not text.startswith("and")


def test_a_thought_is_learned_where_the_template_keeps_it():
    tokenizer = tokenizer_of("qwen3")
    told = chat("Hello there", "A bird.", "And?", "Brown.", reasoning_content="It is a bird.")
    written = chat("Hello there", "A bird.", "And?", "<think>\nIt is a bird.\n</think>\n\nBrown.")
    for sample in (told, written):
        expected = ["A bird.<|im_end|>", "<think>\nIt is a bird.\n</think>\n\nBrown.<|im_end|>"]
        assert learned(example_of(sample, tokenizer), tokenizer) == expected
    earlier = chat("Hello there", "<think>\nA greeting.\n</think>\n\nA bird.", "And?", "Brown.")
    assert learned(example_of(earlier, tokenizer), tokenizer)[0] == "A bird.<|im_end|>"  # the template's own way


def test_a_thought_that_the_template_drops_from_the_last_answer_is_refused():
    sample = chat("Hello there", "<think>\nIt is a bird.\n</think>\n\nBrown.")
    with pytest.raises(
        DataError, match=r"sample 1: message 2: the chat template leaves out what comes before </think>"
    ):
        example_of(sample, tokenizer_of("r1"))


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
@pytest.mark.parametrize("text", [None, "Let me see."])
def test_calls_are_learned_and_their_answers_are_not(family: str, text: str | None):
    tokenizer = tokenizer_of(family)
    rows = [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": text, "tool_calls": [CALL]},
        {"role": "tool", "content": "4 degrees"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "5 degrees"},
        {"role": "assistant", "content": "It is 5."},
        {"role": "user", "content": "Thank you!"},
        {"role": "assistant", "content": "Goodbye"},
    ]
    found = learned(example_of({"messages": rows}, tokenizer), tokenizer)
    assert len(found) == 4
    assert ["<tool_call>" in one for one in found] == [True, True, False, False]
    assert all(one.endswith("<|im_end|>") and "degrees" not in one and "user" not in one for one in found)
    assert (text or "") in found[0]


def test_turns_marked_as_not_to_be_learned_are_not_in_rewritten_histories_either():
    tokenizer = tokenizer_of("qwen3")
    sample = copy.deepcopy(CHAT)
    sample["messages"][1]["train"] = False
    assert learned(example_of(sample, tokenizer), tokenizer) == LEARNED["qwen3"][1:]
    sequence = "".join(learned(example_of(sample, tokenizer, "sequence"), tokenizer))
    assert "Goodbye" not in sequence
    assert "Hello there" in sequence


@pytest.mark.parametrize(
    ("family", "roles", "reason"),
    [
        (
            "gemma",
            ["system", "user", "assistant"],
            r"\(System role not supported\); it takes no system message: put it",
        ),
        (
            "gemma",
            ["user", "user", "assistant"],
            r"\(Roles must alternate .*\); two turns of the user in a row",
        ),
        (
            "mistral",
            ["system", "user", "user", "assistant"],
            r"\(After the optional system message, .*two turns of the u",
        ),
        ("mistral", ["user", "assistant", "assistant"], "two turns of the assistant in a row: join them, or"),
        (
            "gemma",
            ["user", "tool", "assistant"],
            r"choose one that shows tools: --set data\.chat_template=chatml-tools \(but .*, or leave the chat out",
        ),
    ],
)
def test_a_refused_role_is_told_with_the_templates_reason_and_what_to_do(family: str, roles: list[str], reason: str):
    rows = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    with pytest.raises(DataError, match=rf"^a\.jsonl: sample 1: the chat template refuses it .*{reason}"):
        example_of({"messages": rows}, tokenizer_of(family))


def test_a_role_that_the_template_leaves_out_without_a_word_is_refused():
    tokenizer = copy.deepcopy(metaspace("phi"))
    tokenizer.chat_template = OLD_PHI
    assert learned(example_of(CHAT, tokenizer), tokenizer) == LEARNED["phi3"]
    sample = {"messages": [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]}
    for loss_on in ("response", "sequence"):
        with pytest.raises(
            DataError, match=r"sample 1: message 1: the chat template leaves out the text of the role 'system'"
        ):
            example_of(sample, tokenizer, loss_on)


def test_calls_are_written_as_the_template_takes_them():
    tokenizer = tokenizer_of("qwen2.5")
    tokenizer.chat_template = tokenizer.chat_template.replace("call.function | tojson", "'f' + call.function.arguments")
    sample = chat("Hello there", "", tool_calls=[CALL])
    (text,) = learned(example_of(sample, tokenizer), tokenizer)
    assert text == '<tool_call>\nf{"city": "Oslo"}\n</tool_call><|im_end|>'


def test_a_text_that_a_template_for_parts_leaves_out_is_refused():
    tokenizer = tokenizer_of("qwen2.5")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    )
    with pytest.raises(DataError, match=r"message 1: the chat template leaves out the text of the role 'user'"):
        example_of(CHAT, tokenizer)


def test_answers_within_a_chat_may_end_with_another_token_than_its_last():
    tokenizer = tokenizer_of("qwen2.5")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}"
        "{{ '<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
        "{{ '<|im_start|>assistant:' if add_generation_prompt }}"
    )
    expected = ["Goodbye, Jürgen<|im_end|>", " It is brown\n<|endoftext|>"]
    assert learned(example_of(CHAT, tokenizer), tokenizer) == expected


def test_an_answer_with_the_thought_that_prompts_open_starts_within_it_whatever_came_before():
    tokenizer = tokenizer_of("qwen3")
    opened = "{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
    head, _, _ = tokenizer.chat_template.rpartition("{{- '<|im_start|>assistant")
    tokenizer.chat_template = head + opened
    expected = ["Goodbye, Jürgen<|im_end|>", "\n</think>\n\n It is brown\n<|im_end|>"]
    assert learned(example_of(CHAT, tokenizer), tokenizer) == expected


def test_the_system_message_in_mistrals_last_question_is_not_learned():
    tokenizer = tokenizer_of("mistral")
    sample = {"messages": [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]}
    assert learned(example_of(sample, tokenizer), tokenizer) == LEARNED["mistral"]


@pytest.mark.parametrize("family", ["mistral", "qwen3"])
def test_a_tokenizer_without_offsets_learns_the_same(family: str):
    tokenizer: Any = ByT5Tokenizer(additional_special_tokens=["<|im_start|>", "<|im_end|>"], extra_ids=0)
    assert not tokenizer.is_fast
    tokenizer.chat_template, tokenizer.bos_token = FAMILIES[family][0], "<pad>"
    assert learned(example_of(CHAT, tokenizer), tokenizer) == LEARNED[family]


def test_the_installed_model_learns_its_answers(demo_model: None):
    tokenizer = load_tokenizer(ModelSettings(path="smollm2"))
    for sample in (CHAT, chat("Hello there", "\nA bird.")):
        texts = [message["content"] for message in sample["messages"] if message["role"] == "assistant"]
        example = example_of(sample, tokenizer)
        assert learned(example, tokenizer) == [f"{text}<|im_end|>" for text in texts]
        assert "You are a helpful AI assistant" in tokenizer.decode(example["input_ids"])
