"""Chat templates that come with the package or from a file, and the system message put before chats."""

import copy
from pathlib import Path
from typing import Any

import pytest

from moslora.data.chat import chat_examples
from moslora.data.prompts import prompt_ids, response_ids
from moslora.data.template_choice import choose_template, known_templates, shows_tools, take_saved, template_text
from moslora.errors import ConfigError, DataError
from moslora.runs.language_settings import DataSettings
from moslora.runs.recipe import parse_recipe
from tests.data.chat_families import GEMMA, OLD_PHI, QWEN3, QWEN25, byte_level, metaspace
from tests.data.test_chat_families import CALL, chat, example_of, learned

KINDS = {
    "chatml": (byte_level, "qwen"),
    "chatml-tools": (byte_level, "qwen"),
    "gemma": (metaspace, "gemma"),
    "llama3": (byte_level, "llama3"),
    "mistral": (metaspace, "mistral"),
    "phi3": (metaspace, "phi"),
    "plain": (byte_level, "gpt2"),
    "zephyr": (metaspace, "phi"),
}
ENDS = {
    "chatml": "<|im_end|>",
    "chatml-tools": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "phi3": "<|end|>",
    "plain": "<|endoftext|>",
    "zephyr": "<|endoftext|>",
}
CHAT = chat("Hello there", "Goodbye", "And a colour?", "It is brown")


def tokenizer_of(name: str) -> Any:
    make, family = KINDS[name]
    return copy.deepcopy(make(family))


def text_of(tokenizer: Any, messages: Any, **options: Any) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_every_known_template_is_tried_here_and_named_where_the_setting_is_explained():
    assert known_templates() == sorted(KINDS)
    explained = DataSettings.model_fields["chat_template"].description or ""
    assert all(f"`{name}`" in explained for name in known_templates())


@pytest.mark.parametrize("name", KINDS)
def test_a_known_template_teaches_the_answers_and_the_token_that_ends_them(name: str):
    tokenizer = tokenizer_of(name)
    choose_template(tokenizer, template=name)
    example = example_of(CHAT, tokenizer)
    found = [text.strip(" ") for text in learned(example, tokenizer)]  # before Mistral's there is a space
    assert found == [f"Goodbye{ENDS[name]}", f"It is brown{ENDS[name]}"]
    assert tokenizer.eos_token == ENDS[name]
    asked = tokenizer.apply_chat_template(CHAT["messages"][:1], add_generation_prompt=True)["input_ids"]
    assert example["input_ids"][: len(asked)] == asked
    assert example["labels"][len(asked)] != -100


@pytest.mark.parametrize("name", KINDS)
def test_questions_can_be_asked_with_a_known_template(name: str):
    question = {"instruction": "What is a sparrow?"}
    # a tokenizer that puts a space before an answer by itself, and not after a line break, cannot be asked so
    tokenizer = copy.deepcopy(byte_level("phi")) if name in ("phi3", "zephyr") else tokenizer_of(name)
    choose_template(tokenizer, template=name, system="Be brief.")
    answer = "the correct answer is answer1"
    (ids,) = prompt_ids([question], tokenizer, style="chat")
    example = example_of(chat(question["instruction"], answer), tokenizer)
    (response,) = response_ids([answer], tokenizer)
    assert example["input_ids"][: len(ids) + len(response)] == ids + response


@pytest.mark.parametrize("name", KINDS)
def test_a_known_template_shows_a_system_message(name: str):
    tokenizer = tokenizer_of(name)
    choose_template(tokenizer, template=name, system="Be brief.")
    text = text_of(tokenizer, CHAT["messages"])
    assert text.count("Be brief.") == 1
    assert text.index("Be brief.") < text.index("Hello there")


def test_without_the_tags_of_known_templates_the_same_is_learned():
    for name in KINDS:
        tokenizer = tokenizer_of(name)
        choose_template(tokenizer, template=name)
        tagged = example_of(CHAT, tokenizer)
        for tag in ("{%- generation -%}", "{%- endgeneration -%}"):
            tokenizer.chat_template = tokenizer.chat_template.replace(tag, "")
        assert example_of(CHAT, tokenizer) == tagged


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("weather", "zürich")]
CALLED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def test_chatml_with_tools_shows_them_and_teaches_the_calls():
    tokenizer = tokenizer_of("chatml-tools")
    choose_template(tokenizer, template="chatml-tools")
    rows = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it cold?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "4 degrees"},
        {"role": "tool", "tool_call_id": "b", "content": "5 degrees"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "6 degrees"},
        {"role": "assistant", "content": "Yes."},
    ]
    sample = {"tools": TOOLS, "messages": rows}
    example = example_of(sample, tokenizer)
    end = "<|im_end|>"
    assert learned(example, tokenizer) == [f"Let me see.\n{CALLED}\n{CALLED}{end}", CALLED + end, f"Yes.{end}"]
    text = tokenizer.decode(example["input_ids"])
    shown = "\n".join(f'{{"type": "function", "function": {{"name": "{name}"}}}}' for name in ("weather", "zürich"))
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert f"<tools>\n{shown}\n</tools>\n" in text.partition("<|im_start|>user")[0]
    answers = "".join(f"\n<tool_response>\n{n} degrees\n</tool_response>" for n in (4, 5))
    assert f"<|im_start|>tool{answers}<|im_end|>\n<|im_start|>assistant\n" in text
    rows[2]["train"] = False
    assert learned(example_of(sample, tokenizer), tokenizer) == [CALLED + end, f"Yes.{end}"]


def test_chatml_with_tools_asks_for_what_it_taught_and_reads_former_calls():
    tokenizer = tokenizer_of("chatml-tools")
    choose_template(tokenizer, template="chatml-tools")
    former = chat("Is it cold?", "", function_call={"name": "weather", "arguments": '{"city": "Oslo"}'})
    sample = {"tools": TOOLS, **former}
    example = example_of(sample, tokenizer)
    assert learned(example, tokenizer) == [f"{CALLED}<|im_end|>"]
    asked = text_of(tokenizer, former["messages"][:1], tools=TOOLS, add_generation_prompt=True)
    assert tokenizer.decode(example["input_ids"]) == f"{asked}{CALLED}<|im_end|>\n"
    choose_template(tokenizer, system="Be brief.")
    assert text_of(tokenizer, former["messages"], tools=TOOLS).startswith("<|im_start|>system\nBe brief.\n\nYou can")


@pytest.mark.parametrize(
    ("template", "shows"),
    [
        (QWEN25, True),
        (template_text("chatml-tools"), True),
        (QWEN3, False),
        (template_text("chatml"), False),
        (GEMMA, False),
    ],
)
def test_a_template_shows_tools_if_none_of_them_the_calls_and_the_answers_is_left_out(template: str, shows: bool):
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = template  # Qwen3's here shows calls, but no tools
    assert shows_tools(tokenizer) is shows


def test_a_tokenizer_without_chatmls_tokens_is_told_what_the_template_for_tools_lacks_there():
    told = r"choose one that shows tools: --set data\.chat_template=chatml-tools"
    sample = {"tools": TOOLS, **CHAT}
    for name, more in (
        ("chatml", "$"),
        ("zephyr", r" \(but <\|im_end\|>, which ends .* of this model\), or a Jinja file$"),
    ):
        tokenizer = tokenizer_of(name)
        choose_template(tokenizer, template=name)
        with pytest.raises(DataError, match=rf"^a\.jsonl: sample 1: .* leaves out the field 'tools'; {told}{more}"):
            example_of(sample, tokenizer)


def test_the_token_that_ends_answers_becomes_the_end_token_and_that_is_told():
    tokenizer = tokenizer_of("chatml")
    assert tokenizer.eos_token == "<|im_end|>"
    assert choose_template(tokenizer, template="chatml") == []
    tokenizer.eos_token = "<|endoftext|>"
    (note,) = choose_template(tokenizer, template="chatml")
    assert note == "answers end with <|im_end|>, which is now the tokenizer's end token (it was <|endoftext|>)"
    (note,) = choose_template(tokenizer_of("plain"), template="chatml")
    assert note.startswith(
        "data.chat_template ends answers with '<|im_end|>', which is not a special token of this tok"
    )


def test_a_template_may_be_a_file(tmp_path: Path):
    path = tmp_path / "own.jinja"
    path.write_text("\ufeff" + template_text("zephyr"), encoding="utf-8")
    assert template_text(str(path)) == template_text("zephyr")
    with pytest.raises(ConfigError, match=r"'chatlm' is not a readable file; did you mean 'chatml'\? \(known ones: "):
        template_text("chatlm")
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        template_text(str(tmp_path / "latin.jinja"))
    path.write_text("{% for m in messages %}{{ m.content }}")
    with pytest.raises(
        DataError, match=r"the chat template is not valid Jinja \(line 1: .*; correct it, or choose ano"
    ):
        choose_template(tokenizer_of("chatml"), template=str(path))


@pytest.mark.parametrize("template", [QWEN25, template_text("chatml")])
def test_the_system_message_stands_before_chats_that_bring_none(template: str):
    tokenizer, said = tokenizer_of("chatml"), 'Say "hi", Jürgen.\nOr {{ nothing }}\\'
    tokenizer.chat_template = template
    choose_template(tokenizer, system=said)
    assert text_of(tokenizer, CHAT["messages"]).startswith(f"<|im_start|>system\n{said}<|im_end|>\n<|im_start|>user")
    assert text_of(tokenizer, CHAT["messages"][:1], add_generation_prompt=True).count(said) == 1
    own = [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]
    assert said not in text_of(tokenizer, own)
    assert learned(example_of(CHAT, tokenizer), tokenizer) == ["Goodbye<|im_end|>", "It is brown<|im_end|>"]


def test_a_system_message_that_the_template_does_not_take_is_refused():
    tokenizer = tokenizer_of("gemma")
    tokenizer.chat_template = GEMMA
    with pytest.raises(
        DataError, match=r"^data\.system: the chat template refuses it \(System role not supported\); it t"
    ):
        choose_template(tokenizer, system="Be brief.")
    tokenizer = tokenizer_of("phi3")
    tokenizer.chat_template = OLD_PHI
    with pytest.raises(
        DataError, match=r"^data\.system: message 1: the chat template leaves out the text of the role 'system'"
    ):
        choose_template(tokenizer, system="Be brief.")


def test_what_was_chosen_is_saved_with_the_tokenizer_and_taken_up_again(tmp_path: Path):
    tokenizer, other = tokenizer_of("chatml"), tokenizer_of("chatml")
    tokenizer.eos_token = other.eos_token = "<|endoftext|>"
    choose_template(tokenizer, template="chatml", system="Be brief.")
    tokenizer.save_pretrained(tmp_path)
    take_saved(other, tmp_path)
    assert other.chat_template == tokenizer.chat_template
    assert other.eos_token == "<|im_end|>"
    take_saved(other, tmp_path / "nothing")
    assert other.chat_template == tokenizer.chat_template


def test_a_tokenizer_with_several_templates_puts_the_system_message_before_each():
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = {"default": template_text("chatml"), "tool_use": QWEN25}
    choose_template(tokenizer, system="Be brief.")
    tool = {"type": "function", "function": {"name": "weather"}}
    for options in ({}, {"tools": [tool]}):
        assert text_of(tokenizer, CHAT["messages"], **options).startswith("<|im_start|>system\nBe brief.")


def test_a_tokenizer_without_a_template_is_told_the_known_ones():
    with pytest.raises(
        DataError, match=r"data\.chat_template to chatml, chatml-tools, gemma, .*zephyr \(plain suits any base model\)"
    ):
        chat_examples([CHAT], tokenizer_of("plain"), loss_on="response", source="a.jsonl")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "instruction", "chat_template": "chatml"}, r"data\.chat_template is for data\.format chat"),
        (
            {"format": "text", "system": "Be brief."},
            r"data\.system is for chats and instructions, and data\.format is te",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        parse_recipe({"name": "x", "model": {"path": "x"}, "data": {"train": "a.jsonl", **settings}}, source="x")
