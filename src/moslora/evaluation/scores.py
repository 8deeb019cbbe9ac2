"""Answers to questions, and the numbers drawn from them. Imports no torch, so reports can use it."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

from moslora.errors import DataError
from moslora.estimation import t_quantile


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question.

    `index` counts the questions from 0; `predicted` is None if the generated `text` holds no label; `scores` are the
    log-probabilities (natural logarithm) of the allowed answers, of which there are `options`. Questions of one `group`
    depend on each other: they share their options, say.
    """

    index: int
    expected: str
    predicted: str | None
    is_correct: bool
    kind: str | None = None
    text: str | None = None
    scores: dict[str, float] | None = None
    options: int | None = None
    group: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for a line of JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Accuracy:
    """So many correct answers of a total of at least one.

    Where questions depend on each other, the share varies `design_effect` times as much as that of as many independent
    ones, which is known from so many `groups` of questions.
    """

    correct: int
    total: int
    design_effect: float = 1.0
    groups: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise ValueError(f"{self.correct} of {self.total} is no accuracy: give at least one answer, none twice")

    @property
    def value(self) -> float:
        """The share of correct answers, 0 to 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the share, without continuity correction (Wilson 1927).

        Of dependent questions so many count as are worth the same (total / design effect, Kish 1965), with Student's t
        of the groups.
        """
        z = NormalDist().inv_cdf(0.975) if self.groups is None else t_quantile(max(1, self.groups - 1))
        n, p = self.total / self.design_effect, self.value
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
    correct = sum(answer.is_correct for answer in answers)
    groups = [answer.group for answer in answers]
    if None in groups or len(set(groups)) == len(groups):
        return Accuracy(correct, len(answers))
    effect = _design_effect([answer.is_correct for answer in answers], groups)
    return Accuracy(correct, len(answers), effect, len(set(groups)))


def accuracy_by_kind(answers: Sequence[Answer]) -> dict[str, Accuracy]:
    """The accuracy of each kind of question, by name; answers without a kind are left out.

    A kind has too few groups to tell a design effect of its own: it takes that of all.
    """
    kinds: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.kind is not None:
            kinds[answer.kind].append(answer)
    shared = accuracy(answers)
    return {kind: replace(shared, **_counts(kinds[kind])) for kind in sorted(kinds)}


def chance(answers: Sequence[Answer]) -> float | None:
    """The share that guessing gets right, by each question's number of options; None where one is not known."""
    shares = [1 / answer.options for answer in answers if answer.options]
    return sum(shares) / len(shares) if shares and len(shares) == len(answers) else None


def agreement(a: Sequence[Answer], b: Sequence[Answer]) -> float:
    """The share (0 to 1) of questions that both answered alike; two missing predictions do not agree.

    Raises DataError if they do not answer the same questions, in the same order.
    """
    if not a or [answer.index for answer in a] != [answer.index for answer in b]:
        raise DataError(f"{len(a)} and {len(b)} answers are not to the same questions; answer the same ones twice")
    return sum(x.predicted is not None and x.predicted == y.predicted for x, y in zip(a, b, strict=True)) / len(a)


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    return {"correct": sum(answer.is_correct for answer in answers), "total": len(answers)}


def _design_effect(right: Sequence[bool], groups: Sequence[Hashable]) -> float:
    """The variance of the share right over groups, by that of as many independent questions.

    Where all are right, or none, nothing varies: each group then counts as one question. The variance is never less
    than one question is worth.
    """
    total, share = len(right), sum(right) / len(right)
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for is_right, group in zip(right, groups, strict=True):
        sums[group] += is_right - share
    if len(sums) < 2 or not 0 < share < 1:
        return total / len(sums)
    variance = len(sums) / (len(sums) - 1) * sum(value**2 for value in sums.values()) / total**2
    return max(variance, 1 / total**2) / (share * (1 - share) / total)
