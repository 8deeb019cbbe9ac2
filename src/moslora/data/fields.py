"""What becomes of a sample's fields: a format reads them, or refuses them, or the run's record names them.

A field that changes what a sample means is read or refused, never left out without a word. None, an empty text, list
or group count as absent: tables fill their columns with them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from moslora.errors import DataError, suggestion

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
LEARNED = ("weight", "train", "trainable", "loss")  # 0 or false: not to be learned
NOT_LEARNED = ("masked",)  # 1 or true: not to be learned
MARKS = (*LEARNED, *NOT_LEARNED)
FIELDS = MappingProxyType(  # by format, what is read of a sample
    {
        "instruction": ("instruction", "input", "output", "system", "history"),
        "chat": ("messages", "conversations", "system", "tools"),
        "completion": ("prompt", "completion"),
        "text": ("text",),
        "choice": ("question", "context", "input", "choices", "answer"),
    }
)
NEEDED = MappingProxyType(  # by format, what a sample has at least
    {
        "instruction": ("instruction", "output"),
        "chat": ("messages",),
        "completion": ("prompt", "completion"),
        "text": ("text",),
    }
)
REMARKS = frozenset({"id", "source", "answer", "kind", "group"})  # about a sample, not part of it; not worth a note

_MEDIA, _PREFERENCE = "is not text, and training uses text only", "is for preference training, which is not supported"
_THOUGHT = "has no place there; write it into the answer, or into a message of a chat"
_CALL = "has no place there; write a chat with 'tools', and with 'tool_calls' in its messages"
_UNREAD = MappingProxyType(
    {
        **dict.fromkeys(MEDIA, _MEDIA),
        **dict.fromkeys(("chosen", "rejected", "kto_tag"), _PREFERENCE),
        **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), _THOUGHT),
        **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), _CALL),
        **dict.fromkeys(("messages", "conversations"), "is a chat; set data.format to chat"),
        **dict.fromkeys(("chat_template", "chat_template_kwargs", "documents"), "is not given to the chat template"),
        **dict.fromkeys(("system_prompt", "system_message"), "is not read; call it 'system'"),
        "context": "is not read; call it 'input', or write it into the question",
        "history": "is not read in chats; write its turns as messages",
        "mask": "is not read; mark the messages with 'train'",
    }
)


def is_given(value: Any) -> bool:
    """Whether a field's value says anything."""
    return value is not None and not (isinstance(value, (str, list, tuple, dict)) and not value)


def fitting_format(sample: Mapping[str, Any]) -> str | None:
    """The format whose needed fields a sample has, if any; `conversations` make a chat too."""
    if is_given(sample.get("conversations")):
        return "chat"
    return next((name for name, needed in NEEDED.items() if all(is_given(sample.get(field)) for field in needed)), None)


def check_text(sample: Mapping[str, Any], *, place: str) -> None:
    """Raise DataError, naming the field, if a text of a sample holds half of a surrogate pair."""
    for name, value in sample.items():
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                before = text[max(0, error.start - 20) : error.start]
                raise DataError(
                    f"{place}: field '{name}' holds \\u{ord(text[error.start]):04x} (after {before!r}), half a"
                    " character, which no tokenizer accepts; correct the sample"
                ) from error


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def refuse_unread(sample: Mapping[str, Any], *, read: Collection[str], place: str) -> None:
    """Raise DataError for a field that changes the sample's meaning and is not among those `read`."""
    for field, value in sample.items():
        if field in read or not is_given(value):
            continue
        if field in _UNREAD:
            raise DataError(f"{place}: field '{field}' {_UNREAD[field]} (to leave it out: data.ignore)")
    if learned(sample, place=place) is False:
        field = next(name for name in MARKS if learned({name: sample.get(name)}, place=place) is False)
        raise DataError(
            f"{place}: field '{field}' is {sample[field]!r}, which says not to learn it; to learn it all the same:"
            f" --set data.ignore={field}"
        )


def learned(fields: Mapping[str, Any], *, place: str) -> bool | None:
    """Whether the marks of a sample or a message ask to learn it; None without any, False if one of them says no.

    Raises DataError for a mark that is neither 0 nor 1, true nor false.
    """
    marks = []
    for field in MARKS:
        value = fields.get(field)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise DataError(
                f"{place}: field '{field}' is {value!r}, allowed: 0 or 1, true or false (to leave it out: data.ignore)"
            )
        marks.append(bool(value) != (field in NOT_LEARNED))
    return all(marks) if marks else None


def unused_fields(samples: Iterable[Mapping[str, Any]], *, read: Collection[str]) -> list[str]:
    """The fields that no part of a run looks at, in the order in which they come."""
    names = dict.fromkeys(name for sample in samples for name, value in sample.items() if is_given(value))
    return [name for name in names if name not in read and name not in REMARKS and name not in MARKS]


def without_fields(samples: Iterable[Mapping[str, Any]], ignored: Collection[str]) -> list[dict[str, Any]]:
    """The samples without the ignored fields, in themselves and in their messages."""

    def kept(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name not in ignored}

    found = [kept(sample) for sample in samples]
    for sample in found:
        for name in ("messages", "conversations"):
            if isinstance(sample.get(name), list):
                sample[name] = [kept(row) if isinstance(row, Mapping) else row for row in sample[name]]
    return found


def with_columns(
    samples: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, source: str
) -> list[dict[str, Any]]:
    """The samples with columns renamed to the fields they stand for, by field.

    A column that a field of its own name is not read from keeps a name that says so, `output (column)`. Raises
    DataError, with the nearest name, for a column that no sample has.
    """
    present = dict.fromkeys(name for sample in samples for name in sample)
    for field, column in columns.items():
        if samples and column not in present:
            raise DataError(
                f"{source}: no column '{column}' for the field '{field}'{suggestion(column, present)} (it has:"
                f" {', '.join(present)}); correct data.columns"
            )
    taken = set(columns.values())

    def renamed(sample: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in sample.items() if name not in taken}
        others = {f"{name} (column)" if name in columns else name: value for name, value in own.items()}
        return {field: sample[column] for field, column in columns.items() if column in sample} | others

    return [renamed(sample) for sample in samples] if columns else [dict(sample) for sample in samples]


def with_system(samples: Sequence[Mapping[str, Any]], system: str | None) -> Sequence[Mapping[str, Any]]:
    """The samples, those that bring no system message with this one."""
    if system is None:
        return samples
    return [sample if is_given(sample.get("system")) else {**sample, "system": system} for sample in samples]
