"""Multiple-choice questions to train on, in the very words in which a task of such questions asks them."""

from collections.abc import Mapping, Sequence
from typing import Any

from moslora.data.choice_files import ANSWER, OPTIONS, choice_samples, has_options, option_columns
from moslora.data.fields import refuse_unread, unused_fields
from moslora.data.reading import Reading
from moslora.data.task_fields import CONTEXT, GROUP, INPUT, KIND, QUESTION, Fields
from moslora.errors import DataError


def choice_instructions(
    rows: Sequence[Mapping[str, Any]], *, reading: Reading
) -> tuple[list[dict[str, Any]], list[str]]:
    """The questions as instructions whose output is the right letter, and the fields that nothing looks at.

    Raises DataError, naming the place, for a file that has no questions with options, and for the first wrong one.
    """
    fields = Fields(rows)
    if not (fields.first(QUESTION) and has_options(fields) and fields.first(ANSWER)):
        raise DataError(
            f"{reading.source}: data.format choice needs a question ({QUESTION[0]}), options ({OPTIONS[0]}, or columns"
            f" A, B, ...) and an answer; it has {', '.join(fields.names.values())}: name them in data.columns"
        )
    names = [fields.first(known) for known in (QUESTION, CONTEXT, INPUT, OPTIONS, ANSWER, KIND, GROUP)]
    read = {*(name for name in names if name is not None), *(name for name, _ in option_columns(fields))}
    for place, row in zip(reading.places, rows, strict=True):
        refuse_unread(row, read=read, place=place)
    samples = choice_samples([dict(row) for row in rows], fields, places=reading.places)
    asked = [{name: value for name, value in sample.items() if name != "options"} for sample in samples]
    return asked, unused_fields(rows, read=read)
