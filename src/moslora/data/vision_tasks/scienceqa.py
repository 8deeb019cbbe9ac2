"""ScienceQA's questions with pictures: from its own two files, or as conversations in LLaVA's form."""

import re
from collections.abc import Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from moslora.data.conversations import read_conversation
from moslora.data.files import read_json, read_rows
from moslora.data.references import MARKER
from moslora.data.vision_tasks.question import LETTER_SENTENCE, Question, lettered
from moslora.errors import DataError

PROBLEMS, SPLITS = "problems.json", "pid_splits.json"

_OPTIONS = re.compile(r"^Options: (?P<options>\(A\) .*)$", re.MULTILINE)
_OPTION = re.compile(r"\(([A-Z])\) ")
_ANSWER = re.compile(r"The answer is ([A-Z])\.")


def scienceqa(
    path: Path, *, image_folder: Path | None = None, limit: int | None = None, split: str = "test"
) -> list[Question]:
    """The questions with pictures of a folder with `problems.json` and `pid_splits.json`, or of a conversations' file.

    From the two files, prompts are LLaVA's CQM (context, question, options) with the sentence that asks for a letter,
    and pictures lie in the image folder as `ID/NAME` or `SPLIT/ID/NAME`. Conversations keep their own prompt, whose
    options and answer are read from it; a relative picture lies in the image folder, or else beside the file.
    """
    if path.is_dir():
        return _problems(path, image_folder=image_folder or path, limit=limit, split=split)
    rows = enumerate(read_rows(path, limit=limit), start=1)
    folder = image_folder or path.parent
    return [_conversation(row, folder, place=f"{path}: sample {number}", number=number) for number, row in rows]


def _problems(path: Path, *, image_folder: Path, limit: int | None, split: str) -> list[Question]:
    problems, splits = read_json(path / PROBLEMS), read_json(path / SPLITS)
    if split not in splits:
        raise DataError(f"{path / SPLITS}: no split '{split}' (allowed: {', '.join(splits)}); choose one of them")
    missing = [number for number in splits[split] if number not in problems]
    if missing:
        raise DataError(f"{path / PROBLEMS}: no problem '{missing[0]}' of split '{split}'; fetch both files again")
    pictured = [number for number in splits[split] if problems[number].get("image")]
    return [_problem(number, problems[number], split, image_folder, path) for number in pictured[:limit]]


def _problem(number: str, problem: Mapping[str, Any], split: str, folder: Path, path: Path) -> Question:
    place = f"{path / PROBLEMS}: problem {number}"
    options = lettered([str(choice) for choice in problem["choices"]])
    listed = "Options: " + " ".join(f"({letter}) {text}" for letter, text in options.items())
    asked = f"Context: {problem.get('hint') or 'N/A'}\nQuestion: {problem['question']}\n{listed}"
    right = problem.get("answer")
    if not isinstance(right, int) or not 0 <= right < len(options):
        raise DataError(f"{place}: the answer is {right!r}, allowed: 0 to {len(options) - 1}; correct the file")
    places = [folder / number / problem["image"], folder / split / number / problem["image"]]
    return Question(
        index=number,
        prompt=f"{asked.replace('  ', ' ').strip()}\n{LETTER_SENTENCE}",
        images=[str(next((one for one in places if one.is_file()), places[0]))],
        options=options,
        answers=[ascii_uppercase[right]],
        unit=number,
        kind=problem.get("subject"),
        options_prompt=f"{listed}\n{LETTER_SENTENCE}",
    )


def _conversation(sample: Mapping[str, Any], folder: Path, *, place: str, number: int) -> Question:
    found = read_conversation(sample, place=place, folder=folder)
    asked, answer = found.messages[0], found.messages[1]["content"]
    prompt = asked["content"].replace(MARKER, "").strip()
    listed, right = _OPTIONS.search(prompt), _ANSWER.findall(answer)
    options = _listed_options(listed["options"]) if listed else {}
    if len(found.messages) != 2 or not found.images or len(right) != 1 or right[0] not in options:
        raise DataError(
            f"{place}: expected a question with a picture and a line 'Options: (A) ... (B) ...', and one answer "
            f"'The answer is A.', got {prompt[-40:]!r} and {answer[:40]!r}; correct the sample"
        )
    index = str(sample.get("id", number))
    return Question(
        index=index,
        prompt=prompt,
        images=found.images,
        options=options,
        answers=right,
        unit=index,
        kind=found.kind,
        group=found.group,
        options_prompt=listed[0] if listed else None,
    )


def _listed_options(text: str) -> dict[str, str]:
    """The options of `(A) x (B) y`; letters count only in their order, since a text may hold one in brackets too."""
    starts: list[re.Match[str]] = []
    for found in _OPTION.finditer(text):
        if found[1] == ascii_uppercase[len(starts)]:
            starts.append(found)
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return {start[1]: text[start.end() : end].strip() for start, end in zip(starts, ends, strict=True)}
