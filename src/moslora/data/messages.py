"""A chat sample as its template sees it: the messages with all their fields, the tools, and what is to be learned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moslora.data.calls import CALL_ROLE, CALLS, read_calls, read_tools
from moslora.data.fields import FIELDS, LEARNED, MEDIA, NOT_LEARNED, is_given, learned, refuse_unread
from moslora.errors import DataError

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
SAMPLE_FIELDS = FIELDS["chat"]
MEANT = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "refusal", "name")

_FROM_ROLES = {  # what data sets call the roles otherwise
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    CALL_ROLE: "assistant",
    "observation": "tool",
    "function": "tool",
    "developer": "system",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_PARTLY_LEARNED = ("train_detail", "loss_scale")
_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}


@dataclass(frozen=True)
class Chat:
    """The messages of a sample, the tools that the model may call, and the turns (from 0) marked for learning.

    `marked` maps a turn to whether it is to be learned; turns without a mark are not in it. `added` counts the messages
    at the start that the sample has elsewhere.
    """

    messages: list[Message]
    tools: list[Any] | None = None
    marked: dict[int, bool] = field(default_factory=dict)
    added: int = 0

    def number(self, turn: int) -> int:
        """The number of a turn (from 0) among the sample's own messages (from 1)."""
        return turn + 1 - self.added


def read_chat(sample: Mapping[str, Any], *, place: str) -> Chat:
    """The chat of a sample. Raises DataError naming the place, the message (counted from 1) and the field at fault."""
    given = [name for name in _KEYS if name in sample and sample[name] is not None]
    if not given:
        has = ", ".join(map(str, sample)) or "none"
        raise DataError(f"{place}: field 'messages' is missing (it has: {has}); add it, or choose another data.format")
    if len(given) > 1:
        raise DataError(f"{place} has both 'messages' and 'conversations'; keep one (to leave one out: data.ignore)")
    refuse_unread(sample, read=SAMPLE_FIELDS, place=place)
    rows = sample[given[0]]
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{place}: field '{given[0]}' is {rows!r}, expected a list of messages; correct the sample")
    places = [f"{place}: message {number}" for number in range(1, len(rows) + 1)]
    messages = [_message(row, _keys(row, _KEYS[given[0]]), place=at) for row, at in zip(rows, places, strict=True)]
    if all(message["role"] != "assistant" for message in messages):
        raise DataError(f"{place}: no assistant message, so nothing to learn; leave the sample out")
    marks = [learned(row, place=at) for row, at in zip(rows, places, strict=True)]
    system = _system(sample, messages, place=place)
    added = len(system)
    marked = {turn: mark for turn, mark in enumerate(marks, start=added) if mark is not None}
    return Chat([*system, *messages], read_tools(sample.get("tools"), place=place), marked, added)


def _message(row: Any, keys: tuple[str, str], *, place: str) -> Message:
    if not isinstance(row, Mapping):
        raise DataError(f"{place} is {row!r}, expected an object with '{keys[0]}' and '{keys[1]}'; correct the sample")
    for name in (*MEDIA, *_PARTLY_LEARNED):
        if is_given(row.get(name)):
            raise DataError(f"{place}: field '{name}' is not read (to leave it out: data.ignore)")
    role = _FROM_ROLES.get(_text(row, keys[0], place=place), row[keys[0]])
    if role not in ROLES:
        allowed = ", ".join([*ROLES, *_FROM_ROLES])
        raise DataError(f"{place}: field '{keys[0]}' is '{role}' (allowed: {allowed}); correct the sample")
    left = {*keys, *LEARNED, *NOT_LEARNED}
    others = {name: value for name, value in row.items() if name not in left and is_given(value)}
    if row[keys[0]] == CALL_ROLE:
        given = _text(row, keys[1], place=place)
        return {"role": role, "content": "", "tool_calls": read_calls(given, field=keys[1], place=place), **others}
    if "tool_calls" in others:
        others["tool_calls"] = read_calls(others["tool_calls"], field="tool_calls", place=place)
    is_call = row.get(keys[1]) is None and any(name in others for name in CALLS)
    content = "" if is_call else _content(row, keys[1], place=place)
    return {"role": role, "content": content, **others}


def _keys(row: Any, usual: tuple[str, str]) -> tuple[str, str]:
    """The names of role and content in a message: those that it has, of whichever list."""
    return next((keys for keys in _KEYS.values() if isinstance(row, Mapping) and keys[0] in row), usual)


def _content(row: Mapping[str, Any], key: str, *, place: str) -> str:
    """The text of a message, the parts of one that is written in parts on lines of their own."""
    parts = row.get(key)
    if not isinstance(parts, list) or not parts:
        return _text(row, key, place=place)
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise DataError(
                f"{place}: a part is {repr(kind) if kind else repr(part)}, allowed: 'text' with its text"
                " (pictures: kind: vision_language); correct the sample"
            )
    return "\n".join(part["text"] for part in parts)


def _text(row: Mapping[str, Any], key: str, *, place: str) -> str:
    if key not in row:
        has = ", ".join(map(str, row)) or "none"
        raise DataError(f"{place}: field '{key}' is missing (it has: {has}); correct the sample")
    if not isinstance(row[key], str):
        raise DataError(f"{place}: field '{key}' is {row[key]!r}, expected text; correct the sample")
    return row[key]


def _system(sample: Mapping[str, Any], messages: list[Message], *, place: str) -> list[Message]:
    """The field `system` as the message that opens the chat."""
    given = sample.get("system")
    if not is_given(given):
        return []
    if not isinstance(given, str):
        raise DataError(f"{place}: field 'system' is {given!r}, expected text; correct the sample")
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": given}]
    if messages[0]["content"] != given:
        raise DataError(f"{place}: field 'system' and message 1 are different system messages; keep one of them")
    return []
