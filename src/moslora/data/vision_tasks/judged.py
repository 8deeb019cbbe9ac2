"""MM-Vet and MathVista, whose answers another model judges, and the files of predictions that it reads.

VLMEvalKit's judges take a file of the benchmark's own columns without the pictures, and the prediction beside them.
MMBench's server takes one of the question, its options and the prediction.
"""

import csv
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moslora.data.vision_tasks.question import Question
from moslora.data.vision_tasks.tables import Pictures, cell, read_table, without_pictures
from moslora.errors import ConfigError, DataError, MissingDependencyError
from moslora.files import write_atomically

SUFFIXES = (".xlsx", ".tsv", ".json")
SUBMITTED = ("index", "question", "A", "B", "C", "D", "prediction")

_JUDGED = {
    "mm-vet": ("index", "question", "answer", "category"),
    "mathvista": ("index", "question", "answer", "task", "skills", "question_type", "answer_type", "choices"),
}


def mm_vet(path: Path, *, image_folder: Path | None = None, limit: int | None = None) -> list[Question]:
    """MM-Vet's questions from its table; `kind` is the ability. The answers stay in the row, for the judge."""
    return _judged(path, "mm-vet", kind="category", image_folder=image_folder, limit=limit)


def mathvista(path: Path, *, image_folder: Path | None = None, limit: int | None = None) -> list[Question]:
    """MathVista's questions from its table, which holds the whole prompt; `kind` is the task."""
    return _judged(path, "mathvista", kind="task", image_folder=image_folder, limit=limit)


def prediction_suffix() -> str:
    """The ending of a file of predictions: `.xlsx` where openpyxl can write it, else `.tsv`."""
    return ".xlsx" if find_spec("openpyxl") else ".tsv"


def write_predictions(path: Path, questions: Sequence[Question], *, texts: Sequence[str]) -> None:
    """Write each question's columns, without the picture, and the generated text as `prediction`.

    VLMEvalKit finds the file by its name, `MODEL_MMVet.tsv` or `MODEL_MathVista_MINI.tsv`; it reads `.tsv` and `.json`
    with PRED_FORMAT, `.xlsx` without. Raises ConfigError for another ending, OutputError where nothing can be written.
    """
    rows = [
        {**question.row, "index": question.index, "prediction": text}
        for question, text in zip(questions, texts, strict=True)
    ]
    _write(path, rows, names=list(dict.fromkeys(name for row in rows for name in row)))


def write_submission(path: Path, questions: Sequence[Question], *, texts: Sequence[str]) -> None:
    """Write the file that MMBench's server takes: index, question, options, and the generated text as `prediction`.

    Raises as `write_predictions` does.
    """
    rows = [
        {**question.row, **(question.options or {}), "index": question.index, "prediction": text}
        for question, text in zip(questions, texts, strict=True)
    ]
    _write(path, rows, names=[name for name in SUBMITTED if any(name in row for row in rows)])


def _judged(path: Path, task: str, *, kind: str, image_folder: Path | None, limit: int | None) -> list[Question]:
    rows = read_table(path, columns=_JUDGED[task])
    pictures = Pictures(rows, source=str(path), image_folder=image_folder)
    return [
        Question(
            index=cell(row, "index"),
            prompt=cell(row, "question"),
            images=pictures.of(row),
            options=None,
            answers=[],
            unit=cell(row, "index"),
            kind=cell(row, kind) or None,
            row=without_pictures(row),
        )
        for row in rows[:limit]
    ]


def _write(path: Path, rows: list[dict[str, Any]], *, names: list[str]) -> None:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a file of predictions ends in {', '.join(SUFFIXES)}, not '{path.suffix}'")
    if not rows:
        raise DataError(f"{path}: no predictions to write; answer at least one question")
    values = [[_value(row, name) for name in names] for row in rows]
    if path.suffix == ".json":
        records = [dict(zip(names, row, strict=True)) for row in values]
        write_atomically(path, json.dumps(records, ensure_ascii=False))
    elif path.suffix == ".tsv":
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([names, *values])
        write_atomically(path, stream.getvalue())
    else:
        write_atomically(path, _sheet([names, *values]))


def _value(row: dict[str, Any], name: str) -> Any:
    """A cell as it was read, or None where it was empty; an index is a number if it can be, a prediction never."""
    if name == "prediction":
        return str(row[name])
    value = row.get(name)
    if isinstance(value, (int, float)) and value == value:
        return value
    text = cell(row, name)
    return int(text) if name == "index" and text.isdecimal() else text or None


def _sheet(lines: list[list[Any]]) -> bytes:
    if not find_spec("openpyxl"):
        raise MissingDependencyError("a file .xlsx needs openpyxl: pip install openpyxl, or write .tsv or .json")
    from openpyxl import Workbook  # pyright: ignore[reportMissingModuleSource]
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # pyright: ignore[reportMissingModuleSource]

    book = Workbook()
    for row, line in enumerate(lines, start=1):
        for column, value in enumerate(line, start=1):
            place: Any = book.active.cell(row, column)  # pyright: ignore[reportOptionalMemberAccess]
            if isinstance(value, str):  # a text that starts with = is no formula
                place.value, place.data_type = ILLEGAL_CHARACTERS_RE.sub("", value), "s"
            else:
                place.value = value
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()
