"""What a model is asked outside a task: a prompt as typed, or those of a file, as instructions or as chats.

A text file has a prompt per line. Any other holds samples as training reads them; the answers in them are not read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moslora.data.columns import prompt_columns
from moslora.data.fields import check_text, is_given, refuse_unread, with_columns
from moslora.data.files import TEXT, file_format, read_rows
from moslora.data.messages import Message, read_chat
from moslora.data.prompts import read_request
from moslora.data.reading import Reading
from moslora.errors import DataError

PROMPT_FIELDS = ("instruction", "prompt")
READ = (*PROMPT_FIELDS, "input", "system", "history", "output", "completion")

_ANSWER = {"role": "assistant", "content": "?"}


@dataclass(frozen=True)
class Asked:
    """A prompt: the fields of an instruction (see `build_prompt`), or the messages of a chat up to the answer.

    `text` is what a reader is shown of it, `name` the `id` that its sample has.
    """

    text: str
    request: Mapping[str, Any]
    messages: Sequence[Message] = ()
    tools: list[Any] | None = None
    name: Any = None


def as_asked(sample: Mapping[str, Any], *, place: str, given: str | None = None, system: str | None = None) -> Asked:
    """The prompt of a sample; `given` is the input and `system` the system message where it brings none.

    Raises DataError, naming the place and the field, for a sample without a prompt, or one whose meaning is not read.
    """
    check_text(sample, place=place)
    if any(is_given(sample.get(name)) for name in ("messages", "conversations")):
        return _chat(sample, place=place, system=system)
    refuse_unread(sample, read=READ, place=place)
    prompt = next((sample[name] for name in PROMPT_FIELDS if sample.get(name) is not None), None)
    if prompt is None:
        has = ", ".join(map(str, sample)) or "none"
        raise DataError(f"{place}: no prompt (it has: {has}); call one field 'instruction', 'prompt' or 'messages'")
    fields = {name: sample.get(name) for name in ("input", "system", "history")} | {"instruction": prompt}
    fields |= {"input": fields["input"] or given, "system": fields["system"] or system}
    try:
        request = read_request(fields)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    text = f"{request.instruction}\n{request.given}" if request.given else request.instruction
    if not text.strip():
        raise DataError(f"{place}: the prompt is empty; write one, or take it out")
    return Asked(text, fields, name=sample.get("id"))


def read_asked(
    path: Path, *, columns: Mapping[str, str] | None = None, given: str | None = None, system: str | None = None
) -> list[Asked]:
    """The prompts of a file, in its order; `columns` are used as far as the file has them, the rest as `as_asked`.

    Without them, questions and what goes with them are found by their columns' names, as for training.

    Raises DataError naming the file, and the sample or line at fault.
    """
    reading = Reading(str(path))
    rows = read_rows(path, reading=reading)
    if file_format(path) == TEXT:
        return asked_lines(rows[0]["text"], place=str(path), given=given, system=system)
    present = {name for row in rows for name in row}
    known = {field: column for field, column in (columns or {}).items() if column in present}
    has_prompt = bool(known.keys() & {*PROMPT_FIELDS, "messages", "conversations"})
    samples = with_columns(rows, known if has_prompt else prompt_columns(rows), source=str(path))
    return [
        as_asked(sample, place=place, given=given, system=system)
        for sample, place in zip(samples, reading.places, strict=True)
    ]


def asked_lines(text: str, *, place: str, given: str | None = None, system: str | None = None) -> list[Asked]:
    """The prompts of a text, one per line; blank lines are none. Raises DataError for a text without prompts."""
    found = [
        as_asked({"instruction": line.strip()}, place=f"{place}: line {number}", given=given, system=system)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not found:
        raise DataError(f"{place}: no prompts; write one per line")
    return found


def _chat(sample: Mapping[str, Any], *, place: str, system: str | None) -> Asked:
    """A chat up to its last message, or up to the answer that ends it."""
    name = "messages" if is_given(sample.get("messages")) else "conversations"
    rows = sample[name]
    asked = {**sample, name: [*rows, _ANSWER]} if isinstance(rows, list) else sample
    chat = read_chat(asked, place=place)
    messages = chat.messages[:-1]
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1]["role"] in ("assistant", "system"):
        raise DataError(f"{place}: no question before the answer; let the chat end with the user's message")
    if system is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return Asked(messages[-1]["content"], {}, messages, chat.tools, sample.get("id"))
