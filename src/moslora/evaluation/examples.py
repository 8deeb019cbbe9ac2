"""A few answered questions to look at: which ones, and how they lie on disk. Imports no torch."""

from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, PositiveInt, ValidationError

from moslora.errors import CheckpointError
from moslora.evaluation.answers import Answer
from moslora.packed import read_text

COUNT = 6


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Given(_Strict):
    """One answer to a question."""

    predicted: str | None  # what the rule read
    text: str | None
    is_correct: bool


class ShownPicture(_Strict):
    """A question's picture, made small: the content of a file, and its size in pixels."""

    media_type: Literal["image/png", "image/jpeg"]
    width: PositiveInt
    height: PositiveInt
    content: Base64Bytes

    @property
    def uri(self) -> str:
        """The picture as a page's own address."""
        return f"data:{self.media_type};base64,{b64encode(self.content).decode()}"


class Example(_Strict):
    """A question with its answer, what other evaluations of it gave (by their names), and its pictures."""

    index: int  # of the question in its test set, from 0
    kind: str | None
    question: str
    expected: str
    given: Given
    controls: dict[str, Given] = {}
    pictures: list[ShownPicture] = []


class Examples(_Strict):
    """The file of a task's examples; `when` names the evaluation that they are of."""

    when: str
    examples: list[Example]


def chosen(answers: Sequence[Answer], *, count: int = COUNT) -> list[Answer]:
    """So many of the answers, over all kinds and over right and wrong ones alike, the same ones every time.

    Of one group, or one unit, only one is taken as long as there are others.
    """
    waiting = _by_turns(answers)
    taken: list[Answer] = []
    seen: set[str] = set()
    while waiting and len(taken) < count:
        own = waiting.popleft()
        answer = next((one for one in own if not _shared(one) & seen), own[0])
        own.remove(answer)
        taken.append(answer)
        seen |= _shared(answer)
        waiting += [own] if own else []
    return sorted(taken, key=lambda answer: answer.index)


def read_examples(path: Path) -> Examples | None:
    """The examples in a file; None without one. Raises CheckpointError for a damaged file."""
    try:
        text = read_text(path)
        return Examples.model_validate_json(text) if text is not None else None
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot read the examples {path}: {reason}; remove it, or evaluate again") from error


def given(answer: Answer) -> Given:
    """What an answer says."""
    return Given(predicted=answer.predicted, text=answer.text, is_correct=answer.is_correct)


def _by_turns(answers: Sequence[Answer]) -> deque[list[Answer]]:
    """The answers of each kind, right or wrong, in the order in which one is taken of each."""
    kinds = sorted({answer.kind or "" for answer in answers})
    order = [(kind, (number + turn) % 2 == 0) for turn in range(2) for number, kind in enumerate(kinds)]
    found = ([one for one in answers if ((one.kind or ""), one.is_correct) == place] for place in order)
    return deque(own for own in found if own)


def _shared(answer: Answer) -> set[str]:
    """What an answer has in common with others: its picture's group, or its unit."""
    return {name for name in (answer.group, answer.unit) if name is not None}
