"""A task of one's own: a file whose fields tell what sort of task it is.

Questions with options and an answer are multiple choice; questions with an answer alone have short answers; samples as
for training (chats, prompts with completions, instructions with outputs, texts) are held out: their loss is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moslora.data import choice_files, short_files
from moslora.data.choice_files import choice_samples, choice_task, has_options
from moslora.data.columns import Shape, found_shape
from moslora.data.fields import FIELDS, with_columns
from moslora.data.files import Row, read_rows
from moslora.data.reading import SKIPPING, Reading
from moslora.data.short_files import ShortTask, short_samples
from moslora.data.task_fields import QUESTION, Fields
from moslora.data.task_names import CHOICE, SAMPLES, SHORT, SORTS
from moslora.data.tasks import Task
from moslora.errors import DataError

TRAINING: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "chat": (("messages",), ("conversations",)),
    "completion": (("prompt", "completion"),),
    "instruction": (("instruction", "output"),),
    "text": (("text",),),
}  # by format of training samples: the fields that tell it
_TRAINED = ("output", "completion")  # what is an answer where a file holds questions
_OPTIONAL = ("input", "system")


@dataclass(frozen=True)
class HeldOut:
    """Samples as for training, whose loss is measured; `format` is what their fields tell."""

    name: str
    path: Path
    format: str | None
    reading: Reading  # where the samples stand


def read_task(
    path: Path,
    *,
    name: str,
    sort: str | None,
    limit: int | None,
    skips_bad: bool = False,
    columns: Mapping[str, str] | None = None,
) -> tuple[Task | ShortTask | HeldOut, list[Row]]:
    """A file's task and its first `limit` samples (None: all). `sort` says what its fields do not tell.

    Where they tell nothing under their own names, they are named as `columns` has it, as far as the file has those,
    else as their names are read for training; without `columns` so are fields that need not be there.
    With `skips_bad` lines that are no samples are left out of held-out ones, though not of questions.

    Raises DataError naming the file for fields that fit no sort of task, or several, and its line for a wrong sample.
    """
    reading = Reading(str(path), skips_bad=skips_bad, way=SKIPPING)
    rows = read_rows(path.expanduser(), reading=reading)  # all: how answers are written shows in the whole file
    shape, known = _shape(rows, is_told=columns is not None), Fields(rows).columns(columns or {})
    rows = _named(rows, known, shape, sort=sort, reading=reading)
    fields, places = Fields(rows), reading.places
    sort = sort or sort_of(fields, path=path)
    if sort == SAMPLES:
        reading.places = reading.places[:limit]
        told = training_format(fields)
        asked = (shape.columns if shape.format == told else {}) | known
        samples = _as_trained(rows, fields, told, asked=asked, source=str(path))
        return HeldOut(name, path, told, reading), samples[:limit]
    if reading.reasons:
        raise DataError(f"{path}: {reading.reasons[0]} (data.on_bad: skip is for samples, not for questions)")
    _check_fields(fields, sort, path=path)
    if sort == SHORT:
        return ShortTask(name), short_samples(rows, fields, places=places)[:limit]
    samples = choice_samples(rows, fields, places=places)[:limit]
    return choice_task(name, samples), samples


def training_format(fields: Fields) -> str | None:
    """The format of training samples that the fields tell; None if they tell none."""
    return next((name for name, sets in TRAINING.items() if any({*one} <= {*fields.names} for one in sets)), None)


def sort_of(fields: Fields, *, path: Path) -> str:
    """What sort of task a file with these fields is. Raises DataError if that is not told, or told in two ways."""
    found = _fitting(fields)
    if len(found) == 1:
        return found[0]
    has = ", ".join(fields.names.values())
    if found:
        ways = " or ".join(f"{sort}:{path}" for sort in found)
        raise DataError(f"{path}: its fields ({has}) fit more than one kind of task; write {ways}")
    raise DataError(
        f"{path}: its fields ({has}) do not tell what kind of task it is: a question ({QUESTION[0]}) with options"
        f" ({choice_files.OPTIONS[0]}, or A, B, …) and answer, a question with answer, or samples as for training"
        f" (messages, prompt and completion, instruction and output, text); rename the fields, or write"
        f" {', '.join(f'{sort}:{path}' for sort in SORTS[2:])} to have them read by data.columns"
    )


def _fitting(fields: Fields) -> list[str]:
    """The sorts of task that fields tell."""
    has_question = fields.first(QUESTION) is not None
    is_choice = has_question and has_options(fields) and fields.first(choice_files.ANSWER) is not None
    is_short = has_question and not has_options(fields) and fields.first(short_files.ANSWER) is not None
    told = training_format(fields)
    is_sample = told is not None and not (told == "text" and _has_answer(fields))
    return [sort for sort, fits in ((CHOICE, is_choice), (SHORT, is_short), (SAMPLES, is_sample)) if fits]


def _shape(rows: Sequence[Row], *, is_told: bool) -> Shape:
    """How the rows would be read for training; where columns are told, only as to the fields that must be there."""
    found = found_shape(rows) or Shape("")
    left = _OPTIONAL if is_told else ()
    return replace(found, columns={field: name for field, name in found.columns.items() if field not in left})


def _named(
    rows: Sequence[Row], known: Mapping[str, str], shape: Shape, *, sort: str | None, reading: Reading
) -> list[Row]:
    """The rows under their `known` names, or those of `shape`, where these tell the sort of task and their own do not.

    One column alone is not taken for texts, unless the sort of task says so.
    """

    def is_told(fields: Fields) -> bool:
        found = _fitting(fields)
        return sort in found if sort else bool(found)

    own = Fields(rows)
    if is_told(own):
        return [*rows]
    holds_questions = sort in (CHOICE, SHORT) or (sort is None and has_options(own))
    read = shape.columns if sort == SAMPLES or shape.format != "text" else {}
    for columns, guess in ((known, ""), (read, shape.guess)):
        asked = {"answer" if holds_questions and field in _TRAINED else field: name for field, name in columns.items()}
        named = with_columns(rows, asked, source=reading.source)
        if is_told(Fields(named)):
            reading.remarks += [f"{reading.source}: {guess}"] if guess else []
            return named
    return [*rows]


def _as_trained(
    rows: Sequence[Row], fields: Fields, told: str | None, *, asked: Mapping[str, str], source: str
) -> list[Row]:
    """Samples with the fields of their format in the small letters that training reads, else as they are `asked`."""
    read = FIELDS.get(told or "", ())
    names = {field: fields.names[field] for field in read if field in fields.names}
    others = {field: name for field, name in fields.columns(asked).items() if field in read and field not in names}
    columns = names | {field: name for field, name in others.items() if name not in names.values()}
    return with_columns(rows, {field: name for field, name in columns.items() if field != name}, source=source)


def _has_answer(fields: Fields) -> bool:
    return fields.first([*choice_files.ANSWER, *short_files.ANSWER]) is not None


def _check_fields(fields: Fields, sort: str, *, path: Path) -> None:
    """Refuse a file that has not what its sort of task needs."""
    needed: dict[str, Any] = {f"a question ({', '.join(QUESTION)})": fields.first(QUESTION)}
    if sort == CHOICE:
        needed[f"options ({', '.join(choice_files.OPTIONS)}, or columns A, B, …)"] = has_options(fields) or None
    names = choice_files.ANSWER if sort == CHOICE else short_files.ANSWER
    needed[f"an answer ({', '.join(names)})"] = fields.first(names)
    for what, found in needed.items():
        if found is None:
            raise DataError(f"{path}: no field with {what}; it has {', '.join(fields.names.values())}: rename one")
    if len(questions := fields.several(QUESTION)) > 1:
        raise DataError(f"{path}: {' and '.join(questions)} may each be the question; leave one, or rename the others")
