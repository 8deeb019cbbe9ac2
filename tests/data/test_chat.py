import copy

import pytest

from moslora.data.chat import chat_examples
from moslora.errors import ConfigError, DataError

PLAIN = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TAGGED = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{%- generation %}{{ m['content'] }}<|end|>{% endgeneration %}{% else %}{{ m['content'] }}<|end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# Ends a turn with plain text, not with the end token.
MARKED = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} ## {% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
# Opens the answer with a thought that finished turns do not keep.
THINKING = PLAIN.replace("<|start|>assistant\n{% endif %}", "<|start|>assistant\n<think>{% endif %}")
# Says at the start how long the chat is, whose parts then start otherwise, and what each content starts and ends with.
COUNTING = (
    "{{ messages | length }}{% for m in messages %}{{ m['content'][0] }}{{ m['content'][-1] }}{{ loop.revindex }}"
    "{{ m['content'] }}{% endfor %}{{ '?' if add_generation_prompt }}"
)
ALTERNATING = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}" + PLAIN

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello, Jürgen"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "\nSee you"},
    ]
}


@pytest.fixture
def with_template(tiny_tokenizer):
    def made(template):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = template
        return tokenizer

    return made


def made(samples, tokenizer, **options):
    defaults = {"loss_on": "response", "source": "a.jsonl"}
    return chat_examples(samples, tokenizer, **(defaults | options))


def learned_texts(example, tokenizer):
    """The runs of labelled tokens, as texts."""
    runs, previous = [], -100
    for token, label in zip(example["input_ids"], example["labels"], strict=True):
        assert label in (-100, token)
        if label != -100:
            if previous == -100:
                runs.append([])
            runs[-1].append(label)
        previous = label
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", [PLAIN, TAGGED])
def test_only_the_assistants_words_and_their_end_tokens_are_learned(with_template, template):
    tokenizer = with_template(template)
    (example,) = made([CHAT], tokenizer)
    assert learned_texts(example, tokenizer) == ["Hello, Jürgen<|end|>", "\nSee you<|end|>"]
    assert tokenizer.decode(example["input_ids"]) == tokenizer.apply_chat_template(CHAT["messages"], tokenize=False)


def test_a_turn_without_an_end_token_is_learned_whole(with_template):
    tokenizer = with_template(MARKED)
    (example,) = made([CHAT], tokenizer)
    assert learned_texts(example, tokenizer) == ["Hello, Jürgen ## ", "\nSee you ## "]


def test_the_loss_on_the_sequence_labels_every_token(with_template):
    (example,) = made([CHAT], with_template(PLAIN), loss_on="sequence")
    assert example["labels"] == example["input_ids"]
    assert example["labels"] is not example["input_ids"]


def test_conversations_are_read_like_messages(with_template):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = [{"from": names[m["role"]], "value": m["content"]} for m in CHAT["messages"]]
    tokenizer = with_template(PLAIN)
    assert made([{"conversations": rows}], tokenizer) == made([CHAT], tokenizer)


def test_an_answer_without_the_thought_that_prompts_open_starts_where_its_text_does(with_template):
    tokenizer = with_template(THINKING)
    (example,) = made([CHAT], tokenizer)
    assert learned_texts(example, tokenizer) == ["Hello, Jürgen<|end|>", "\nSee you<|end|>"]


def test_a_template_whose_answers_cannot_be_told_apart_is_refused(with_template):
    with pytest.raises(
        DataError, match=r"a\.jsonl: sample 1: message 3: the chat template renders .* data.loss_on to sequence"
    ):
        made([CHAT], with_template(COUNTING))
    assert made([CHAT], with_template(COUNTING), loss_on="sequence")


def test_a_chat_that_the_assistant_opens_is_refused_for_the_response_loss(with_template):
    chat = {"messages": CHAT["messages"][2:]}
    with pytest.raises(DataError, match="sample 1: message 1: the assistant opens the chat"):
        made([chat], with_template(PLAIN))
    assert learned_texts(made([chat], with_template(TAGGED))[0], with_template(TAGGED))[0].startswith("Hello")


def test_what_the_template_refuses_is_told(with_template):
    with pytest.raises(DataError, match=r"a\.jsonl: sample 1: the chat template refuses it \(user first\)"):
        made([CHAT], with_template(ALTERNATING))


def test_a_tokenizer_without_template_is_refused(tiny_tokenizer):
    with pytest.raises(
        DataError,
        match=r"a\.jsonl: the tokenizer has no chat template; set data\.chat_template to chatml, chatml-tools, gemma, ",
    ):
        made([CHAT], tiny_tokenizer)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"text": "x"}, r"field 'messages' is missing \(it has: text\)"),
        ({"messages": []}, r"field 'messages' is \[\], expected a list of messages"),
        ({"messages": "hi"}, "field 'messages' is 'hi', expected a list of messages"),
        ({"messages": ["hi"]}, "message 1 is 'hi', expected an object with 'role' and 'content'"),
        ({"messages": [{"role": "user"}]}, r"message 1: field 'content' is missing \(it has: role\)"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1: field 'content' is None, expected text"),
        ({"messages": [{"role": 1, "content": "x"}]}, "message 1: field 'role' is 1, expected text"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            r"message 1: field 'role' is 'robot' \(allowed: system, user, assistant, tool, human, gpt, model, ",
        ),
        ({"conversations": [{"from": "gpt"}]}, r"message 1: field 'value' is missing \(it has: from\)"),
        ({"messages": CHAT["messages"][:2]}, "no assistant message, so nothing to learn"),
    ],
)
def test_a_bad_message_is_named_with_its_place(with_template, sample, message):
    with pytest.raises(DataError, match=rf"a\.jsonl: sample 2: {message}"):
        made([CHAT, sample], with_template(PLAIN))


def test_an_unknown_place_of_the_loss_is_refused(with_template):
    with pytest.raises(ConfigError, match="unknown loss_on 'answers'"):
        made([CHAT], with_template(PLAIN), loss_on="answers")
