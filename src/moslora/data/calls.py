"""The tools of a chat and the calls of them, in the one form that chat templates know.

Data sets write them in several: as objects or as JSON text, with the arguments as either, with or without the field
`function` around name and arguments.
"""

import json
from collections.abc import Mapping
from typing import Any

from moslora.data.fields import is_given
from moslora.errors import DataError


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
