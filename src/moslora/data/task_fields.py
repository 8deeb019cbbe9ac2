"""The fields of a file of questions, under the names that published sets give them.

Names are compared without regard to case. A sample's fields are found once, from the names of all that the file has.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moslora.data.files import Row
from moslora.errors import DataError

QUESTION_ELSEWHERE = ("frage", "pregunta", "domanda", "pergunta")  # in other languages, as spreadsheets have it
ANSWER_ELSEWHERE = ("antwort", "réponse", "respuesta", "risposta", "resposta")
QUESTION = (
    *("question", "instruction", "query", "prompt", "problem", "question_stem", "stem", "goal", "ctx", "sentence"),
    *QUESTION_ELSEWHERE,
)
CONTEXT = ("context", "passage", "article", "support")  # stands before the question
INPUT = ("input",)  # stands after it, as in training samples
KIND = ("kind", "category", "subject", "topic")  # of a question: accuracy is told by kind too
GROUP = ("group",)  # of questions that depend on each other


class Fields:
    """The names of a file's fields, found by what they are called.

    `names` maps each to how the file writes it.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.names = {name.strip().lower(): name for row in rows for name in row}

    def first(self, names: Sequence[str]) -> str | None:
        """How the file writes the first of these names that it has; None if it has none."""
        return next((self.names[name] for name in names if name in self.names), None)

    def several(self, names: Sequence[str]) -> list[str]:
        """How the file writes those of these names that it has."""
        return [self.names[name] for name in names if name in self.names]

    def columns(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Those of the asked columns, by field, that the file has, as it writes them."""
        known = {field: self.names.get(column.strip().lower()) for field, column in asked.items()}
        return {field: name for field, name in known.items() if name is not None}


def text_of(row: Mapping[str, Any], field: str | None, *, place: str, is_optional: bool = False) -> str:
    """The text of a field without white space around it; "" where it is optional and there is none.

    Raises DataError naming `place`, the field and its value.
    """
    value = row.get(field) if field is not None else None
    if is_optional and (value is None or (isinstance(value, str) and not value.strip())):
        return ""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: field '{field}' is {value!r}, expected text; correct the sample")
    return value.strip()


def about(row: Mapping[str, Any], fields: Fields, *, place: str) -> Row:
    """A question's `kind` and `group`, where the file has them."""
    found: Row = {}
    for name, names in (("kind", KIND), ("group", GROUP)):
        value = row.get(fields.first(names) or "")
        if isinstance(value, (list, dict)):
            raise DataError(f"{place}: field '{fields.first(names)}' is {value!r}, expected text; correct the sample")
        if value is not None and str(value).strip():
            found[name] = str(value)
    return found


def listed(value: Any) -> Any:
    """A value, or what it holds where it is a list written as JSON in a table's cell."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
