"""Choices by letter: MMBench with its circular passes, SEED-Bench's pictures, and AI2D."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moslora.data.files import Row, read_json
from moslora.data.references import picture
from moslora.data.vision_tasks.question import Question, choice_prompts, lettered
from moslora.data.vision_tasks.tables import Pictures, cell, options_of, read_table, without_pictures
from moslora.errors import DataError

PASS = 1_000_000  # what a circular pass adds to a question's index


def mmbench(path: Path, *, image_folder: Path | None = None, limit: int | None = None) -> list[Question]:
    """MMBench's questions from its table (English or Chinese), each in as many passes as it has options.

    The passes of one question are a unit. Tables without passes get them here, by rotating the options. `limit` counts
    questions with all of their passes; `kind` is the ability (`l2-category`).
    """
    found = _choices(path, image_folder=image_folder, kind="l2-category")
    numbers = {question.index: _number(question.index, path) for question in found}
    if all(number < PASS for number in numbers.values()):
        found = [turned for question in found for turned in _passes(question)]
    else:
        found = [replace(question, unit=str(numbers[question.index] % PASS)) for question in found]
    units = dict.fromkeys(question.unit for question in found)
    kept = set(list(units)[:limit])
    return [question for question in found if question.unit in kept]


def choice_table(path: Path, *, image_folder: Path | None = None, limit: int | None = None) -> list[Question]:
    """The questions of a table with options A, B, ... (SEED-Bench's pictures, AI2D); `kind` is the category."""
    return _choices(path, image_folder=image_folder, kind="category", limit=limit)


def seed(path: Path, *, image_folder: Path | None = None, limit: int | None = None) -> list[Question]:
    """SEED-Bench's questions about pictures: its table, or its own JSON, whose pictures lie in the image folder."""
    if not path.name.removesuffix(".gz").endswith(".json"):
        return choice_table(path, image_folder=image_folder, limit=limit)
    content = read_json(path)
    if not isinstance(content, Mapping) or not {"questions", "question_type"} <= set(content):
        raise DataError(f"{path}: no 'questions' and 'question_type' in it; give SEED-Bench's own JSON or its table")
    kinds = {number: name for name, number in content["question_type"].items()}
    rows = [row for row in content["questions"] if row.get("data_type") == "image"][:limit]
    return [_seed_question(row, kinds, path, image_folder) for row in rows]


def _seed_question(row: Mapping[str, Any], kinds: Mapping[int, str], path: Path, folder: Path | None) -> Question:
    index = str(row.get("question_id"))
    place = f"{path}: question {index}"
    options = lettered([str(row[name]) for name in ("choice_a", "choice_b", "choice_c", "choice_d") if row.get(name)])
    images = [picture(row.get("data_id"), folder=folder, place=place)]
    kept = {name: value for name, value in row.items() if not name.startswith("choice_")}
    made = {**kept, "index": index, **options}
    kind = kinds.get(row.get("question_type_id", -1))
    return _question(made, options, images=images, kind=kind, place=place)


def _choices(path: Path, *, image_folder: Path | None, kind: str, limit: int | None = None) -> list[Question]:
    rows = read_table(path, columns=("index", "question", "A", "B"))
    pictures = Pictures(rows, source=str(path), image_folder=image_folder)
    return [
        _question(
            without_pictures(row),
            options_of(row),
            images=pictures.of(row),
            kind=cell(row, kind) or None,
            place=f"{path}: index {cell(row, 'index')}",
        )
        for row in rows[:limit]
    ]


def _question(row: Row, options: dict[str, str], *, images: list[Any], kind: str | None, place: str) -> Question:
    answer = cell(row, "answer").strip()
    if len(options) < 2:
        raise DataError(f"{place}: {len(options)} options, expected at least two; correct the table")
    if answer and answer not in options:
        raise DataError(f"{place}: the answer is '{answer}', allowed: {', '.join(options)}; correct the table")
    prompt, alone = choice_prompts(cell(row, "question"), options, hint=cell(row, "hint"))
    return Question(
        index=cell(row, "index"),
        prompt=prompt,
        images=images,
        options=options,
        answers=[answer] if answer else [],
        unit=cell(row, "index"),
        kind=kind,
        options_prompt=alone,
        row=row,
    )


def _passes(question: Question) -> list[Question]:
    """The question once for each option, which then comes first; all passes are one unit."""
    letters, texts = list(question.options or {}), list((question.options or {}).values())
    right = letters.index(question.answers[0]) if question.answers else None
    found = []
    for turn in range(len(letters)):
        row = {**question.row, **lettered([*texts[turn:], *texts[:turn]])}
        row["index"] = str(int(question.index) + turn * PASS)
        if right is not None:
            row["answer"] = letters[(right - turn) % len(letters)]
        options = {letter: row[letter] for letter in letters}
        turned = _question(row, options, images=question.images, kind=question.kind, place=question.index)
        found.append(replace(turned, unit=question.unit))
    return found


def _number(index: str, path: Path) -> int:
    if not index.isdecimal():
        raise DataError(
            f"{path}: the index '{index}' is not a number, which is what tells the passes apart; correct the table"
        )
    return int(index)
