"""Files of questions with short answers: a text, a number, or a list of those that count as right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moslora.data.files import Row
from moslora.data.task_fields import ANSWER_ELSEWHERE, CONTEXT, INPUT, QUESTION, Fields, about, listed, text_of
from moslora.errors import DataError

ANSWER = (
    *("answer", "answers", "target", "targets", "expected", "reference", "references", "gold", "ground_truth"),
    *ANSWER_ELSEWHERE,
)
ALIASES = ("aliases", "answer_aliases", "also")  # further answers that count as right


@dataclass(frozen=True)
class ShortTask:
    """A task whose answers are texts; the samples' `answers` hold all that count as right."""

    name: str


def short_samples(rows: Sequence[Row], fields: Fields, *, places: Sequence[str]) -> list[Row]:
    """The questions as instructions, each with its accepted answers; `places` say where the rows stand.

    Raises DataError naming the place of the first wrong sample, its field and value.
    """
    return [_sample(row, fields, place=place) for row, place in zip(rows, places, strict=True)]


def _sample(row: Row, fields: Fields, *, place: str) -> Row:
    field = fields.first(ANSWER) or ANSWER[0]
    answers = [*_answers(row.get(field), field, place=place)]
    for other in fields.several(ALIASES):
        answers += [] if row.get(other) in (None, "", []) else _answers(row[other], other, place=place)
    given = [text_of(row, fields.first(names), place=place, is_optional=True) for names in (CONTEXT, INPUT)]
    return {
        "instruction": text_of(row, fields.first(QUESTION), place=place),
        "input": "\n".join(filter(None, given)),
        "answers": [*dict.fromkeys(answers)],
        **about(row, fields, place=place),
    }


def _answers(value: Any, field: str, *, place: str) -> list[str]:
    held = listed(value)
    if isinstance(held, Mapping):  # as SQuAD and TriviaQA have them
        held = held.get("text", [held.get("value"), *(held.get("aliases") or [])])
    found = held if isinstance(held, list) else [held]
    if not found or not all(_is_answer(one) for one in found):
        raise DataError(
            f"{place}: field '{field}' is {value!r}, expected text, a number, or a list of accepted answers;"
            " correct the sample"
        )
    return [str(one).strip() for one in found]


def _is_answer(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and bool(str(value).strip())
