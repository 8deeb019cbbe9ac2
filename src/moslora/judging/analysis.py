"""What a study's judgements show: how often each method was preferred, how sure that is, and how far to trust it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from moslora.estimation import Estimate, estimate, holm
from moslora.judging.agreement import alpha, share_alike
from moslora.judging.davidson import Strengths, strengths
from moslora.judging.judgements import Judgement, StudyRecord
from moslora.judging.resampling import DRAWS, Share, shares
from moslora.judging.scores import Scores, all_scores
from moslora.judging.trust import JudgeRecord, Repeats, Sides, judge_records, repeats, sides
from moslora.judging.verdict import of_finding, overall

FEWEST_FOR_DAVIDSON = 3


@dataclass(frozen=True)
class Finding:
    """Two methods on one question, of all pairs or of one subject's.

    `win`, `tie` and `loss` are shares of the judgements, as `first` sees them; `mean` is win - loss, with its 95 %
    interval for new judges and new units (pairs, or prompts of several pairs), its p value, and that adjusted by Holm's
    method: over all of these of whole studies, or all of single subjects. Of one judge or unit there is no interval.
    `for_first` and `for_second` count units by the sign of their mean, `sign_p` tests them against each other.
    """

    question: str
    first: str
    second: str
    subject: str | None
    judges: int
    pairs: int
    units: int
    unit: str
    judgements: int
    win: Share
    tie: Share
    loss: Share
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    for_first: int
    for_second: int
    sign_p: float
    verdict: str = ""


@dataclass(frozen=True)
class Agreement:
    """How far judges agree beyond chance on two methods and a question; None where there is nothing to disagree about.

    Read beside how often two judges gave the same answer (`alike`): where nearly all answers are alike, alpha is near 0
    although judges agree.
    """

    question: str
    first: str
    second: str
    nominal: Share | None
    ordinal: Share | None
    alike: float | None
    ties: float


@dataclass(frozen=True)
class PairRecord:
    """What judges answered to a pair: how many preferred the first method, neither, the second."""

    question: str
    pair: str
    subject: str | None
    prompt: str
    first: str
    second: str
    wins: int
    ties: int
    losses: int

    @property
    def dispute(self) -> float:
        """The share of judges' pairs that preferred opposite methods: 0 if none did, at most about a half."""
        judges = self.wins + self.ties + self.losses
        return self.wins * self.losses / max(1.0, judges * (judges - 1) / 2)


@dataclass(frozen=True)
class Analysis:
    """A whole study: the findings, single subjects, agreement, judges, pairs (most disputed first), and a verdict."""

    methods: tuple[str, ...]
    questions: tuple[str, ...]
    subjects: tuple[str, ...]
    is_closed: bool
    reopened: int
    judgements_per_judge: int
    judges_missing: int  # planned, and not begun
    findings: tuple[Finding, ...]
    by_subject: tuple[Finding, ...]
    strengths: tuple[Strengths, ...]
    agreement: tuple[Agreement, ...]
    judges: tuple[JudgeRecord, ...]
    sides: Sides
    repeats: Repeats
    pairs: tuple[PairRecord, ...]
    verdict: str = ""


def analyse(study: StudyRecord, *, baseline: str | None = None, draws: int = DRAWS) -> Analysis:
    """What the study shows, `draws` bootstrap draws for each interval of shares; the same each time.

    With a `baseline` every method is compared with it alone. Raises ConfigError for a method that is not in the study.
    """
    found = list(all_scores(study, baseline=baseline))
    singles = [part for one in found for part in _by_subject(one, study.subjects)]
    judges = judge_records(study)
    result = Analysis(
        methods=study.methods,
        questions=study.questions,
        subjects=study.subjects,
        is_closed=study.is_closed,
        reopened=study.reopened,
        judgements_per_judge=study.pairs_planned * len(study.questions),
        judges_missing=max(0, study.judges_planned - len(study.judges)),
        findings=_adjusted([_finding(one, draws=draws) for one in found]),
        by_subject=_adjusted([_finding(one, subject=one.subjects[0], draws=draws) for one in singles]),
        strengths=_strengths(study),
        agreement=tuple(_agreement(one, draws=draws) for one in found),
        judges=judges,
        sides=sides(study.judgements),
        repeats=repeats(study.judgements),
        pairs=_pairs(study),
    )
    return replace(result, verdict=overall(result))


def score_estimate(scores: Scores) -> Estimate | None:
    """The mean of win - loss with its interval for new judges and new units; None of one judge or one unit."""
    if len(scores.judges) < 2 or len({*scores.units}) < 2:
        return None
    found = estimate([scores.table()])
    return found._replace(low=max(-1.0, found.low), high=min(1.0, found.high))


def sign_test(scores: Scores) -> tuple[int, int, float]:
    """Units in which the first, and the second, method was preferred on the mean, and the p value of a fair coin.

    Judges of one pair see the same two answers, so the judgements themselves are no independent tosses. It is for these
    judges: what tastes they happen to share shifts all units, and counts as a difference here.
    """
    values = np.where(np.isnan(scores.values), 0, scores.values).sum(axis=0)
    totals = np.bincount(scores.unit_of_pair, weights=values)
    first, second = int((totals > 0).sum()), int((totals < 0).sum())
    return first, second, float(binomtest(first, first + second).pvalue) if first + second else 1.0


def _finding(scores: Scores, *, subject: str | None = None, draws: int) -> Finding:
    found = score_estimate(scores)
    win, tie, loss = shares(scores.counts(), draws=draws)
    for_first, for_second, sign_p = sign_test(scores)
    return Finding(
        question=scores.question,
        first=scores.first,
        second=scores.second,
        subject=subject,
        judges=len(scores.judges),
        pairs=len(scores.pairs),
        units=len({*scores.units}),
        unit=scores.unit,
        judgements=int(np.count_nonzero(~np.isnan(scores.values))),
        win=win,
        tie=tie,
        loss=loss,
        mean=win.value - loss.value,
        low=found.low if found else None,
        high=found.high if found else None,
        p_value=found.p_value if found else None,
        p_adjusted=None,
        for_first=for_first,
        for_second=for_second,
        sign_p=sign_p,
    )


def _adjusted(findings: list[Finding]) -> tuple[Finding, ...]:
    """The findings with their p values adjusted for their number, and their verdicts."""
    tested = {place: one.p_value for place, one in enumerate(findings) if one.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = (replace(one, p_adjusted=adjusted.get(place)) for place, one in enumerate(findings))
    return tuple(replace(one, verdict=of_finding(one)) for one in found)


def _by_subject(scores: Scores, subjects: Iterable[str]) -> list[Scores]:
    """The scores of each subject, if there are several."""
    found = [scores.of_subject(subject) for subject in subjects]
    return [one for one in found if one is not None] if len(found) > 1 else []


def _strengths(study: StudyRecord) -> tuple[Strengths, ...]:
    if len(study.methods) < FEWEST_FOR_DAVIDSON:
        return ()
    by_question: dict[str, list[Scores]] = {}
    for one in all_scores(study):
        by_question.setdefault(one.question, []).append(one)
    return tuple(strengths(found, study.methods) for found in by_question.values())


def _agreement(scores: Scores, *, draws: int) -> Agreement:
    values, unit_P = scores.values, scores.unit_of_pair
    return Agreement(
        question=scores.question,
        first=scores.first,
        second=scores.second,
        nominal=alpha(values, "nominal", unit_of_pair=unit_P, draws=draws),
        ordinal=alpha(values, "ordinal", unit_of_pair=unit_P, draws=draws),
        alike=share_alike(values),
        ties=float(np.mean(values[~np.isnan(values)] == 0)),
    )


def _pairs(study: StudyRecord) -> tuple[PairRecord, ...]:
    answers: dict[tuple[str, str, str, str], list[Judgement]] = {}
    for one in study.judgements:
        if one.check is None:
            answers.setdefault((one.question, one.pair, one.first, one.second), []).append(one)
    records = [
        PairRecord(
            question=question,
            pair=pair,
            subject=given[0].subject,
            prompt=given[0].prompt,
            first=first,
            second=second,
            wins=sum(one.outcome == "first" for one in given),
            ties=sum(one.outcome == "tie" for one in given),
            losses=sum(one.outcome == "second" for one in given),
        )
        for (question, pair, first, second), given in answers.items()
    ]
    return tuple(sorted(records, key=lambda one: (-one.dispute, one.ties, one.pair)))
