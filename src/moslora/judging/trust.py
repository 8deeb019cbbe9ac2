"""What speaks for and against each judge: checks passed, repeats answered alike, sides favoured, time taken.

Sides are drawn, so without a habit of a judge's the left answer is preferred as often as the right one among answers
that are no ties, whatever the methods: a binomial test. Questions about one pair share its sides, so a showing counts
once, for the side that more of its questions favour.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from scipy.stats import binomtest

from moslora.estimation import holm
from moslora.judging.judgements import Judgement, StudyRecord


@dataclass(frozen=True)
class Repeats:
    """Answers to pairs shown again with the sides swapped: how many, how many the same, how many the opposite."""

    asked: int
    same: int
    opposite: int


@dataclass(frozen=True)
class Sides:
    """Showings in which the left, or the right, answer was preferred, and the p value of no habit (for judges, Holm's).

    None without any.
    """

    left: int
    right: int
    p_value: float | None


@dataclass(frozen=True)
class JudgeRecord:
    """One judge: judgements given and missing, checks failed and shown, repeats, sides, median seconds for a pair."""

    judge: str
    judgements: int
    missing: int
    checks_failed: int
    checks: int
    repeats: Repeats
    sides: Sides
    median_seconds: float | None


def judge_records(study: StudyRecord) -> tuple[JudgeRecord, ...]:
    """What is known of each judge. `missing` counts against what each was to answer."""
    whole = study.pairs_planned * len(study.questions)
    by_judge = {judge: [one for one in study.judgements if one.judge == judge] for judge in study.judges}
    habits = {judge: sides(given) for judge, given in by_judge.items()}
    tested = {judge: found.p_value for judge, found in habits.items() if found.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return tuple(
        _record(judge, given, whole, Sides(habits[judge].left, habits[judge].right, adjusted.get(judge)))
        for judge, given in by_judge.items()
    )


def sides(judgements: Iterable[Judgement]) -> Sides:
    """How often left and right were preferred; checks are left out."""
    balance: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for one in judgements:
        if one.check is None and one.outcome != "tie":
            preferred = one.first if one.outcome == "first" else one.second
            balance[one.judge, one.pair, one.first, one.second] += 1 if preferred == one.left else -1
    left = sum(value > 0 for value in balance.values())
    right = sum(value < 0 for value in balance.values())
    return Sides(left, right, float(binomtest(left, left + right).pvalue) if left + right else None)


def repeats(judgements: Sequence[Judgement]) -> Repeats:
    """How answers to swapped repeats compare with the first ones."""
    first = {_place(one): one.outcome for one in judgements if one.check is None}
    pairs = [(first[_place(one)], one.outcome) for one in judgements if one.check == "swapped" and _place(one) in first]
    same = sum(before == after for before, after in pairs)
    return Repeats(len(pairs), same, sum({*both} == {"first", "second"} for both in pairs))


def _record(judge: str, given: Sequence[Judgement], whole: int, habit: Sides) -> JudgeRecord:
    counted = [one for one in given if one.check is None]
    same: dict[tuple[str, str, str, str], bool] = defaultdict(bool)
    for one in given:
        if one.check == "same":
            same[one.pair, one.first, one.second, one.left] |= one.outcome != "tie"
    seconds = {(one.pair, one.first, one.second): one.seconds for one in counted}
    return JudgeRecord(
        judge=judge,
        judgements=len(counted),
        missing=max(0, whole - len(counted)),
        checks_failed=sum(same.values()),
        checks=len(same),
        repeats=repeats(given),
        sides=habit,
        median_seconds=median(seconds.values()) if seconds else None,
    )


def _place(one: Judgement) -> tuple[str, str, str, str, str]:
    return one.judge, one.pair, one.question, one.first, one.second
