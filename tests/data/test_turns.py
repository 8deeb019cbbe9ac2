"""Where a chat's turns lie in its text: as each part of it would say, in a time that grows as the chat does."""

import copy
from typing import Any

import pytest

from moslora.data.chat import chat_examples
from moslora.data.messages import Chat
from moslora.data.template import ChatTemplate
from moslora.data.turns import turn_spans
from tests.data.chat_families import PHI, QWEN3, QWEN25, byte_level, metaspace

END = "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
PLAIN = "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}" + END
SYSTEM = "{% if messages[0]['role'] != 'system' %}<|start|>system\nBe kind.<|end|>\n{% endif %}" + PLAIN
NUMBERED = "{% for m in messages %}{{ loop.index }} {{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}" + (
    "{% if add_generation_prompt %}{{ messages | length + 1 }} assistant: {% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}"
    "{% endif %}{{ '[' + m['content'] + ']' if m['role'] == 'user' else ' ' + m['content'] + ' <|end|>' }}{% endfor %}"
)


def messages(roles: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[role], "content": f"{names[role]}, Jürgen {n} "} for n, role in enumerate(roles)]


@pytest.fixture
def template_of(tiny_tokenizer: Any) -> Any:
    def made(text: str) -> ChatTemplate:
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = text
        return ChatTemplate(tokenizer)

    return made


def upto(template: ChatTemplate, given: list[Any], **options: Any) -> int:
    return len(template.text(given, place="x", **options)) if given else 0


@pytest.mark.parametrize("text", [PLAIN, SYSTEM, NUMBERED, ALTERNATING])
@pytest.mark.parametrize("roles", ["uaua", "suauaua", "uatataua", "uaaua", "uauau", "usaatta"])
def test_turns_lie_where_the_chat_up_to_them_ends(template_of: Any, text: str, roles: str):
    if text == ALTERNATING and roles not in ("uaua", "uauau"):
        return
    template, given = template_of(text), messages(roles)
    chat, whole = Chat(given), template.text(given, place="x")
    answers = [turn for turn, role in enumerate(roles) if role == "a"]
    for turns in (answers, answers[-1:]):
        found = turn_spans(whole, chat, template, turns=turns, after_prompt=True, place="x")
        starts = [upto(template, given[:turn], add_generation_prompt=True) for turn in turns]
        ends = [whole.rindex("<|end|>", 0, upto(template, given[: turn + 1])) + len("<|end|>") for turn in turns]
        assert found == dict(zip(turns, zip(starts, ends, strict=True), strict=True))
    for turns in ([*range(len(roles))], [1, 2]):
        found = turn_spans(whole, chat, template, turns=turns, after_prompt=False, place="x")
        assert found == {t: (upto(template, given[:t]), upto(template, given[: t + 1])) for t in turns}


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


@pytest.fixture(
    params=[
        pytest.param((PLAIN, "ua"), id="plain"),
        pytest.param((SYSTEM, "ta"), id="tool"),
        pytest.param((QWEN3, "ua"), id="history rewritten"),
        pytest.param((QWEN3, "uct"), id="history of calls rewritten"),
        pytest.param((QWEN25, "ucta"), id="calls"),
        pytest.param((PHI, "ua"), id="the end is another"),
    ]
)
def long_chat(request: Any) -> Any:
    """A chat of so many times the same turns, and a tokenizer with the template."""
    text, roles = request.param
    tokenizer = copy.deepcopy(metaspace("phi") if text == PHI else byte_level("qwen"))
    tokenizer.chat_template = text

    def make(times: int) -> tuple[Any, Any]:
        rows = messages("ua" + (roles * times).replace("c", "a") + "ua")
        for row, role in zip(rows, "ua" + roles * times + "ua", strict=True):
            if role == "c":
                row |= {"content": "", "tool_calls": [CALL | {"id": str(len(rows))}]}
        return {"messages": rows}, tokenizer

    return make


def test_a_chat_of_twice_the_turns_is_rendered_in_twice_the_characters(long_chat: Any, monkeypatch: Any):
    rendered: list[int] = []
    original = ChatTemplate.text

    def counting(*given: Any, **options: Any) -> str:
        text = original(*given, **options)
        rendered.append(len(text))
        return text

    monkeypatch.setattr(ChatTemplate, "text", counting)
    counts, learned = [], []
    for times in (50, 100):
        rendered.clear()
        chat, tokenizer = long_chat(times)
        (example,) = chat_examples([chat], tokenizer, loss_on="response", source="x")
        counts.append(sum(rendered))
        learned.append(sum(label != -100 for label in example["labels"]))
        assert counts[-1] < 20 * len(tokenizer.apply_chat_template(chat["messages"], tokenize=False))
    assert counts[1] < 2.2 * counts[0]
    assert learned[1] > 1.9 * learned[0]
