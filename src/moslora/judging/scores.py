"""Judgements as numbers: judges × pairs for a question and two methods. Checks are left out."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from moslora.errors import unknown_name
from moslora.estimation import Table, table
from moslora.judging.judgements import Judgement, StudyRecord

VALUES = {"first": 1.0, "tie": 0.0, "second": -1.0}


@dataclass(frozen=True)
class Scores:
    """What judges answered to one question about two methods.

    `values` (judges × pairs) is 1 where a judge preferred `first` in a pair, 0 for a tie, -1 for `second`, NaN where
    nothing was answered; every judge and every pair has an answer. `units` says of each pair which others it depends
    on: those of the same prompt, for which several seeds were drawn.
    """

    question: str
    first: str
    second: str
    judges: tuple[str, ...]
    pairs: tuple[str, ...]
    subjects: tuple[str | None, ...]
    units: tuple[tuple[str | None, str], ...]
    values: np.ndarray

    @property
    def unit(self) -> str:
        """What a unit is called: a prompt, or a pair where all pairs are of one prompt or each has its own."""
        return "pair" if len({*self.units}) == len(self.pairs) else "prompt"

    @property
    def unit_of_pair(self) -> np.ndarray:
        """The number of each pair's unit, from 0."""
        numbers = {unit: number for number, unit in enumerate(dict.fromkeys(self.units))}
        return np.array([numbers[unit] for unit in self.units])

    def table(self) -> Table:
        """The values for the variance model."""
        return answers_table(self.values, self.units)

    def counts(self) -> np.ndarray:
        """How often each judge preferred `first`, neither and `second` in each unit (3 × J × U)."""
        unit_P = self.unit_of_pair
        chosen_3JP = [self.values == value for value in VALUES.values()]
        return np.array([[np.bincount(unit_P, weights=row) for row in chosen] for chosen in chosen_3JP])

    def of_subject(self, subject: str) -> "Scores | None":
        """The pairs of one subject; None where nothing was answered."""
        return self._kept([place for place, one in enumerate(self.subjects) if one == subject])

    def turned(self) -> "Scores":
        """The same with the methods in the other order."""
        return replace(self, first=self.second, second=self.first, values=-self.values)

    def _kept(self, places: Sequence[int]) -> "Scores | None":
        values = self.values[:, places]
        answered_J = np.flatnonzero((~np.isnan(values)).any(axis=1))
        if not len(answered_J):
            return None
        pairs = tuple(self.pairs[place] for place in places)
        return replace(
            self,
            judges=tuple(self.judges[row] for row in answered_J),
            pairs=pairs,
            subjects=tuple(self.subjects[place] for place in places),
            units=_units([(pair, self.units[place]) for pair, place in zip(pairs, places, strict=True)]),
            values=values[answered_J],
        )


def all_scores(study: StudyRecord, *, baseline: str | None = None) -> Iterator[Scores]:
    """The scores of every question and two methods that were judged, in the study's order.

    With a `baseline` every method is compared with it, and it stands second. Raises ConfigError for a method that is
    not in the study.
    """
    if baseline is not None and baseline not in study.methods:
        raise unknown_name("method", baseline, study.methods)
    for question in study.questions:
        for first, second in combinations(study.methods, 2):
            answered = [
                one
                for one in study.judgements
                if one.check is None and (one.question, one.first, one.second) == (question, first, second)
            ]
            if answered and (baseline is None or baseline in (first, second)):
                found = _scores(answered, judges=study.judges)
                yield found.turned() if first == baseline else found


def answers_table(values_JP: np.ndarray, units: Sequence[Hashable] | None = None) -> Table:
    """Answers (1, 0, -1) of judges to pairs for the variance model, judges standing for seeds.

    Judges answer each for themselves, so the least that one pair's value can change by is one answer of each of them,
    in no agreement: 1/√J. Where all answers are alike nothing tells how far judges follow one another: then it is 1.
    """
    are_alike = np.nanmin(values_JP) == np.nanmax(values_JP)
    return table(values_JP, units, answer=1.0 if are_alike else len(values_JP) ** -0.5)


def _scores(answered: Sequence[Judgement], *, judges: Sequence[str]) -> Scores:
    pairs = {one.pair: one for one in sorted(answered, key=lambda one: (one.subject or "", one.pair))}
    present = [judge for judge in judges if any(one.judge == judge for one in answered)]
    values = np.full((len(present), len(pairs)), np.nan)
    row = {judge: number for number, judge in enumerate(present)}
    column = {pair: number for number, pair in enumerate(pairs)}
    for one in answered:
        values[row[one.judge], column[one.pair]] = VALUES[one.outcome]
    return Scores(
        question=answered[0].question,
        first=answered[0].first,
        second=answered[0].second,
        judges=tuple(present),
        pairs=tuple(pairs),
        subjects=tuple(one.subject for one in pairs.values()),
        units=_units([(name, (one.subject, one.prompt or name)) for name, one in pairs.items()]),
        values=values,
    )


def _units(pairs: Sequence[tuple[str, tuple[str | None, str]]]) -> tuple[tuple[str | None, str], ...]:
    """The unit of each pair: its subject and prompt, or the pair itself where all are of one."""
    if len({unit for _, unit in pairs}) > 1:
        return tuple(unit for _, unit in pairs)
    return tuple((unit[0], name) for name, unit in pairs)
