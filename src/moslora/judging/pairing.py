"""Which pairs a judge is shown, in which order, and which method stands left.

All judges see all pairs, each in an order of their own. A judge sees each method left as often as right (within one),
in each subject too; the next judge sees every pair the other way round, so that each pair is balanced as well. Checks
stand between: repeats with the sides swapped, well after the first time, and pairs of one answer with itself.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, cycle
from typing import Literal

FEWEST_PAIRS_WITH_CHECKS = 8
PAIRS_A_CHECK = 16


@dataclass(frozen=True)
class Showing:
    """One page of a judge: an item, the two methods in the study's order, and those that stand left and right.

    They are numbers, places in the study's lists. In a check "same" one method's answer stands on both sides.
    """

    item: int
    first: int
    second: int
    left: int
    right: int
    check: Literal["same", "swapped"] | None = None


def default_checks(pairs: int) -> int:
    """How many checks of each kind go with so many pairs."""
    return 0 if pairs < FEWEST_PAIRS_WITH_CHECKS else max(1, pairs // PAIRS_A_CHECK)


def pairs_of(items: int, methods: int) -> int:
    """How many pairs so many items and methods make."""
    return items * methods * (methods - 1) // 2


def showings(
    subjects: Sequence[str | None], methods: int, *, judge: int, seed: str, same: int = 0, swapped: int = 0
) -> list[Showing]:
    """The pages of judge number `judge` (from 0); `subjects` has that of each item, and `seed` is the study's secret.

    At most half as many repeats as there are pairs are shown.
    """
    chance = random.Random(f"{seed}/order/{judge}")
    order = _sided(subjects, methods, random.Random(f"{seed}/sides/{judge // 2}"), is_turned=judge % 2 == 1)
    chance.shuffle(order)
    whole = list(order)
    for one in chance.sample(order[: len(order) // 2], min(swapped, len(order) // 2)):
        soonest = min(whole.index(one) + 1 + len(order) // 3, len(whole))
        again = replace(one, left=one.right, right=one.left, check="swapped")
        whole.insert(chance.randint(soonest, len(whole)), again)
    for one in chance.sample(order, min(same, len(order))):
        shown = chance.choice((one.first, one.second))
        whole.insert(chance.randint(1, len(whole)), replace(one, left=shown, right=shown, check="same"))
    return whole


def _sided(subjects: Sequence[str | None], methods: int, chance: random.Random, *, is_turned: bool) -> list[Showing]:
    """Every pair once. The sides alternate along the methods and subjects, so that all of these are balanced."""
    keyed = [
        (first, second, subjects[item] or "", chance.random(), item)
        for first, second in combinations(range(methods), 2)
        for item in range(len(subjects))
    ]
    sides = cycle((True, False) if (chance.random() < 0.5) != is_turned else (False, True))
    return [
        Showing(item, first, second, *((first, second) if is_first_left else (second, first)))
        for (first, second, _, _, item), is_first_left in zip(sorted(keyed), sides, strict=False)
    ]
