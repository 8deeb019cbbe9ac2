"""The tokens of a chat's turns: found in a time that grows as the chat does, where each part of it would say."""

import copy
from typing import Any

import pytest

from moslora.data.chat import chat_examples
from moslora.data.messages import Chat
from moslora.data.template import ChatTemplate
from moslora.data.turns import turn_spans
from moslora.runs.groups import ModelSettings
from moslora.runs.models import load_tokenizer

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


def spans(template: ChatTemplate, roles: str, turns: list[int], *, after_prompt: bool) -> Any:
    chat = Chat(messages(roles))
    ids = template.ids(chat.messages, place="x")
    return turn_spans(ids, chat, template, turns=turns, after_prompt=after_prompt, place="x")


@pytest.mark.parametrize("text", [PLAIN, SYSTEM, NUMBERED, ALTERNATING])
@pytest.mark.parametrize("roles", ["uaua", "suauaua", "uatataua", "uaaua", "uauau", "usaatta"])
def test_turns_lie_where_the_chat_up_to_them_ends(template_of: Any, monkeypatch: Any, text: str, roles: str):
    if text == ALTERNATING and roles not in ("uaua", "uauau"):
        return
    template = template_of(text)
    answers = [turn for turn, role in enumerate(roles) if role == "a"]
    for turns, after_prompt in ((answers, True), (answers[-1:], True), ([*range(len(roles))], False), ([1, 2], False)):
        found = spans(template, roles, turns, after_prompt=after_prompt)
        with monkeypatch.context() as patch:
            patch.setattr(ChatTemplate, "token_starts", lambda *_: None)  # as a tokenizer that cannot tell
            assert spans(template, roles, turns, after_prompt=after_prompt) == found
        assert [*found] == turns


@pytest.mark.parametrize("roles", ["ua", "ta"])
def test_a_chat_of_twice_the_turns_is_rendered_in_twice_the_time(template_of: Any, monkeypatch: Any, roles: str):
    template, rendered = template_of(SYSTEM), []
    original = type(template.tokenizer).apply_chat_template

    def counting(self: Any, given: Any, **options: Any) -> Any:
        rendered.append(len(given))
        return original(self, given, **options)

    monkeypatch.setattr(type(template.tokenizer), "apply_chat_template", counting)
    counts = []
    for times in (20, 40):
        rendered.clear()
        chat = {"messages": messages("sua" + roles * times)}
        chat_examples([chat], template.tokenizer, loss_on="response", source="x")
        counts.append(sum(rendered))
    assert counts[1] < 2.1 * counts[0]


def test_turns_of_a_real_tokenizer_lie_where_the_chat_up_to_them_ends(demo_model: None, monkeypatch: Any):
    template = ChatTemplate(load_tokenizer(ModelSettings(path="smollm2")))
    found = spans(template, "uauaua", [1, 3, 5], after_prompt=True)
    monkeypatch.setattr(ChatTemplate, "token_starts", lambda *_: None)
    assert spans(template, "uauaua", [1, 3, 5], after_prompt=True) == found
