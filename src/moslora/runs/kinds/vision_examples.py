"""A few questions about pictures as a reader sees them: the pictures made small, letters with their options."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from moslora.data.images import Picture, encoded, open_image
from moslora.data.vision_tasks import Question
from moslora.data.vision_tasks.question import CHINESE_LETTER_SENTENCE, LETTER_SENTENCE, SHORT_SENTENCE
from moslora.evaluation.answers import Answer
from moslora.evaluation.examples import chosen

LONGEST = 160  # pixels of a picture's longer side
QUALITY = 85
SENTENCES = (LETTER_SENTENCE, CHINESE_LETTER_SENTENCE, SHORT_SENTENCE)  # how to answer: the same for every question


def examples_of(
    questions: Sequence[Question], answered: Callable[[str], Sequence[Answer]], *, when: str, control: str
) -> list[dict[str, Any]]:
    """The chosen questions with their answers at that moment and in the control, as `Example` has them."""
    beside = {(answer.index, answer.expected): answer for answer in answered(control)}
    found = []
    for answer in chosen(answered(when)):
        other = beside.get((answer.index, answer.expected))
        found.append(_example(questions[answer.index], answer, {control: other} if other else {}))
    return found


def _example(question: Question, answer: Answer, controls: dict[str, Answer]) -> dict[str, Any]:
    place = f"question {question.index}"
    return {
        "index": answer.index,
        "kind": answer.kind,
        "question": _asked(question),
        "expected": _named(answer.expected, question),
        "given": _given(answer, question),
        "controls": {name: _given(other, question) for name, other in controls.items()},
        "pictures": [_small(image, place=place) for image in question.images],
    }


def _asked(question: Question) -> str:
    lines = question.prompt.split("\n")
    return "\n".join(lines[:-1] if lines[-1] in SENTENCES else lines)


def _given(answer: Answer, question: Question) -> dict[str, Any]:
    predicted = None if answer.predicted is None else _named(answer.predicted, question)
    return {"predicted": predicted, "text": answer.text, "is_correct": answer.is_correct}


def _named(answer: str, question: Question) -> str:
    """An option's letter with its text."""
    option = (question.options or {}).get(answer)
    return answer if option is None else f"{answer}. {option}"


def _small(image: Picture, *, place: str) -> dict[str, Any]:
    picture = open_image(image, place=place)
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    contents = {"image/png": encoded(picture), "image/jpeg": _as_jpeg(picture)}
    media_type = min(contents, key=lambda name: len(contents[name]))
    return {
        "media_type": media_type,
        "width": picture.width,
        "height": picture.height,
        "content": base64.b64encode(contents[media_type]).decode(),
    }


def _as_jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()
