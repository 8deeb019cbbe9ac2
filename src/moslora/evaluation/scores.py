"""Answers to questions, and the numbers drawn from them. Imports no torch, so reports can use it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from moslora.errors import DataError


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question.

    `index` counts the questions from 0; `predicted` is None if the generated `text` holds no label; `scores` are the
    log-probabilities (natural logarithm) of the allowed answers.
    """

    index: int
    expected: str
    predicted: str | None
    is_correct: bool
    kind: str | None = None
    text: str | None = None
    scores: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for a line of JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Accuracy:
    """So many correct answers of a total of at least one."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise ValueError(f"{self.correct} of {self.total} is no accuracy: give at least one answer, none twice")

    @property
    def value(self) -> float:
        """The share of correct answers, 0 to 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the share, without continuity correction (Wilson 1927)."""
        z = NormalDist().inv_cdf(0.975)
        n, p = self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # At the ends the exact bound is 0 or 1; rounding must not leave the range.
        low = 0.0 if self.correct == 0 else max(0.0, centre - half)
        high = 1.0 if self.correct == self.total else min(1.0, centre + half)
        return low, high


def accuracy(answers: Sequence[Answer]) -> Accuracy:
    """The accuracy of all answers.

    Raises DataError if there are none.
    """
    if not answers:
        raise DataError("no answers to count; evaluate at least one question")
    return Accuracy(sum(answer.is_correct for answer in answers), len(answers))


def accuracy_by_kind(answers: Sequence[Answer]) -> dict[str, Accuracy]:
    """The accuracy of each kind of question, by name; answers without a kind are left out."""
    groups: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.kind is not None:
            groups[answer.kind].append(answer)
    return {kind: accuracy(groups[kind]) for kind in sorted(groups)}


def agreement(a: Sequence[Answer], b: Sequence[Answer]) -> float:
    """The share (0 to 1) of questions that both answered alike; two missing predictions do not agree.

    Raises DataError if they do not answer the same questions, in the same order.
    """
    if not a or [answer.index for answer in a] != [answer.index for answer in b]:
        raise DataError(f"{len(a)} and {len(b)} answers are not to the same questions; answer the same ones twice")
    return sum(x.predicted is not None and x.predicted == y.predicted for x, y in zip(a, b, strict=True)) / len(a)
