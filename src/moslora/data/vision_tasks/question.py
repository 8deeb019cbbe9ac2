"""A question about pictures, and the prompts that the published protocols make of its parts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from string import ascii_uppercase
from typing import Any

from moslora.data.images import Picture, blank, check_image, encoded
from moslora.data.references import MARKER
from moslora.errors import DataError

LETTER_SENTENCE = "Answer with the option's letter from the given choices directly."
CHINESE_LETTER_SENTENCE = "请直接回答选项字母。"
SHORT_SENTENCE = "Answer the question using a single word or phrase."

_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Question:
    """A question with its pictures, which stand before the prompt.

    `options` are the texts by letter, None for an open question. `answers` are a letter, or the texts that count; empty
    where they are not public. Questions of one `unit` earn one credit together, which counts `weight` times; those of
    one `group` depend on each other. `options_prompt` asks without the question. `row` holds the file's other columns.
    """

    index: str
    prompt: str
    images: list[Picture] = field(repr=False)
    options: dict[str, str] | None
    answers: list[str]
    unit: str
    weight: float = 1.0
    kind: str | None = None
    group: str | None = None
    options_prompt: str | None = None
    row: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def content(self) -> str:
        """The prompt as a user's turn: a marker and a line break for each picture, then the words."""
        return f"{MARKER}\n" * len(self.images) + self.prompt


def options_only(question: Question) -> Question:
    """The question as options without the question and its pictures: what an answer needs neither of.

    Raises DataError for a question without options.
    """
    if question.options_prompt is None:
        raise DataError(f"question {question.index} has no options to ask alone; choose a multiple-choice task")
    return replace(question, prompt=question.options_prompt, images=[])


def with_blank_pictures(question: Question) -> Question:
    """The question with pictures of one grey and the same sizes: what an answer takes from the words alone.

    Raises DataError for a picture that cannot be used.
    """
    headers = [check_image(image, place=f"question {question.index}") for image in question.images]
    return replace(question, images=[_blank(header.width, header.height) for header in headers])


@cache
def _blank(width: int, height: int) -> bytes:
    return encoded(blank((width, height)))


def choice_prompts(question: str, options: Mapping[str, str], *, hint: str = "") -> tuple[str, str]:
    """The prompt of a choice by letters as LLaVA and XTuner write it, and the same without hint and question.

    A prompt with a Chinese character in any part ends with the sentence in Chinese.
    """
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    asked = "\n".join([*([hint] if hint else []), question, listed])
    sentence = CHINESE_LETTER_SENTENCE if _CHINESE.search(asked) else LETTER_SENTENCE
    return f"{asked}\n{sentence}", f"{listed}\n{sentence}"


def lettered(texts: list[str]) -> dict[str, str]:
    """Options by their letters, A for the first."""
    return dict(zip(ascii_uppercase, texts, strict=False))
