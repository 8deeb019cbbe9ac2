"""The forms in which data sets write chats, all read into one."""

import json
from typing import Any

import pytest

from moslora.data.messages import read_chat
from moslora.errors import DataError

CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
READ = {"type": "function", "function": CALL}
ASKED = {"role": "user", "content": "Weather in Oslo?"}


def read(sample: dict[str, Any]) -> Any:
    return read_chat(sample, place="a.jsonl: sample 3")


def messages(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return read({"messages": [ASKED, *rows]}).messages


@pytest.mark.parametrize(
    "calls",
    [
        [READ],
        [CALL],
        json.dumps([READ]),
        json.dumps(CALL),
        [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}],
        CALL,
    ],
)
def test_calls_are_read_in_every_form_into_one(calls: Any):
    (_, answer) = messages({"role": "assistant", "content": None, "tool_calls": calls})
    assert answer == {"role": "assistant", "content": "", "tool_calls": [READ]}


def test_other_fields_of_a_call_stay():
    call = {"id": "c1", "type": "function", "function": {"name": "now"}}
    assert messages({"role": "assistant", "tool_calls": [call]})[1]["tool_calls"] == [call]


def test_the_roles_of_calls_and_their_answers_in_conversations():
    rows = [("human", "Weather?"), ("function_call", json.dumps(CALL)), ("observation", "4 degrees"), ("gpt", "4.")]
    sample = {"conversations": [{"from": role, "value": text} for role, text in rows], "tools": json.dumps([CALL])}
    chat = read(sample)
    assert chat.messages == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [READ]},
        {"role": "tool", "content": "4 degrees"},
        {"role": "assistant", "content": "4."},
    ]
    assert chat.tools == [CALL]


def test_either_names_of_role_and_text_are_read_in_either_list():
    rows = [{"from": "human", "value": "Hi"}, {"from": "model", "value": "Hello."}]
    named = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert read({"messages": rows}).messages == read({"conversations": named}).messages == named
    assert messages({"role": "developer", "content": "Be brief."}, named[1])[1]["role"] == "system"


def test_a_text_in_parts_is_read():
    parts = [{"type": "text", "text": "One"}, {"type": "output_text", "text": "two"}]
    assert messages({"role": "assistant", "content": parts})[1]["content"] == "One\ntwo"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"content": [{"type": "image_url", "image_url": "x"}]},
            r"a part is 'image_url', allowed: 'text' with its text \(",
        ),
        ({"content": [{"type": "text"}]}, "a part is 'text', allowed: 'text' with its text"),
        ({"content": ["x"]}, "a part is 'x', allowed: 'text'"),
        ({"content": []}, r"field 'content' is \[\], expected text"),
        ({"tool_calls": "weather"}, r"field 'tool_calls' is not JSON \("),
        ({"tool_calls": ["weather"]}, r"field 'tool_calls' is \['weather'\], expected a list of objects"),
        ({"tool_calls": [{"function": {}}]}, "field 'tool_calls' has a call without a name"),
        ({"tool_calls": [{"name": "f", "arguments": "{"}]}, r"field 'tool_calls: arguments' is not JSON \("),
        ({"role": "function_call", "content": "weather"}, r"field 'content' is not JSON \("),
    ],
)
def test_what_is_no_call_and_no_text_is_refused(row: dict[str, Any], message: str):
    with pytest.raises(DataError, match=f"^a.jsonl: sample 3: message 2: {message}"):
        messages({"role": "assistant", **row})
