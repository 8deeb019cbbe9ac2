"""The choice of a learning rate among a few, on noisy validation losses, as part of the null simulation.

A method's latent level falls with the square of the distance of its rate from the best one, which lies at the same
place for both methods. Each tries every rate once, with one seed; the lowest mean loss on the validation samples wins.
After a part of the steps the best rate may seem to lie elsewhere, for one of the methods only.
"""

from typing import NamedTuple

import numpy as np

from moslora.estimation import LEVEL, p_of_no_difference, table

SAMPLES = 200
SEED = 0.1  # what a seed does to a tuning run's level
SAMPLE, RATE_SAMPLE = 2.0, 0.5  # what a sample's loss varies by: for all rates, for each


class Tuning(NamedTuple):
    """Rates are numbered in grid steps around 0; the best one lies within `spread` of it.

    `fall` is the latent level lost one grid step from the best rate; `shift` how many steps higher one of the methods'
    best rate seems to lie while it is tuned.
    """

    name: str
    rates: int = 3
    fall: float = 0.3
    spread: float = 0.5
    shift: float = 0.0


TUNINGS = [
    Tuning("one rate, the best", rates=1, spread=0.0),
    Tuning("three rates, a flat best"),
    Tuning("three rates, a sharp best", fall=1.0),
    Tuning("three rates, the best may lie outside", spread=1.5),
    Tuning("tuned after a part of the steps, one method slower", shift=1.0),
    Tuning("the same, a sharp best", shift=1.0, fall=1.0),
]


class Tuned(NamedTuple):
    """The latent levels at the rates chosen (comparisons × 2), and whether the verdict says a doubt about a rate."""

    levels: np.ndarray
    is_doubted: np.ndarray


def tuned(tuning: Tuning, *, comparisons: int, level: float, rng: np.random.Generator) -> Tuned:
    """Choose each method's rate in each comparison."""
    rates = np.arange(tuning.rates) - (tuning.rates - 1) / 2
    best = rng.uniform(-tuning.spread, tuning.spread, comparisons)
    levels, doubts = [], []
    for shift in (0.0, tuning.shift):
        seeming = level - tuning.fall * (rates - best[:, None] - shift) ** 2
        losses = _losses(seeming + SEED * rng.standard_normal(seeming.shape), rng)
        chosen = losses.mean(axis=2).argmin(axis=1)
        levels.append(level - tuning.fall * (rates[chosen] - best) ** 2)
        doubts.append([_is_doubted(one, number) for one, number in zip(losses, chosen, strict=True)])
    return Tuned(np.stack(levels, axis=1), np.any(doubts, axis=0))


def _losses(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The loss of each validation sample: comparisons × rates × samples."""
    comparisons, rates = levels.shape
    latent = levels[:, :, None] + SAMPLE * rng.standard_normal((comparisons, 1, SAMPLES))
    return np.logaddexp(0, -(latent + RATE_SAMPLE * rng.standard_normal((comparisons, rates, SAMPLES))))


def _is_doubted(losses: np.ndarray, chosen: int) -> bool:
    """Whether the verdict says that the rate lies at an edge, or is not told apart from another."""
    if len(losses) == 1:
        return False
    gaps = [losses[chosen] - other for number, other in enumerate(losses) if number != chosen]
    is_alike = any(p_of_no_difference([table(gap[None], answer=0.0)]) >= LEVEL for gap in gaps)
    return is_alike or chosen in (0, len(losses) - 1)
