"""Answers of a word or a phrase: TextVQA, MME's pairs of yes and no, and easy-VQA."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moslora.data.easy_vqa import balanced, kind_of, open_questions
from moslora.data.files import read_json
from moslora.data.references import picture
from moslora.data.vision_tasks.question import SHORT_SENTENCE, Question
from moslora.data.vision_tasks.tables import Pictures, cell, cells, read_table, without_pictures
from moslora.errors import DataError

TEXTVQA_ANSWERS = 10
MME_PERCEPTION = (
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
)
MME_REASONING = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
MME_SUBTASKS = (*MME_PERCEPTION, *MME_REASONING)


def textvqa(
    path: Path, *, image_folder: Path | None = None, limit: int | None = None, ocr: bool = False
) -> list[Question]:
    """TextVQA's questions, from its own JSON (pictures `IMAGE_ID.jpg` in the image folder) or from a table.

    `ocr` gives the words that a reader of texts found (`ocr_tokens`) with the question, as LLaVA's evaluation does and
    VLMEvalKit's does not; scores with and without are far apart. Each question has ten people's answers, or none.
    """
    if path.name.removesuffix(".gz").endswith(".json"):
        content = read_json(path)
        if not isinstance(content, Mapping) or not isinstance(content.get("data"), list):
            raise DataError(f"{path}: no list 'data' in it; give TextVQA's own JSON or a table")
        rows = [_textvqa_row(row, path, image_folder) for row in content["data"][:limit]]
    else:
        table = read_table(path, columns=("index", "question"))
        pictures = Pictures(table, source=str(path), image_folder=image_folder)
        rows = [(without_pictures(row), pictures.of(row)) for row in table[:limit]]
    return [_textvqa_question(row, images, path, ocr=ocr) for row, images in rows]


def mme(path: Path, *, image_folder: Path | None = None, limit: int | None = None) -> list[Question]:
    """MME's questions from its table: two of yes and no for each picture, which are a unit; `kind` is the subtask.

    A unit weighs so much that every subtask counts alike. `limit` counts pictures.
    """
    rows = read_table(path, columns=("index", "question", "answer", "category", "image_path"))
    pictures = Pictures(rows, source=str(path), image_folder=image_folder)
    units: defaultdict[str, list[Question]] = defaultdict(list)
    for row in rows:
        question = _mme_question(row, pictures, path)
        units[question.unit].append(question)
    odd = next((unit for unit, pair in units.items() if len(pair) != 2), None)
    if odd is not None:
        raise DataError(
            f"{path}: '{odd}' has {len(units[odd])} questions, expected two per picture; give the whole table"
        )
    kept = list(units.values())[:limit]
    counts = {kind: sum(pair[0].kind == kind for pair in kept) for kind in {pair[0].kind for pair in kept}}
    return [replace(question, weight=1 / counts[question.kind]) for pair in kept for question in pair]


def easy_vqa(
    path: Path,
    *,
    image_folder: Path | None = None,
    limit: int | None = None,
    is_balanced: bool = False,
    is_open: bool = False,
) -> list[Question]:
    """easy-VQA's questions from a folder with `questions.json` and `images`; those of one picture are a group.

    `is_balanced` leaves questions of yes or no out until their wording gives nothing away (`easy_vqa.balanced`),
    `is_open` leaves all of them out.
    """
    folder = image_folder or path / "images"
    rows = [_easy_row(row, f"{path / 'questions.json'}: question {number}") for number, row in _numbered(path)]
    rows = balanced(rows) if is_balanced else rows
    rows = open_questions(rows) if is_open else rows
    return [
        Question(
            index=row["id"],
            prompt=row["question"],
            images=[str(folder / f"{row['image']}.png")],
            options=None,
            answers=[row["answer"]],
            unit=row["id"],
            kind=row["kind"],
            group=row["image"],
        )
        for row in rows[:limit]
    ]


def _numbered(path: Path) -> Iterable[tuple[int, Any]]:
    return enumerate(read_json(path / "questions.json"), start=1)


def _easy_row(row: Any, place: str) -> dict[str, str]:
    if not isinstance(row, list) or len(row) != 3:
        raise DataError(f"{place} is {row!r}, expected [text, answer, image]")
    question, answer, image = map(str, row)
    return {
        "id": place.rpartition(" ")[2],
        "question": question,
        "answer": answer,
        "image": image,
        "kind": kind_of(answer),
    }


def _textvqa_row(row: Mapping[str, Any], path: Path, folder: Path | None) -> tuple[dict[str, Any], list[Any]]:
    index = str(row.get("question_id"))
    image = picture(f"{row.get('image_id')}.jpg", folder=folder, place=f"{path}: question {index}")
    return {**row, "index": index}, [image]


def _textvqa_question(row: dict[str, Any], images: list[Any], path: Path, *, ocr: bool) -> Question:
    index = cell(row, "index")
    place = f"{path}: question {index}"
    answers = row.get("answers") or row.get("answer") or []
    answers = cells(answers, place=place) if isinstance(answers, str) else [str(answer) for answer in answers]
    if len(answers) not in (0, TEXTVQA_ANSWERS):
        raise DataError(f"{place}: {len(answers)} answers, expected {TEXTVQA_ANSWERS}, or none; correct the file")
    lines = [cell(row, "question"), SHORT_SENTENCE]
    if ocr:
        if "ocr_tokens" not in row:
            raise DataError(f"{place}: no 'ocr_tokens' to show with the question; add them to the file, or ask without")
        tokens = row["ocr_tokens"]
        words = cells(tokens, place=place) if isinstance(tokens, str) else tokens
        lines.insert(1, f"Reference OCR token: {', '.join(words)}")
    return Question(
        index=index,
        prompt="\n".join(lines),
        images=images,
        options=None,
        answers=answers,
        unit=index,
        row=row,
    )


def _mme_question(row: dict[str, Any], pictures: Pictures, path: Path) -> Question:
    index, kind, answer = cell(row, "index"), cell(row, "category"), cell(row, "answer").strip().lower()
    if kind not in MME_SUBTASKS or answer not in ("yes", "no"):
        raise DataError(
            f"{path}: index {index}: category '{kind}' and answer '{answer}', allowed: {', '.join(MME_SUBTASKS)}, and "
            "yes or no; correct the table"
        )
    return Question(
        index=index,
        prompt=cell(row, "question"),
        images=pictures.of(row),
        options=None,
        answers=[answer],
        unit=f"{kind}/{cell(row, 'image_path')}",
        kind=kind,
        row=without_pictures(row),
    )
