"""Intervals for shares of answers, for new judges and new pairs: the pigeonhole bootstrap (Owen 2007).

Judges and units (pairs, or prompts with their pairs) are drawn with replacement, and an answer counts as often as its
judge times its unit was drawn. With few judges the quantiles of the draws lie too close together: as many standard
errors are taken as Student's t asks for (Hesterberg 2015, "expanded percentiles"), with the degrees of freedom of the
fewer of the two. What nobody or everybody answered has no spread to draw from: it gets the exact binomial interval of
as many tosses as there are units, judges seeing the same.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from moslora.estimation import LEVEL, t_quantile

DRAWS, SEED = 2000, 0


class Share(NamedTuple):
    """A share or another figure with its 95 % interval; None where one judge or one unit cannot give one."""

    value: float
    low: float | None = None
    high: float | None = None


def resampled(counts_KJU: np.ndarray, *, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """The totals of K counts by judge and unit, each time judges and units are drawn anew (draws × K)."""
    _, judges, units = counts_KJU.shape
    generator = np.random.default_rng(seed)
    of_judge = generator.multinomial(judges, np.full(judges, 1 / judges), draws).astype(float)
    of_unit = generator.multinomial(units, np.full(units, 1 / units), draws).astype(float)
    return np.array([((of_judge @ counts) * of_unit).sum(axis=1) for counts in counts_KJU]).T


def shares(counts_KJU: np.ndarray, *, draws: int = DRAWS, seed: int = SEED) -> tuple[Share, ...]:
    """The share of each of K answers among all, with intervals."""
    totals = counts_KJU.sum(axis=(1, 2))
    found = totals / totals.sum()
    if min(counts_KJU.shape[1:]) < 2:
        return tuple(Share(float(value)) for value in found)
    drawn = resampled(counts_KJU, draws=draws, seed=seed)
    drawn = drawn[drawn.sum(axis=1) > 0]
    low, high = interval(drawn / drawn.sum(axis=1, keepdims=True), fewest=min(counts_KJU.shape[1:]))
    rarest = (LEVEL / 2) ** (1 / counts_KJU.shape[2])  # a share below which no toss of all would go the other way
    low, high = np.where(found == 1, rarest, low), np.where(found == 0, 1 - rarest, high)
    return tuple(
        Share(float(value), min(float(a), float(value)), max(float(b), float(value)))
        for value, a, b in zip(found, low, high, strict=True)
    )


def interval(drawn: np.ndarray, *, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95 % interval of what was drawn (along the first axis) from `fewest` things, at least two."""
    tail = float(ndtr(-t_quantile(fewest - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high
