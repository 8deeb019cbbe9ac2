"""Interleaved timing: every round runs each candidate once, in a new order, and ratios are taken within a round."""

import random
import time
from collections.abc import Callable, Mapping
from statistics import median

from rich.console import Console
from rich.progress import track

ROUNDS = 9


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, what: str, rounds: int = ROUNDS, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    shuffled, generator = list(candidates), random.Random(0)
    for number in track(range(warm_up + rounds), description=what, console=Console(stderr=True)):
        generator.shuffle(shuffled)
        for name in shuffled:
            started = time.perf_counter()
            candidates[name]()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, against: str) -> tuple[float, float, float]:
    """The median, smallest and largest ratio within rounds."""
    ratios = [one / other for one, other in zip(seconds[name], seconds[against], strict=True)]
    return median(ratios), min(ratios), max(ratios)
