"""Fields of samples that change their meaning: read, or refused with the sample's number, never dropped."""

import copy

import pytest

from moslora.data.chat import chat_examples
from moslora.data.examples import instruction_examples
from moslora.data.fields import check_text, fitting_format, unused_fields, with_columns, without_fields
from moslora.data.prompts import build_prompt, prompt_ids
from moslora.errors import ConfigError, DataError

BARE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# Shows tools, calls and thoughts.
FULL = (
    "{% if tools %}<|start|>tools\n{{ tools | tojson }}<|end|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if m['reasoning_content'] %}<think>{{ m['reasoning_content'] }}</think>{% endif %}{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function']['name'] }}</call>{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# Keeps the thoughts of the last turn only, as reasoning models do.
LAST_THOUGHT = FULL.replace("{% if m['reasoning_content'] %}", "{% if m['reasoning_content'] and loop.last %}")
TAGGED = BARE.replace(
    "{{ m['content'] }}<|end|>\n",
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|end|>\n{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|end|>\n{% endif %}",
)
WEATHER = {"type": "function", "function": {"name": "get_weather"}}
TOOL_CHAT = {
    "tools": [WEATHER],
    "messages": [
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [WEATHER]},
        {"role": "tool", "tool_call_id": "c1", "name": "get_weather", "content": "4 degrees"},
        {"role": "assistant", "content": "4 degrees."},
    ],
}


@pytest.fixture
def read(tiny_tokenizer):
    """Text, learned text and unshown fields of one chat."""

    def run(sample, template=FULL, loss_on="response"):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = template
        unshown = []
        good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
        _, example = chat_examples([good, sample], tokenizer, loss_on=loss_on, source="a.jsonl", unshown=unshown)
        learned = [label for label in example["labels"] if label != -100]
        return tokenizer.decode(example["input_ids"]), tokenizer.decode(learned), unshown

    return run


def turns(*texts, **last):
    roles = ("user", "assistant")
    rows = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    rows[-1] |= last
    return rows


def test_tools_and_their_calls_go_through_the_template(read):
    text, learned, _ = read(TOOL_CHAT)
    assert text.startswith('<|start|>tools\n[{"type": "function"')
    assert learned == "<call>get_weather</call><|end|>4 degrees.<|end|>"


def test_tools_may_be_json_text(read):
    import json

    assert read({**TOOL_CHAT, "tools": json.dumps(TOOL_CHAT["tools"])}) == read(TOOL_CHAT)


@pytest.mark.parametrize("template", [BARE, TAGGED])
@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"trainable": 0}, {"loss": False}, {"masked": True}])
def test_a_marked_turn_is_not_learned(read, template, mark):
    rows = turns("1+1?", "THREE", "Again.", "two")
    rows[1] |= mark
    rows[3] |= {"weight": 1.0}
    assert read({"messages": rows}, template)[1].strip() == "two<|end|>"
    text, learned, _ = read({"messages": rows}, template, loss_on="sequence")
    assert "THREE" in text
    assert "THREE" not in learned
    assert "Again." in learned


def test_a_system_field_opens_the_chat_and_keeps_the_messages_numbers(read):
    chat = {
        "system": "Be a pirate.",
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "A"}],
    }
    assert read(chat)[0].startswith("<|start|>system\nBe a pirate.<|end|>\n<|start|>user\nHi")
    assert read(chat)[1] == "A<|end|>"
    chat["conversations"][1]["weight"] = 0.5
    with pytest.raises(DataError, match=r"sample 2: message 2: field 'weight' is 0\.5, allowed: 0 or 1"):
        read(chat)


def test_the_same_system_message_twice_counts_once(read):
    chat = {"system": "Be brief.", "messages": [{"role": "system", "content": "Be brief."}, *turns("a", "b")]}
    assert read(chat)[0].count("Be brief.") == 1
    with pytest.raises(DataError, match="sample 2: field 'system' and message 1 are different system messages"):
        read({**chat, "system": "Be long."})


def test_thoughts_are_learned_where_the_template_shows_them(read):
    chat = {"messages": turns("1+1?", "two", reasoning_content="one and one")}
    assert read(chat)[1] == "<think>one and one</think>two<|end|>"
    earlier = {"messages": [*chat["messages"], *turns("Again?", "two")]}
    assert "one and one" not in read(earlier, LAST_THOUGHT, loss_on="sequence")[0]  # the template's own way


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (TOOL_CHAT, "the chat template leaves out the field 'tools'"),
        ({"messages": TOOL_CHAT["messages"]}, "message 2: the chat template leaves out the field 'tool_calls'"),
        (
            {"messages": turns("a", "b", reasoning_content="c")},
            ("message 2: the chat template leaves out the field 'reasoning_content'"),
        ),
        (
            {"messages": turns("a", "b", function_call={"name": "f"})},
            ("message 2: the chat template leaves out the field 'function_call'"),
        ),
        ({"messages": turns("a", "b", name="Ann")}, "message 2: the chat template leaves out the field 'name'"),
        ({"messages": turns("a", "b", images=["x.png"])}, "message 2: field 'images' is not read"),
        ({"messages": turns("a", "b", train_detail=[1])}, "message 2: field 'train_detail' is not read"),
        (
            {"messages": turns("a", "b", "c", train=True)},
            "message 3 is marked to be learned, and data.loss_on response",
        ),
        ({"messages": turns("a", "b"), "images": ["x.png"]}, "field 'images' is not text"),
        ({"messages": turns("a", "b"), "audio": {"path": "x"}}, "field 'audio' is not text"),
        ({"messages": turns("a", "b"), "rejected": turns("a", "c")}, "field 'rejected' is for preference training"),
        ({"messages": turns("a", "b"), "functions": [WEATHER]}, "field 'functions' has no place there"),
        ({"messages": turns("a", "b"), "history": [["c", "d"]]}, "field 'history' is not read in chats"),
        ({"messages": turns("a", "b"), "weight": 0}, r": field 'weight' is 0, which .* --set data\.ignore=weight$"),
        ({"messages": turns("a", "b"), "tools": "get_weather"}, "field 'tools' is not JSON"),
        ({"messages": turns("a", "b"), "tools": ["get_weather"]}, "field 'tools' is .* expected a list of objects"),
        ({"messages": turns("a", "b"), "system": 3}, "field 'system' is 3, expected text"),
        ({"messages": turns("a", "b"), "conversations": turns("a", "b")}, "has both 'messages' and 'conversations'"),
    ],
)
def test_what_would_be_dropped_from_a_chat_is_refused(read, sample, message):
    with pytest.raises(DataError, match=rf"^a\.jsonl: sample 2.*{message}"):
        read(sample, BARE)


def test_empty_fields_count_as_absent(read):
    empty = {"tools": [], "system": "", "images": None, "rejected": [], "conversations": None, "weight": None}
    assert read({"messages": turns("a", "b", tool_calls=None, name=""), **empty}) == read({"messages": turns("a", "b")})


def test_other_fields_of_messages_are_handed_on_or_named(read):
    chat = {"messages": turns("a", "b", mood="glad")}
    assert read(chat, BARE)[2] == ["mood"]
    text, _, unshown = read(chat, BARE.replace("{{ m['content'] }}", "{{ m['mood'] }}{{ m['content'] }}"))
    assert "gladb" in text
    assert unshown == []


SAMPLE = {"instruction": "And then?", "output": "They slept."}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", ["x.png"], "field 'images' is not text"),
        ("chosen", "x", "field 'chosen' is for preference training"),
        ("reasoning_content", "x", "field 'reasoning_content' has no place there"),
        ("tools", [WEATHER], "field 'tools' has no place there"),
        ("messages", turns("a", "b"), "field 'messages' is a chat; set data.format to chat"),
        ("context", "x", "field 'context' is not read; call it 'input'"),
        ("system", 3, "field 'system' is 3, expected text or nothing"),
        ("history", "x", r"field 'history' is 'x', expected a list of \[question, answer\]"),
        ("history", [["x"]], "expected a list of"),
        ("weight", 0.0, "field 'weight' is 0.0, which says not to learn it; to learn it all the same: "),
        ("masked", True, r"field 'masked' is True, which .* to learn it all the same: --set data\.ignore=masked$"),
        ("train", "no", "field 'train' is 'no', allowed: 0 or 1"),
    ],
)
def test_what_would_be_dropped_from_an_instruction_is_refused(tiny_tokenizer, field, value, message):
    with pytest.raises(DataError, match=rf"^a\.jsonl: sample 2.*{message}"):
        instruction_examples(
            [SAMPLE, {**SAMPLE, field: value}],
            tiny_tokenizer,
            prompt_style="plain",
            loss_on="response",
            source="a.jsonl",
        )


def test_system_and_history_stand_before_the_question():
    sample = {**SAMPLE, "system": "Tell a tale.", "history": [["Who?", "Two cats."]]}
    assert build_prompt(sample, style="plain") == ("Tell a tale.\nWho?\nResponse:\nTwo cats.\nAnd then?\nResponse:\n")
    assert build_prompt(sample, style="alpaca") == (
        "Tell a tale.\n\n### Instruction:\nWho?\n\n### Response:\nTwo cats.\n\n"
        "### Instruction:\nAnd then?\n\n### Response:\n"
    )


def test_the_chat_prompt_is_what_stands_before_an_answer_in_training(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    sample = {**SAMPLE, "input": "Later.", "system": "Tell a tale.", "history": [["Who?", "Two cats."]]}
    messages = [
        {"role": "system", "content": "Tell a tale."},
        *turns("Who?", "Two cats.", "And then?\nLater.", "They slept."),
    ]
    # The second puts an empty thought before the last answer, which its generation prompt leaves to the model.
    thought = "{% if loop.last and m['role'] == 'assistant' %}<no>\n{% endif %}{{ m['content'] }}"
    for template in (BARE, BARE.replace("{{ m['content'] }}", thought)):
        tokenizer.chat_template = template
        (example,) = chat_examples([{"messages": messages}], tokenizer, loss_on="sequence", source="x")
        (prompt,) = prompt_ids([sample], tokenizer, style="chat")
        assert example["input_ids"][: len(prompt)] == prompt
        assert tokenizer.decode(example["input_ids"][len(prompt) :]) == "They slept.<|end|>\n"


def test_a_chat_prompt_that_cannot_be_is_refused(tiny_tokenizer):
    with pytest.raises(ConfigError, match="the prompt 'chat' needs a chat template, and the tokenizer has none"):
        prompt_ids([SAMPLE], tiny_tokenizer, style="chat")
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = BARE.replace("{{ m['content'] }}", "{{ m['content'] | upper }}")
    with pytest.raises(DataError, match=r"set evaluation\.prompt to alpaca or plain"):
        prompt_ids([SAMPLE], tokenizer, style="chat")


def test_fields_that_are_only_remarks_are_not_named():
    samples = [{"instruction": "a", "id": 3, "topic": "x"}, {"instruction": "b", "score": 1, "empty": ""}]
    assert unused_fields(samples, read={"instruction"}) == ["topic", "score"]


def test_ignored_fields_are_gone_from_samples_and_messages():
    samples = [{"messages": [{"role": "user", "content": "a", "name": "Ann"}], "images": ["x"]}]
    assert without_fields(samples, ["images", "name"]) == [{"messages": [{"role": "user", "content": "a"}]}]
    assert samples[0]["images"]


def test_a_column_takes_the_name_of_its_field():
    samples = [{"question": "a", "answer": "b", "output": "c", "topic": "d"}, {"question": "e"}]
    columns = {"instruction": "question", "output": "answer"}
    assert with_columns(samples, columns, source="x") == [
        {"instruction": "a", "output": "b", "output (column)": "c", "topic": "d"},
        {"instruction": "e"},
    ]
    assert with_columns([{"input": "a", "output": "b"}], {"input": "output", "output": "input"}, source="x") == [
        {"input": "b", "output": "a"}
    ]
    assert with_columns(samples, {}, source="x") == samples


def test_a_column_that_is_missing_is_named_with_the_nearest():
    with pytest.raises(DataError) as caught:
        with_columns([{"question": "a", "answer": "b"}], {"instruction": "questions"}, source="a.csv")
    assert str(caught.value) == (
        "a.csv: no column 'questions' for the field 'instruction'; did you mean 'question'? (it has: question, answer);"
        " correct data.columns"
    )


@pytest.mark.parametrize(
    "sample",
    [{"output": "so \ud83d"}, {"messages": [{"content": ["a", {"text": "so \ud83d"}]}]}, {"output": ("so \ud83d",)}],
)
def test_half_of_a_character_is_named_with_its_field_and_what_stands_before_it(sample):
    with pytest.raises(DataError) as caught:
        check_text({"instruction": "ä \U0001f600", "n": 3, **sample}, place="a.jsonl: sample 3 (line 4)")
    assert str(caught.value) == (
        f"a.jsonl: sample 3 (line 4): field '{next(iter(sample))}' holds \\ud83d (after 'so '), half a character,"
        " which no tokenizer accepts; correct the sample"
    )


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({"instruction": "a", "output": "b", "text": "a b"}, "instruction"),
        ({"messages": [1]}, "chat"),
        ({"conversations": [1], "text": "a"}, "chat"),
        ({"prompt": "a", "completion": "b"}, "completion"),
        ({"text": "a", "output": ""}, "text"),
        ({"question": "a"}, None),
    ],
)
def test_the_format_that_a_sample_fits(sample, expected):
    assert fitting_format(sample) == expected
