"""What repetitions of the same questions tell about a mean: one variance model for accuracies, differences, guessing.

A value of question q in repetition s (a seed; later a judge) is x[s, q] = mean + seed[s] + question[q] + rest[s, q].
The mean of all varies with the seeds and the questions that happened to be drawn:

    variance of the mean = MS_seed / n  +  max(0, MS_question - MS_rest) / n,   n = seeds · questions

with the mean squares of the two-way table, of S - 1, Q - 1 and (S - 1)(Q - 1) degrees of freedom. Two intervals are
made of it, and the wider one counts:

- from seeds: the sum above, each part with its own degrees of freedom. Two or three means that lie close together by
  luck make it too narrow.
- the floor: MS_rest in the place of MS_seed, what the means would vary by if seeds did nothing of their own. That is
  known well, from (S - 1)(Q - 1) degrees of freedom.

The critical value of a sum is the mean of its parts' t quantiles, weighted by the parts (Cochran and Cox 1957), which
errs to the wide side. Questions that depend on each other are one unit: Q then counts the units.
`benchmarks/null_simulation.py` holds it against its rivals.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

LEVEL = 0.05
SMALLEST_P = 1e-12


class Table(NamedTuple):
    """One task: the values of each repetition on each independent unit (S × U).

    Their mean is that of all questions; `worth` is what one whole answer to one question is worth in it. So many
    `units` of equal weight would tell as much of the variance.
    """

    values: np.ndarray
    worth: float
    units: float


class Estimate(NamedTuple):
    """A mean with its 95 % interval and the two-sided p value of a mean of 0."""

    mean: float
    low: float
    high: float
    p_value: float


class Part(NamedTuple):
    """A part of the variance of a mean, and its degrees of freedom."""

    variance: float
    freedom: float


class Variance(NamedTuple):
    """The parts of the variance of a mean, from the mean squares of the two-way table.

    `rest` is what neither seeds nor questions explain; it is in the seeds' means too, so a sum has `seeds` or `rest`.
    """

    seeds: Part
    questions: Part
    rest: Part


def table(
    values_SQ: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    answer: float | np.ndarray = 1.0,
    weights: np.ndarray | None = None,
) -> Table:
    """Values by seed and question as a table of units: one for each group of questions that depend on each other.

    A group's value is its questions' sum of deviations from the mean of all, scaled so that groups of different sizes
    give the mean of all questions. `answer` is the least that one question's value can change by, of all or of each.
    With `weights` (positive, of any sum) the mean is the weighted one: each deviation from a seed's mean counts by its
    weight, so that a seed that is better on all questions differs by as much on each.
    """
    values_SQ = np.asarray(values_SQ, dtype=float)
    questions = values_SQ.shape[1]
    shares_Q = np.ones(questions)
    if weights is not None:
        shares_Q = weights / np.mean(weights)
        mean_S1 = np.average(values_SQ, axis=1, weights=weights)[:, None]
        values_SQ = mean_S1 + shares_Q * (values_SQ - mean_S1)
    worth = float(np.mean((answer * shares_Q) ** 2) ** 0.5) / questions  # whichever question it is that changes
    if groups is None:
        return Table(values_SQ, worth, _equal_units(shares_Q))
    names = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    unit_Q = np.array([names[group] for group in groups])
    mean = values_SQ.mean()
    sums_SU = np.array([np.bincount(unit_Q, weights=row) for row in values_SQ - mean])
    units = len(names) if weights is None else _equal_units(np.bincount(unit_Q, weights=shares_Q))
    return Table(mean + sums_SU * (len(names) / questions), worth, units)


def estimate(tables: Sequence[Table]) -> Estimate:
    """The mean over tasks of at least two repetitions, for new repetitions and new questions of the same kind.

    The interval is never narrower than one question a task is worth, so that values that are all alike do not get one
    of no width.
    """
    mean, parts = _mean(tables), variance_of(tables)
    sums = [(parts.seeds, parts.questions), _floor(tables, parts)]
    half = max(_critical(LEVEL, one) * _error(one) for one in sums)
    return Estimate(mean, mean - half, mean + half, max(_p_value(abs(mean), one) for one in sums))


def lower_bound(tables: Sequence[Table]) -> float:
    """The lower end of the 95 % interval for new questions, where repetitions do nothing of their own: the floor."""
    floor = _floor(tables, variance_of(tables))
    return _mean(tables) - _critical(LEVEL, floor) * _error(floor)


def p_of_no_difference(tables: Sequence[Table]) -> float:
    """The two-sided p value of a mean of 0 for new questions only, where repetitions do nothing of their own."""
    return _p_value(abs(_mean(tables)), _floor(tables, variance_of(tables)))


def variance_of(tables: Sequence[Table]) -> Variance:
    """The parts of the variance of the mean over tasks; from one repetition all of it stands under questions."""
    weight = 1 / len(tables)
    seeds = len(tables[0].values)
    units = min(one.units for one in tables)
    of_questions, of_rest = zip(*(_squares(one.values) for one in tables), strict=True)
    means_S = weight * sum(one.values.mean(axis=1) for one in tables)
    return Variance(
        seeds=Part(float(np.var(means_S, ddof=1)) / seeds if seeds > 1 else 0.0, max(1, seeds - 1)),
        questions=Part(weight**2 * sum(of_questions), max(1, units - 1)),
        rest=Part(weight**2 * sum(of_rest), max(1, seeds - 1) * max(1, units - 1)),
    )


def t_quantile(freedom: float, *, level: float = LEVEL) -> float:
    """What |t| exceeds with a probability of `level`."""
    return -float(stdtrit(freedom, level / 2))


def _equal_units(weights: np.ndarray) -> float:
    """How many units of equal weight have as many degrees of freedom (Satterthwaite 1946), if all vary alike."""
    return float(np.sum(weights**2) ** 2 / np.sum(weights**4))


def _mean(tables: Sequence[Table]) -> float:
    return float(np.mean([one.values.mean() for one in tables]))


def _squares(values_SU: np.ndarray) -> tuple[float, float]:
    """What the choice of questions adds to the variance of the mean, and what neither seeds nor questions explain."""
    seeds, units = values_SU.shape
    if units < 2:
        return 0.0, 0.0
    centred_SU = values_SU - values_SU.mean(axis=1, keepdims=True)
    by_unit = centred_SU.mean(axis=0)
    square_question = seeds * float(np.sum(by_unit**2)) / (units - 1)
    if seeds < 2:
        return square_question / units, 0.0
    square_rest = float(np.sum((centred_SU - by_unit) ** 2)) / ((seeds - 1) * (units - 1))
    return max(0.0, square_question - square_rest) / (seeds * units), square_rest / (seeds * units)


def _floor(tables: Sequence[Table], parts: Variance) -> tuple[Part, Part]:
    least = sum((one.worth / len(tables)) ** 2 for one in tables)
    lifted = max(parts.questions.variance, least - parts.rest.variance)
    return parts.rest, parts.questions._replace(variance=lifted)


def _error(parts: Sequence[Part]) -> float:
    return sum(part.variance for part in parts) ** 0.5


def _critical(level: float, parts: Sequence[Part]) -> float:
    whole = sum(part.variance for part in parts)
    if not whole:
        return 0.0
    return sum(part.variance * t_quantile(part.freedom, level=level) for part in parts) / whole


def _p_value(distance: float, parts: Sequence[Part]) -> float:
    """The level at which the critical value is so many standard errors."""
    error = _error(parts)
    if not distance:
        return 1.0
    if not error or distance / error >= _critical(SMALLEST_P, parts):
        return SMALLEST_P
    found: Any = brentq(lambda level: _critical(level, parts) - distance / error, SMALLEST_P, 1.0)
    return float(found)
