"""One strength a method from all pairs of three methods and more: Davidson's model (1970), Bradley-Terry with ties.

    P(i preferred) : P(tie) : P(j preferred)  =  exp(s_i) : ν exp((s_i + s_j) / 2) : exp(s_j),     Σ s = 0

Fitted by penalised likelihood: half a squared strength in units of `SPREAD`, so that a method which is never preferred
keeps a finite one. Two methods need no model: the strengths would only repeat how many wins there are for a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize

from moslora.judging.resampling import SEED, Share, interval, resampled
from moslora.judging.scores import Scores

SPREAD = 3.0  # a weak pull: odds of 20 to 1 between two methods cost as much as half an answer
DRAWS = 400
OUTCOMES = 3  # first, tie, second


@dataclass(frozen=True)
class Strengths:
    """The strengths of methods on one question, on the scale of log odds around 0, and the weight ν of ties."""

    question: str
    methods: tuple[str, ...]
    strengths: tuple[Share, ...]
    ties: float


def strengths(found: Sequence[Scores], methods: Sequence[str], *, draws: int = DRAWS, seed: int = SEED) -> Strengths:
    """The strengths of three methods or more from the scores of one question, one for each two methods.

    Intervals are for new judges and new units: both are drawn anew and the model is fitted again (pigeonhole
    bootstrap). A unit is drawn with all pairs of methods that were judged in it.
    """
    pairs = list(combinations(range(len(methods)), 2))
    counts = _counts(found, methods, pairs)
    best, ties = fit(counts.sum(axis=(2, 3)), pairs, methods=len(methods))
    question, fewest = found[0].question, min(counts.shape[2:])
    if fewest < 2:
        return Strengths(question, tuple(methods), tuple(Share(float(one)) for one in best), ties)
    drawn = resampled(counts.reshape(-1, *counts.shape[2:]), draws=draws, seed=seed)
    start = np.append(best, np.log(ties))
    fits = [fit(one.reshape(len(pairs), OUTCOMES), pairs, methods=len(methods), start=start)[0] for one in drawn]
    low, high = interval(np.array(fits), fewest=fewest)
    ends = zip(best, low, high, strict=True)
    return Strengths(question, tuple(methods), tuple(Share(float(one), float(a), float(b)) for one, a, b in ends), ties)


def fit(
    counts_K3: np.ndarray, pairs: Sequence[tuple[int, int]], *, methods: int, start: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """The strengths and ν from the counts of first, tie and second of each two methods (numbers from 0).

    `start` is a guess of the strengths and log ν.
    """
    first, second = np.array(pairs).T
    design = np.zeros((len(pairs), OUTCOMES, methods + 1))  # the exponents are linear in the strengths and log ν
    rows = np.arange(len(pairs))
    design[rows, 0, first] = design[rows, 2, second] = design[:, 1, methods] = 1
    design[rows, 1, first] = design[rows, 1, second] = 0.5

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        exponents = design @ parameters
        top = exponents.max(axis=1, keepdims=True)
        weights = np.exp(exponents - top)
        whole = weights.sum(axis=1, keepdims=True)
        logs = exponents - top - np.log(whole)
        expected = counts_K3.sum(axis=1, keepdims=True) * weights / whole
        gradient = np.tensordot(expected - counts_K3, design, axes=2) + parameters / SPREAD**2
        return float(-np.sum(counts_K3 * logs) + np.sum(parameters**2) / (2 * SPREAD**2)), gradient

    found = minimize(loss, np.zeros(methods + 1) if start is None else start, jac=True, method="BFGS").x
    return found[:-1] - found[:-1].mean(), float(np.exp(found[-1]))


def _counts(found: Sequence[Scores], methods: Sequence[str], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """How often each judge gave each outcome in each unit, for each two methods (pairs × 3 × J × U)."""
    judges = list(dict.fromkeys(judge for one in found for judge in one.judges))
    units = list(dict.fromkeys(unit for one in found for unit in one.units))
    counts = np.zeros((len(pairs), OUTCOMES, len(judges), len(units)))
    by_methods = {(one.first, one.second): one for one in found}
    for number, (first, second) in enumerate(pairs):
        one = by_methods.get((methods[first], methods[second]))
        if one is None:
            other = by_methods.get((methods[second], methods[first]))
            one = other.turned() if other else None
        if one is not None:
            rows = [judges.index(judge) for judge in one.judges]
            columns = [units.index(unit) for unit in dict.fromkeys(one.units)]
            counts[number][:, np.array(rows)[:, None], np.array(columns)] = one.counts()
    return counts
