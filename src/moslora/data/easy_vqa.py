"""easy-VQA: 5,000 pictures of one coloured shape each, and questions about them, from the package of that name.

The package's files are read where they lie, and its code is never imported. Its splits are kept: no picture of the test
is among those to train on. What a picture shows is not in its files; the questions say it.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from moslora.errors import DataError, MissingDependencyError, suggestion

PACKAGE, VERSION = "easy-vqa", "1.0"
SPLITS = ("train", "test")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
ANSWERS = (*COLOURS, *SHAPES, "yes", "no")
KINDS = ("colour", "shape", "yes/no")
DESCRIBE = "Describe the picture."

Wording = tuple[bool, str]


def questions(split: str, *, is_balanced: bool = False, is_open: bool = False) -> list[dict[str, str]]:
    """The questions of a split ("train" or "test") in the package's order, as fresh dicts that the caller may change.

    Each has `id`, `image` (the picture's path), `question` ("what color is the triangle?"), `answer` (one of
    `ANSWERS`) and `kind` (one of `KINDS`). Of the questions of yes or no 82 % are answered right without the picture,
    by their wording: yes to "is there not a red shape?", no to "is there a red shape?". With `is_balanced` as many of
    them are kept as leave a half, whatever the wording; with `is_open` none.

    Raises DataError for another split, MissingDependencyError if the package is not installed.
    """
    found = [{"id": f"{split}-{number}", **question} for number, question in enumerate(_read(folder(split)))]
    found = balanced(found) if is_balanced else found
    return open_questions(found) if is_open else found


def conversations(split: str, *, is_balanced: bool = False, is_open: bool = False) -> list[dict[str, Any]]:
    """The questions of `questions`, in its order, as LLaVA's samples: `id`, `image`, `conversations` and `kind`.

    Raises as `questions`.
    """
    return [
        _sample(one["id"], one["image"], question=one["question"], answer=one["answer"], kind=one["kind"])
        for one in questions(split, is_balanced=is_balanced, is_open=is_open)
    ]


def captions(split: str) -> list[dict[str, Any]]:
    """A description of each picture ("a teal circle"), in the form of `conversations`; the kind is "caption".

    One a picture, in the order of the pictures' numbers, left out where the questions do not say both its colour and
    its shape (one picture in five). Raises as `questions`.
    """
    shown: dict[str, dict[str, str]] = {}
    for question in questions(split):
        shown.setdefault(question["image"], {}).update(_said(question))
    return [
        _sample(
            f"{split}-caption-{Path(image).stem}",
            image,
            question=DESCRIBE,
            answer=f"a {said['colour']} {said['shape']}",
            kind="caption",
        )
        for image, said in sorted(shown.items(), key=lambda one: int(Path(one[0]).stem))
        if len(said) == 2
    ]


def kind_of(answer: str) -> str:
    """Which of `KINDS` a question with this answer is."""
    return _kind(answer) or "yes/no"


def balanced(asked: list[dict[str, str]]) -> list[dict[str, str]]:
    """The questions without those of yes or no that have more of one answer than of the other for their wording."""
    wordings = [_wording(one) for one in asked]
    counts = Counter((wording, one["answer"]) for wording, one in zip(wordings, asked, strict=True) if wording)
    kept: Counter[tuple[Wording, str]] = Counter()
    left = []
    for wording, one in zip(wordings, asked, strict=True):
        if wording:
            kept[wording, one["answer"]] += 1
            if kept[wording, one["answer"]] > min(counts[wording, "yes"], counts[wording, "no"]):
                continue
        left.append(one)
    return left


def open_questions(asked: list[dict[str, str]]) -> list[dict[str, str]]:
    """The questions that a colour or a shape answers."""
    return [one for one in asked if one["kind"] != "yes/no"]


def _wording(question: dict[str, str]) -> Wording | None:
    """Whether a question of yes or no is negated, and the colour or shape it asks for."""
    if question["kind"] != "yes/no":
        return None
    words = question["question"].rstrip("?").split()
    return bool({"no", "not"} & set(words)), next(word for word in words if _kind(word))


def _sample(name: str, image: str, *, question: str, answer: str, kind: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns, "kind": kind}


def _said(question: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What a question and its answer say of the picture; a question of yes or no may name what is not there."""
    if question["kind"] == "yes/no":
        return
    for word in (*question["question"].rstrip("?").split(), question["answer"]):
        if (kind := _kind(word)) is not None:
            yield kind, word


def _kind(word: str) -> str | None:
    return "colour" if word in COLOURS else "shape" if word in SHAPES else None


def folder(split: str) -> Path:
    """Where the split's `questions.json` and `images` lie. Raises as `questions`."""
    if split not in SPLITS:
        raise DataError(f"easy-VQA has no split '{split}'{suggestion(split, SPLITS)} (allowed: {', '.join(SPLITS)})")
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(
            f"the pictures of easy-VQA come with a package that is not installed: pip install {PACKAGE}=={VERSION}"
        ) from None
    return Path(str(package.locate_file("easy_vqa"))) / "data" / split


@cache
def _read(folder: Path) -> list[dict[str, str]]:
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [
        {
            "image": str(folder / "images" / f"{number}.png"),
            "question": question,
            "answer": answer,
            "kind": kind_of(answer),
        }
        for question, answer, number in rows
    ]
