"""The numbers drawn from answers. Imports no torch, so reports can use it."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from moslora.errors import DataError
from moslora.estimation import t_quantile, table, variance_of
from moslora.evaluation.answers import Answer, SampleAnswer, Unit, is_counted, units

__all__ = ["Accuracy", "Answer", "SampleAnswer", "accuracy", "accuracy_by_kind", "agreement", "chance", "perplexity"]


@dataclass(frozen=True)
class Accuracy:
    """So many units right of a total of at least one, or their `mean` credit where these are worth parts or weights.

    Where questions depend on each other, the share varies `design_effect` times as much as that of as many independent
    ones that are right or wrong, which is known from so many `groups` of questions, with `freedom` degrees of freedom
    (one less than there are groups, unless it is given).
    """

    correct: int
    total: int
    design_effect: float = 1.0
    groups: int | None = None
    mean: float | None = None
    freedom: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise ValueError(f"{self.correct} of {self.total} is not an accuracy: give at least one answer, none twice")

    @property
    def value(self) -> float:
        """The share of correct answers, or the mean credit, 0 to 1."""
        return self.correct / self.total if self.mean is None else self.mean

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the share, without continuity correction (Wilson 1927).

        Of dependent questions so many count as are worth the same (total / design effect, Kish 1965), with Student's t
        of the groups. The same holds for credits: their variance is never more than that of right and wrong answers.
        """
        n, p, z = self.total / self.design_effect, self.value, self._quantile
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # At the ends the exact bound is 0 or 1; rounding must not leave the range.
        low = 0.0 if p == 0 else max(0.0, centre - half)
        high = 1.0 if p == 1 else min(1.0, centre + half)
        return low, high

    @property
    def _quantile(self) -> float:
        if self.freedom is not None:
            return t_quantile(self.freedom)
        return NormalDist().inv_cdf(0.975) if self.groups is None else t_quantile(max(1, self.groups - 1))


def accuracy(answers: Sequence[Answer]) -> Accuracy:
    """The accuracy of all answers: the share of their units that is right, or the weighted mean of their credits.

    Raises DataError if there are none.
    """
    if not answers:
        raise DataError("no answers to count; evaluate at least one question")
    found = units(answers)
    groups = [unit.group for unit in found]
    named = None if None in groups or len(set(groups)) == len(groups) else groups
    if not is_counted(found):
        return _mean_credit(found, named)
    right = [unit.credit == 1 for unit in found]
    if named is None:
        return Accuracy(sum(right), len(right))
    return Accuracy(sum(right), len(right), _design_effect(right, named), len(set(named)))


def accuracy_by_kind(answers: Sequence[Answer]) -> dict[str, Accuracy]:
    """The accuracy of each kind of question, by name; answers without a kind are left out.

    A kind has too few groups to tell a design effect of its own: it takes that of all.
    """
    kinds: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.kind is not None:
            kinds[answer.kind].append(answer)
    shared = accuracy(answers)
    return {kind: _of_kind(kinds[kind], shared) for kind in sorted(kinds)}


def chance(answers: Sequence[Answer]) -> float | None:
    """What guessing gets, by each question's number of options; None where one is not known."""
    found = units(answers)
    shares = [unit.chance * unit.weight for unit in found if unit.chance is not None]
    return sum(shares) / sum(unit.weight for unit in found) if shares and len(shares) == len(found) else None


def agreement(a: Sequence[Answer], b: Sequence[Answer]) -> float:
    """The share (0 to 1) of questions that both answered alike; two missing predictions do not agree.

    Raises DataError if they do not answer the same questions, in the same order.
    """
    if not a or [answer.index for answer in a] != [answer.index for answer in b]:
        raise DataError(f"{len(a)} and {len(b)} answers are not to the same questions; answer the same ones twice")
    return sum(x.predicted is not None and x.predicted == y.predicted for x, y in zip(a, b, strict=True)) / len(a)


def perplexity(loss: float) -> float:
    """How many tokens a model is as unsure between: exp of the mean loss; infinite where that is no number."""
    return math.exp(loss) if loss < 709 else math.inf  # the largest that a double holds


def _mean_credit(found: Sequence[Unit], groups: Sequence[Hashable] | None) -> Accuracy:
    credits, steps, weights = np.array([(unit.credit, unit.step, unit.weight) for unit in found]).T
    values = table(credits[None], groups, answer=steps, weights=weights)
    mean, spread = _weighted_mean(found), variance_of([values]).questions
    variance = max(spread.variance, values.worth**2)
    return Accuracy(
        correct=int((credits == 1).sum()),
        total=len(found),
        # Where no unit is worth anything, or each all, nothing varies: so many then count as have equal weights.
        design_effect=variance * len(found) / (mean * (1 - mean)) if 0 < mean < 1 else len(found) / values.units,
        groups=None if groups is None else len(set(groups)),
        mean=mean,
        freedom=spread.freedom,
    )


def _of_kind(answers: Sequence[Answer], shared: Accuracy) -> Accuracy:
    found = units(answers)
    if shared.groups is None and shared.mean is not None:
        return _mean_credit(found, None)
    mean = None if shared.mean is None else _weighted_mean(found)
    return replace(shared, correct=sum(unit.credit == 1 for unit in found), total=len(found), mean=mean)


def _weighted_mean(found: Sequence[Unit]) -> float:
    return float(np.average([unit.credit for unit in found], weights=[unit.weight for unit in found]))


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
