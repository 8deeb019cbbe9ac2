"""The tools of a chat and the calls of them, in the one form that chat templates know.

Data sets write them in several: as objects or as JSON text, with the arguments as either, with or without the field
`function` around name and arguments.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from moslora.data.fields import is_given
from moslora.errors import DataError

CALLS = ("tool_calls", "function_call")  # a message that has one may go without text
TOOLS_TEMPLATE = "chatml-tools"  # the named chat template that shows tools and calls
SHOWING = f"--set data.chat_template={TOOLS_TEMPLATE}"  # how a user chooses it

CALL_ROLE = "function_call"  # of a turn whose text is calls, as JSON


def read_tools(given: Any, *, place: str) -> list[Any] | None:
    """The tools as a list of objects; None without any. Raises DataError."""
    if not is_given(given):
        return None
    return _objects(given, field="tools", place=place) or None


def read_calls(given: Any, *, field: str, place: str) -> list[dict[str, Any]]:
    """Calls as `{"type": "function", "function": {"name", "arguments"}}`, other fields as they are.

    Raises DataError for what is no call, or has arguments that are no JSON.
    """
    calls = []
    for call in _objects([given] if isinstance(given, Mapping) else given, field=field, place=place):
        inner = call.get("function", call)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise DataError(f"{place}: field '{field}' has a call without a name ({call!r}); correct the sample")
        function = dict(inner)
        if isinstance(inner.get("arguments"), str):  # a template that writes JSON would put it in quotation marks
            function["arguments"] = _parsed(inner["arguments"] or "{}", field=f"{field}: arguments", place=place)
        calls.append({"type": "function", **(call if "function" in call else {}), "function": function})
    return calls


def has_calls(sample: Mapping[str, Any]) -> bool:
    """Whether a chat offers tools, or calls them."""
    turns = next((sample[name] for name in ("messages", "conversations") if is_given(sample.get(name))), None)
    rows = [row for row in turns if isinstance(row, Mapping)] if isinstance(turns, list) else []
    is_called = any(
        CALL_ROLE in (row.get("role"), row.get("from")) or any(is_given(row.get(name)) for name in CALLS)
        for row in rows
    )
    return is_called or (bool(rows) and is_given(sample.get("tools")))


def refuse_silenced(sample: Mapping[str, Any], *, ignored: Collection[str], place: str) -> None:
    """Raise DataError for a message of a chat that says nothing once its ignored calls are taken out."""
    taken = [name for name in CALLS if name in ignored]
    said = [name for name in ("content", "value", *CALLS) if name not in ignored]
    rows = next((sample[name] for name in ("messages", "conversations") if is_given(sample.get(name))), None)
    for number, row in enumerate(rows if isinstance(rows, list) else [], start=1):
        given = [name for name in taken if isinstance(row, Mapping) and is_given(row.get(name))]
        if given and not any(is_given(row.get(name)) for name in said):
            raise DataError(
                f"{place}: message {number} says nothing without its {given[0]}, which data.ignore takes out: take"
                f" {given[0]} off data.ignore, and choose a template that shows it ({SHOWING})"
            )


def with_written_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the arguments of its calls as JSON text, as the templates of some models have it."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = json.dumps(call["function"].get("arguments", {}), ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}


def _objects(given: Any, *, field: str, place: str) -> list[Any]:
    found = _parsed(given, field=field, place=place) if isinstance(given, str) else given
    found = [found] if isinstance(given, str) and isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{place}: field '{field}' is {given!r}, expected a list of objects; correct the sample")
    return found


def _parsed(text: str, *, field: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{place}: field '{field}' is not JSON ({error}); correct the sample") from error
