"""What repetitions of the same questions tell about a mean: one variance model for accuracies, differences, guessing.

A value of question q in repetition s (a seed, or a judge) is x[s, q] = mean + seed[s] + question[q] + rest[s, q].
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

Where repetitions lack questions (a judge who stopped early), the parts of the variance come from the reductions of the
sum of squares by least squares (Henderson's method 3, 1953) and count by how often each seed and question is in the
mean; without gaps that is the table above. `benchmarks/null_simulation.py` and `benchmarks/judging_simulation.py` hold
the estimator against the truth.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

LEVEL = 0.05
SMALLEST_P = 1e-12


class Table(NamedTuple):
    """One task: the values of each repetition on each independent unit (S × U), NaN where there is none.

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
    weight, so that a seed that is better on all questions differs by as much on each. Without weights values may be
    missing (NaN): the mean is that of those there are.
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
    mean, is_there = np.nanmean(values_SQ), ~np.isnan(values_SQ)
    sums_SU = np.array([np.bincount(unit_Q, weights=row) for row in np.where(is_there, values_SQ - mean, 0)])
    counts_SU = np.array([np.bincount(unit_Q, weights=row) for row in is_there])
    values_SU = mean + sums_SU * (np.count_nonzero(counts_SU) / np.count_nonzero(is_there))
    units = len(names) if weights is None else _equal_units(np.bincount(unit_Q, weights=shares_Q))
    return Table(np.where(counts_SU, values_SU, np.nan), worth, units)


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
    """The parts of the variance of the mean over tasks; from one repetition all of it stands under questions.

    Raises `ValueError` for values missing from one of several tasks.
    """
    if any(np.isnan(one.values).any() for one in tables):
        return _with_gaps(tables)
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


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for their number by Holm's step-down method (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def t_quantile(freedom: float, *, level: float = LEVEL) -> float:
    """What |t| exceeds with a probability of `level`."""
    return -float(stdtrit(freedom, level / 2))


def _equal_units(weights: np.ndarray) -> float:
    """How many units of equal weight have as many degrees of freedom (Satterthwaite 1946), if all vary alike."""
    return float(np.sum(weights**2) ** 2 / np.sum(weights**4))


def _mean(tables: Sequence[Table]) -> float:
    return float(np.mean([np.nanmean(one.values) for one in tables]))


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


def _with_gaps(tables: Sequence[Table]) -> Variance:
    """The parts for a table of at least two repetitions with missing values: by least squares, seeds and units crossed.

    What seeds leave over once units are allowed for, and the other way round, has an expectation of the two variances
    by the numbers of values; a mean varies with each by the squares of how often each seed and unit is in it.
    """
    if len(tables) > 1:
        raise ValueError("values are missing from one of several tasks; estimate each task on its own")
    values_SU = tables[0].values
    is_there = ~np.isnan(values_SU)
    total, of_seed, of_unit = int(is_there.sum()), is_there.sum(axis=1), is_there.sum(axis=0)
    residuals_SU = np.where(is_there, values_SU - np.nanmean(values_SU), 0)
    sums = np.concatenate([residuals_SU.sum(axis=1), residuals_SU.sum(axis=0)])
    normal = np.block([[np.diag(of_seed), is_there], [is_there.T, np.diag(of_unit)]]).astype(float)
    rank = int(np.linalg.matrix_rank(normal, hermitian=True))
    fitted = float(sums @ np.linalg.pinv(normal, hermitian=True) @ sums)
    seeds = len(of_seed)
    by_seed, by_unit = float(sums[:seeds] ** 2 @ (1 / of_seed)), float(sums[seeds:] ** 2 @ (1 / of_unit))
    freedom = int(total - rank)
    rest = max(0.0, float(np.sum(residuals_SU**2)) - fitted) / freedom if freedom else 0.0
    unit = (fitted - by_seed - (rank - seeds) * rest) / max(1, total - seeds)
    seed = (fitted - by_unit - (rank - len(of_unit)) * rest) / max(1, total - len(of_unit))
    of_seeds = max(0.0, seed * float(np.sum((of_seed / total) ** 2)) + rest / total)
    if not freedom:  # no two seeds share two units: what units do to the seeds' means counts as the seeds' own
        of_seeds = seeds / (seeds - 1) * float(np.sum((sums[:seeds] / total) ** 2))
    return Variance(
        seeds=Part(of_seeds, max(1.0, _equal_units(of_seed) - 1)),
        questions=Part(max(0.0, unit) * float(np.sum((of_unit / total) ** 2)), max(1.0, _equal_units(of_unit) - 1)),
        rest=Part(rest / total, max(1, freedom)),
    )


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
