"""Files of multiple-choice questions, as the samples that the built-in tasks have.

Options are a list (`choices`, `options`, `endings`), each a text or `{label, text}`; a mapping from label to text; the
mapping `{text: […], label: […]}` of the hub's sets; or columns: `A`, `B`, …, or numbered and lettered ones (`option1`,
`choice_a`, `ending0`, `sol1`, `opa`). The answer is an option's label, its text, or its place, counted from 0 or 1.
Which of these it is must hold for the whole file: a place is only tried where no label and no text fits, and where both
counts would fit, the file is refused.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from moslora.data.files import Row
from moslora.data.task_fields import ANSWER_ELSEWHERE, CONTEXT, INPUT, QUESTION, Fields, about, listed, text_of
from moslora.data.tasks import FORMAT_LINE, RESPONSE_START, Task
from moslora.errors import DataError

OPTIONS = ("choices", "options", "endings")
ANSWER = (
    "answer",
    "label",
    "answerkey",
    "answer_key",
    "answer_index",
    "answer_idx",
    "correct_answer",
    "correct_option",
    "correct",
    "target",
    "gold",
    "cop",
    *ANSWER_ELSEWHERE,
)
_COLUMN = re.compile(r"(?P<stem>option|choice|ending|answer|solution|sol|op)?[ _]?(?P<label>[a-j]|\d{1,2})")


class _Choice(NamedTuple):
    """A question's options, their labels in the file, and the answer as it is written."""

    labels: list[str]
    texts: list[str]
    answer: Any


def option_columns(fields: Fields) -> list[tuple[str, str]]:
    """The columns that hold an option each, with their labels in capitals: those of one stem, at least two."""
    stems: dict[str, list[tuple[str, str]]] = {}
    for lower, name in fields.names.items():
        match = _COLUMN.fullmatch(lower)
        if match and (match["stem"] or match["label"].isalpha()):
            stems.setdefault(match["stem"] or "", []).append((name, match["label"].upper()))
    return max((found for found in stems.values() if len(found) > 1), key=len, default=[])


def has_options(fields: Fields) -> bool:
    """Whether a file has the options of multiple-choice questions."""
    return fields.first(OPTIONS) is not None or bool(option_columns(fields))


def choice_samples(rows: Sequence[Row], fields: Fields, *, places: Sequence[str]) -> list[Row]:
    """The questions with their options by letter, asked for in the built-in tasks' words.

    `places` say where the rows stand. Raises DataError naming the place of the first wrong sample, its field and value.
    """
    choices = [_choice(row, fields, place=place) for row, place in zip(rows, places, strict=True)]
    right = _right_options(choices, fields, places=places)
    return [
        _sample(row, fields, choice.texts, answer, place=place)
        for row, choice, answer, place in zip(rows, choices, right, places, strict=True)
    ]


_NO_ARTICLE = r"(?!\s+(?!is\b)[a-z])"  # "A board game" and "I think" name no label


def choice_task(name: str, samples: Sequence[Mapping[str, Any]]) -> Task:
    """The task of such samples: its labels are the letters of the longest list of options."""
    most = max(sample["options"] for sample in samples)
    labels = tuple(ascii_uppercase[:most])
    return Task(name, labels, rf"\b[{labels[0]}-{labels[-1]}]\b{_NO_ARTICLE}")


def _choice(row: Row, fields: Fields, *, place: str) -> _Choice:
    answer_field = fields.first(ANSWER)
    if answer_field is None or row.get(answer_field) in (None, ""):
        raise DataError(f"{place}: no answer in field '{answer_field}'; give an option's label, its text or its place")
    columns, field = option_columns(fields), fields.first(OPTIONS)
    if field is not None:
        labels, texts = _of_one_field(listed(row.get(field)), field, place=place)
    else:
        given = [(label, str(row[name]).strip()) for name, label in columns if row.get(name) not in (None, "")]
        labels, texts = [label for label, _ in given], [text for _, text in given]
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise DataError(f"{place}: {len(texts)} options; give 2 to {len(ascii_uppercase)}")
    if repeated := next((text for text in texts if texts.count(text) > 1), None):
        raise DataError(f"{place}: two options are '{repeated}'; correct the sample")
    return _Choice(labels, texts, row[answer_field])


def _of_one_field(value: Any, field: str, *, place: str) -> tuple[list[str], list[str]]:
    if isinstance(value, Mapping):
        texts, labels = value.get("text"), value.get("label")
        if not isinstance(texts, list):
            labels, texts = [*value], [*value.values()]
    elif isinstance(value, list) and value and all(isinstance(option, Mapping) for option in value):
        texts, labels = [option.get("text") for option in value], [option.get("label") for option in value]
    else:
        texts, labels = value, None
    if not isinstance(texts, list) or not all(_is_text(text) for text in texts):
        raise DataError(
            f"{place}: field '{field}' is {value!r}, expected a list of texts, or labels with texts; correct the sample"
        )
    if not isinstance(labels, list) or len(labels) != len(texts) or None in labels:
        labels = [*ascii_uppercase[: len(texts)]]
    return [str(label).strip().upper() for label in labels], [str(text).strip() for text in texts]


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and bool(str(value).strip())


def _by_label(choice: _Choice) -> int | None:
    given = str(choice.answer).strip().strip("().:").upper()
    return choice.labels.index(given) if given in choice.labels else None


def _by_text(choice: _Choice) -> int | None:
    given = str(choice.answer).strip()
    return choice.texts.index(given) if given in choice.texts else None


def _by_place(choice: _Choice, first: int) -> int | None:
    given = str(choice.answer).strip()
    place = int(given) - first if given.isdecimal() else -1
    return place if 0 <= place < len(choice.texts) else None


_READINGS: dict[str, Callable[[_Choice], int | None]] = {
    "an option's label": _by_label,
    "an option's text": _by_text,
    "a place counted from 0": lambda choice: _by_place(choice, 0),
    "a place counted from 1": lambda choice: _by_place(choice, 1),
}


def _right_options(choices: Sequence[_Choice], fields: Fields, *, places: Sequence[str]) -> list[int]:
    """Which option, from 0, is right in each question, by the one reading of answers that fits the whole file."""
    readings = {name: [read(choice) for choice in choices] for name, read in _READINGS.items()}
    fitting = {name: [one for one in found if one is not None] for name, found in readings.items() if None not in found}
    if any(name in fitting for name in [*_READINGS][:2]):
        fitting = {name: found for name, found in fitting.items() if name in [*_READINGS][:2]}
    field = fields.first(ANSWER)
    if not fitting:
        number = max(found.index(None) for found in readings.values())
        labels = ", ".join(choices[number].labels)
        raise DataError(
            f"{places[number]}: field '{field}' is {choices[number].answer!r}, which is not one of the options; give"
            f" a label ({labels}), an option's text, or its place, in the same way in the whole file"
        )
    first, *others = fitting.items()
    for name, found in others:
        for number, (one, other) in enumerate(zip(first[1], found, strict=True)):
            if one != other:
                raise DataError(
                    f"{places[number]}: field '{field}' is {choices[number].answer!r}, which may be {first[0]} or"
                    f" {name}; write the options' texts, or their letters, as answers"
                )
    return first[1]


def _sample(row: Row, fields: Fields, texts: Sequence[str], right: int, *, place: str) -> Row:
    before = text_of(row, fields.first(CONTEXT), place=place, is_optional=True)
    question = text_of(row, fields.first(QUESTION), place=place)
    after = text_of(row, fields.first(INPUT), place=place, is_optional=True)
    letters = ascii_uppercase[: len(texts)]
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
    asked = "\n".join(part for part in (before and f"{before}\n", question, after) if part)
    return {
        "instruction": f"{asked}\n\n{options}\n\n{FORMAT_LINE} {'/'.join(letters)}",
        "output": RESPONSE_START + letters[right],
        "answer": letters[right],
        "options": len(texts),
        **about(row, fields, place=place),
    }
