"""What a study can show before anyone is asked: the difference that so many judges and pairs find, by simulation.

A judge's preference is latent: what the first method gains, what the judge and the pair add, and the rest, normal with
a variance of 1 together; above a threshold it is a win, below its negative a loss, between a tie. The shares of that
variance are assumptions: no study of this kind that we know of publishes its own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from moslora.errors import ConfigError
from moslora.estimation import LEVEL, estimate
from moslora.files import cache_folder, write_atomically
from moslora.judging.pairing import default_checks, pairs_of
from moslora.judging.scores import answers_table

POWER = 0.8  # of studies that are to show a difference
STUDIES, SEED = 300, 0  # 300 studies tell a power of 80 % to within 5 points
RESOLUTION = 0.01
MOST_JUDGES, MOST_PAIRS = 200, 2000


@dataclass(frozen=True)
class Assumptions:
    """Shares of the latent variance that pairs and judges have, and the share of ties where there is no difference.

    Raises ConfigError for shares that cannot be.
    """

    of_pairs: float = 0.3
    of_judges: float = 0.05
    ties: float = 0.5

    def __post_init__(self) -> None:
        if not (self.of_pairs >= 0 and self.of_judges >= 0 and self.of_pairs + self.of_judges < 1):
            raise ConfigError(
                f"pairs and judges cannot have {self.of_pairs:g} and {self.of_judges:g} of the variance; give shares of"
                " at least 0 that come to less than 1 together"
            )
        if not 0 <= self.ties < 1:
            raise ConfigError(f"a share of ties of {self.ties:g} is not possible; give one from 0 to below 1")

    @property
    def threshold(self) -> float:
        """The latent preference above which there is no tie."""
        return -float(ndtri((1 - self.ties) / 2))

    def gain(self, shift: float) -> float:
        """Win - loss, as a share, where the latent preference is shifted so far."""
        return float(ndtr(shift - self.threshold) - ndtr(-shift - self.threshold))

    def shift(self, gain: float) -> float:
        """The shift that gives win - loss, -1 to 1 exclusive."""
        found: Any = brentq(lambda shift: self.gain(shift) - gain, -40, 40)
        return float(found)


@dataclass(frozen=True)
class StudyPlan:
    """Which differences (win - loss, as a share) judges × pairs would show in 80 % of studies; None: not even nearly 1.

    `minutes` is what a judge needs for each number of pairs, checks included. `comparisons` is how many differences of
    the study are looked for, for which Holm's method allows.
    """

    judges: tuple[int, ...]
    pairs: tuple[int, ...]
    detectable: tuple[tuple[float | None, ...], ...]
    minutes: tuple[float, ...]
    comparisons: int
    assumptions: Assumptions


def make_plan(
    judges: Sequence[int],
    pairs: Sequence[int],
    *,
    questions: int = 2,
    methods: int = 2,
    seconds: float = 8.0,
    assumptions: Assumptions | None = None,
    studies: int = STUDIES,
) -> StudyPlan:
    """The differences that each number of judges and of pairs (of every two methods) would show; kept in the cache.

    `seconds` is what a judge needs for one question. Raises ConfigError for numbers that make no study.
    """
    _check(judges, pairs, questions=questions, methods=methods, seconds=seconds)
    assumed, two_methods = assumptions or Assumptions(), pairs_of(1, methods)
    comparisons = questions * two_methods
    rows = tuple(
        tuple(_cached(many, shown, assumed, comparisons=comparisons, studies=studies) for shown in pairs)
        for many in judges
    )
    whole = [shown * two_methods for shown in pairs]
    minutes = tuple((one + 2 * default_checks(one)) * questions * seconds / 60 for one in whole)
    return StudyPlan(tuple(judges), tuple(pairs), rows, minutes, comparisons, assumed)


def detectable(
    judges: int, pairs: int, assumptions: Assumptions, *, comparisons: int = 1, studies: int = STUDIES, seed: int = SEED
) -> float | None:
    """The smallest win - loss, as a share, that 80 % of studies show; None if 0.99 is not shown either.

    The p value has to stay below the level even if no other of the `comparisons` shows anything.
    """
    latent = simulated(judges, pairs, assumptions, studies=studies, seed=seed)

    def power(gain: float) -> float:
        values = answers(latent + assumptions.shift(gain), assumptions)
        return float(np.mean([estimate([answers_table(one)]).p_value < LEVEL / comparisons for one in values]))

    low, high = 0.0, 0.99
    if power(high) < POWER:
        return None
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def simulated(judges: int, pairs: int, assumptions: Assumptions, *, studies: int, seed: int = SEED) -> np.ndarray:
    """Latent preferences without a difference of methods, studies × judges × pairs."""
    draw = np.random.default_rng(seed)
    rest = 1 - assumptions.of_pairs - assumptions.of_judges
    return (
        assumptions.of_judges**0.5 * draw.standard_normal((studies, judges, 1))
        + assumptions.of_pairs**0.5 * draw.standard_normal((studies, 1, pairs))
        + rest**0.5 * draw.standard_normal((studies, judges, pairs))
    )


def answers(latent: np.ndarray, assumptions: Assumptions) -> np.ndarray:
    """What is answered to latent preferences: 1, 0 or -1."""
    return (latent > assumptions.threshold).astype(float) - (latent < -assumptions.threshold)


def _cached(judges: int, pairs: int, assumptions: Assumptions, *, comparisons: int, studies: int) -> float | None:
    """What `detectable` finds, from the user's cache folder if it has been asked before by the same program."""
    asked = [judges, pairs, *vars(assumptions).values(), comparisons, studies, SEED, _program()]
    path = cache_folder() / "judge-plans" / f"{sha256(json.dumps(asked).encode()).hexdigest()[:16]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["detectable"]
    except (OSError, ValueError, KeyError, TypeError):  # not asked before, or a file that was cut off
        found = detectable(judges, pairs, assumptions, comparisons=comparisons, studies=studies)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"asked": asked, "detectable": found}))
    except OSError:  # a cache that cannot be written costs time, no more
        return found
    return found


def _program() -> str:
    """What the numbers depend on beside what was asked: the estimator and this file."""
    from moslora import estimation

    texts = [Path(str(file)).read_bytes() for file in (estimation.__file__, __file__)]
    return sha256(b"".join(texts)).hexdigest()[:16]


def _check(judges: Sequence[int], pairs: Sequence[int], *, questions: int, methods: int, seconds: float) -> None:
    for what, given, most in (("judges", judges, MOST_JUDGES), ("pairs", pairs, MOST_PAIRS)):
        wrong = [number for number in given if not 2 <= number <= most]
        if wrong or not given:
            named = ", ".join(map(str, wrong)) or "none"
            raise ConfigError(f"{what}: {named}, allowed: 2 to {most} each, so that intervals can be had")
    if questions < 1 or methods < 2 or not seconds > 0:
        raise ConfigError(
            f"{questions} questions about {methods} methods at {seconds:g} seconds make no study; give at least one"
            " question, two methods and some time"
        )
