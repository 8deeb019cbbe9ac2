"""Which format of samples a file's columns tell, and which column is which field: for training, tasks and prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moslora.data.choice_files import ANSWER as CHOSEN_ANSWER
from moslora.data.choice_files import has_options
from moslora.data.fields import FIELDS, MARKS, MEDIA, REMARKS, is_given
from moslora.data.task_fields import ANSWER_ELSEWHERE, QUESTION, QUESTION_ELSEWHERE, Fields
from moslora.errors import DataError, command

# what the columns of published sets are called, the surest name first
NAMES: Mapping[str, tuple[str, ...]] = {
    "instruction": (
        *("instruction", "question", "query", "prompt", "problem", "request", "user", "human", "q"),
        *QUESTION_ELSEWHERE,
        "input",
    ),
    "output": (
        *("output", "answer", "response", "completion", "reply", "solution", "assistant", "target", "gpt", "a"),
        *ANSWER_ELSEWHERE,
    ),
    "input": ("input", "context", "passage"),
    "system": ("system", "system_prompt", "system_message"),
}
TEXT = ("text", "content", "document", "body", "article", "story")
CHATS = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns")
PREFERENCES = ("chosen", "rejected")
LOOKED_AT = 1000  # samples whose columns are read

Ask = Callable[[str, Sequence[str]], str]  # a question and its possible answers, the default first


@dataclass(frozen=True)
class Shape:
    """The format of samples, the columns that are called otherwise than the format's fields, and those not used.

    `guess` says what was taken without being told.
    """

    format: str
    columns: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    guess: str = ""


def shape_of(rows: Sequence[Mapping[str, Any]], *, source: str, ask: Ask) -> Shape:
    """The format of a source's samples. `ask` is asked where two columns could be question and answer either way.

    Raises DataError with the next step for pictures, preferences, multiple-choice questions, and columns that tell
    no format.
    """
    rows = rows[:LOOKED_AT]
    names, lower = _names(rows)
    _refuse_others(rows, lower, source=source)
    found = found_shape(rows, ask=ask)
    if found is None:
        raise DataError(
            f"{source}: its columns ({', '.join(names)}) tell no format: say which is which, for instance --set"
            f" data.columns='{{instruction: {names[0]}, output: {names[-1]}}}', or give samples with instruction and"
            " output, prompt and completion, messages, or text"
        )
    return found


def found_shape(rows: Sequence[Mapping[str, Any]], *, ask: Ask | None = None) -> Shape | None:
    """The format that the first samples' columns tell, or None; without `ask` its default is the answer."""
    rows = rows[:LOOKED_AT]
    names, lower = _names(rows)
    if _is_choice(rows, lower):
        return Shape("choice")  # training names what it does not read
    found = _chat(rows, lower) or _completion(lower) or _instruction(lower) or _text(lower)
    if found is None:
        found = _two_columns(rows, names, ask=ask or (lambda _question, answers: answers[0]))
    if found is None:
        return None
    taken = {*found.columns.values(), *FIELDS[found.format]}
    unused = [name for name in names if name not in taken and name.lower() not in (*REMARKS, *MARKS)]
    return Shape(found.format, found.columns, unused, found.guess)


def prompt_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of prompts that are called otherwise than their fields, read as training reads them.

    The answers may be missing. Empty for multiple-choice questions, whose options would be left out.
    """
    rows = rows[:LOOKED_AT]
    _, lower = _names(rows)
    shape = _chat(rows, lower)
    if shape is not None:
        return shape.columns
    if "instruction" not in lower and has_options(Fields(rows)):
        return {}
    shape = _instruction(lower, is_answered=False)
    if shape is None and len(lower) == 1 and not lower.keys() & {*TEXT}:
        return {"instruction": next(iter(lower.values()))}
    shape = shape or found_shape(rows)
    return shape.columns if shape is not None and shape.format == "instruction" else {}


def _names(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """The columns that have values, and how they are written by their names in small letters."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if is_given(value)))
    return names, {name.strip().lower(): name for name in reversed(names)}


def _refuse_others(rows: Sequence[Mapping[str, Any]], lower: Mapping[str, str], *, source: str) -> None:
    if any(name in lower for name in MEDIA) or any(map(_has_pictures, rows)):
        train = command("train", "mine.yaml")
        raise DataError(
            f"{source}: its samples have pictures, which need a model that sees: moslora recipes show vision-demo >"
            f" mine.yaml, set data.train to {source} and data.image_folder to the pictures' folder, then {train}"
            " (docs/vision.md)"
        )
    if all(name in lower for name in PREFERENCES):
        raise DataError(
            f"{source}: its samples are preferences (chosen, rejected), which are not trained on; write the better"
            " answers as output beside an instruction"
        )


def _is_choice(rows: Sequence[Mapping[str, Any]], lower: Mapping[str, str]) -> bool:
    fields = Fields(rows)
    has_question = fields.first(QUESTION) is not None and fields.first(CHOSEN_ANSWER) is not None
    return "output" not in lower and has_question and has_options(fields)


def _has_pictures(row: Mapping[str, Any]) -> bool:
    turns = [turn for name in CHATS if isinstance(row.get(name), list) for turn in row[name] if isinstance(turn, dict)]
    parts = [part for turn in turns if isinstance(turn.get("content"), list) for part in turn["content"]]
    kinds = {part.get("type") for part in parts if isinstance(part, dict)}
    return bool(kinds & {"image", "image_url", "input_image"})


def _chat(rows: Sequence[Mapping[str, Any]], lower: Mapping[str, str]) -> Shape | None:
    named = [lower[name] for name in CHATS if name in lower]
    others = [name for name in lower.values() if name not in named]
    for name in [*named, *others]:
        values = [row[name] for row in rows if is_given(row.get(name))]
        if values and all(_is_chat(value) for value in values):
            key = "conversations" if "from" in values[0][0] else "messages"
            columns = {} if name == key else {key: name}
            if name != key and key in lower.values():
                continue
            return Shape("chat", columns | _called(lower, ["system"]))
    return None


def _is_chat(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)
    return is_list and all("role" in turn or "from" in turn for turn in value)


def _completion(lower: Mapping[str, str]) -> Shape | None:
    if not {"prompt", "completion"} <= lower.keys():
        return None
    return Shape("completion", {name: lower[name] for name in ("prompt", "completion") if lower[name] != name})


def _instruction(lower: Mapping[str, str], *, is_answered: bool = True) -> Shape | None:
    """Columns of a question and an answer under the surest of their names; `input` may be the question itself."""
    columns = _called(lower, ["instruction", "output"])
    found = {field: columns.get(field) or (field if field in lower.values() else None) for field in NAMES}
    if not found["instruction"] or (is_answered and not found["output"]):
        return None
    rest = {name: written for name, written in lower.items() if written != found["instruction"]}
    return Shape("instruction", columns | _called(rest, ["input", "system"]))


def _called(lower: Mapping[str, str], fields: Sequence[str]) -> dict[str, str]:
    """The columns of these fields that are called otherwise than the fields are."""
    found = {field: next((lower[name] for name in NAMES[field] if name in lower), None) for field in fields}
    return {field: name for field, name in found.items() if name is not None and name != field}


def _text(lower: Mapping[str, str]) -> Shape | None:
    names = [lower[name] for name in TEXT if name in lower] or ([*lower.values()] if len(lower) == 1 else [])
    if not names:
        return None
    return Shape("text", {} if names[0] == "text" else {"text": names[0]})


def _two_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, ask: Ask) -> Shape | None:
    """Two columns of text whose names say nothing: the second one is the answer, unless told otherwise."""
    texts = [name for name in names if all(isinstance(row.get(name), str) for row in rows)]
    if len(texts) != 2:
        return None
    answer = ask("which column is the answer", [texts[1], texts[0]])
    question = texts[0] if answer == texts[1] else texts[1]
    guess = f"'{question}' is taken for the question and '{answer}' for the answer"
    return Shape("instruction", {"instruction": question, "output": answer}, guess=guess)
