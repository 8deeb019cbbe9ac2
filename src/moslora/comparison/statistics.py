"""What several seeds on the same questions allow to be said about methods: accuracies, differences, and guessing.

All three come from one variance model (`moslora.estimation`), for new seeds and new questions of the same kind. Arms
are compared on the same questions and seeds, so a difference is taken answer by answer. A paired t-test of the seeds'
means would see the seeds only: what these questions happen to favour never averages out over seeds, and would be
claimed as a difference of the methods. A question is here what is scored as one, and may be worth a part.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from moslora.comparison.verdict import AVERAGE, NO_DOUBTS, Doubts, of_difference, of_one_seed, of_one_seed_in_parts
from moslora.errors import CheckpointError
from moslora.estimation import Estimate, Table, estimate, holm, lower_bound, p_of_no_difference, table
from moslora.evaluation.recording import units_of
from moslora.records import Difference, Scored, TaskResult

Scores = Mapping[str, Mapping[int, Mapping[str, np.ndarray]]]  # arm, seed, task: the credit of each question, 0 to 1

Groups = Sequence[Hashable] | None


class Questions(NamedTuple):
    """What is known of a task's questions, in their order: which depend on each other, and what guessing gets right."""

    number: int
    groups: Groups = None  # the group of each; None where each stands alone
    chance: np.ndarray | None = None  # what guessing gets of each, 0 to 1; None where it is not known
    weights: np.ndarray | None = None  # how much each counts; None where all count alike
    steps: np.ndarray | None = None  # the least that each one's credit can change by; None where it is right or wrong
    scored: Scored | None = None  # for the record; None where there is nothing to say

    @property
    def mean_chance(self) -> float | None:
        """What guessing gets of all of them."""
        return None if self.chance is None else float(np.average(self.chance, weights=self.weights))

    @property
    def guess(self) -> np.ndarray:
        """What a diverged run counts as: what guessing gets, where that is known, else nothing."""
        return np.zeros(self.number) if self.chance is None else self.chance

    def table(self, values_SQ: np.ndarray) -> Table:
        """Values by seed and question as a table for the variance model."""
        answer = 1.0 if self.steps is None else self.steps
        return table(values_SQ, self.groups, answer=answer, weights=self.weights)


def compare_arms(
    scores: Scores,
    *,
    baseline: str | Mapping[str, str],
    tasks: Sequence[str],
    questions: Mapping[str, Questions] | None = None,
    doubts: Doubts = NO_DOUBTS,
) -> tuple[dict[str, dict[str, TaskResult]], list[Difference]]:
    """Each arm's accuracy by task and on "average", and its difference to the baseline on each of these.

    `baseline` is one arm's label, or a label for each arm that is to be compared. Arms are paired over the seeds both
    have; an arm that has none in common with its baseline has no difference. The p values are Holm-adjusted: those of
    the average over its arms, those of single tasks over all arms and tasks together. `doubts` says by arm what makes
    the choice of its learning rate uncertain, for the verdicts. Raises `CheckpointError` if a task is missing from a
    run or has another number of questions there.
    """
    if not tasks:  # held-out samples alone
        return {}, []
    counts = _check(scores, tasks)
    known = {task: (questions or {}).get(task) or Questions(counts.get(task, 0)) for task in tasks}
    results = {arm: _task_results(by_seed, known) for arm, by_seed in scores.items() if by_seed}
    pairs = dict.fromkeys(scores, baseline) if isinstance(baseline, str) else dict(baseline)
    pairs = {arm: other for arm, other in pairs.items() if arm != other and arm in scores and other in scores}
    differences: list[Difference] = []
    for family in (tasks, [AVERAGE]):
        found = {
            (task, arm): _paired(scores[arm], scores[other], known if task == AVERAGE else {task: known[task]})
            for task in family
            for arm, other in pairs.items()
        }
        found = {key: tables for key, tables in found.items() if tables}
        estimates = {key: estimate(tables) for key, tables in found.items() if _seeds(tables) > 1}
        adjusted = dict(zip(estimates, holm([e.p_value for e in estimates.values()]), strict=True))
        for (task, arm), tables in found.items():
            start = {"arm": arm, "baseline": pairs[arm], "task": task, "seeds": _seeds(tables)}
            difference = _difference(start, tables, estimates.get((task, arm)), adjusted.get((task, arm)))
            if difference.p_value is None:
                asked = known if task == AVERAGE else {task: known[task]}
                difference.verdict = _one_seed(scores, difference, tables, asked)
            else:
                difference.verdict = of_difference(difference, doubts=doubts)
            differences.append(difference)
    return results, differences


def is_above_chance(
    right: Sequence[np.ndarray],
    chance: float | np.ndarray,
    *,
    groups: Groups = None,
    weights: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> bool:
    """Whether an arm's answers to a task are shown to beat guessing; `right` holds the credit of each, by seed.

    `chance` is what guessing gets, of all questions or of each; the rest is as in `Questions`. Guesses have nothing to
    do with the questions, so a seed that guesses has no accuracy of its own: only the questions are to be allowed for,
    and what a seed does to each. At most 2.5 % of the arms that guess pass.
    """
    asked = Questions(len(right[0]), groups, weights=weights, steps=steps)
    return lower_bound([asked.table(np.stack([*right]) - chance)]) > 0


def _check(scores: Scores, tasks: Sequence[str]) -> dict[str, int]:
    """How many questions each task has."""
    known: dict[str, int] = {}
    for arm, by_seed in scores.items():
        for seed, by_task in by_seed.items():
            for task in tasks:
                if task not in by_task:
                    raise CheckpointError(f"{arm}, seed {seed} was not scored on {task}; score every run on every task")
                count = known.setdefault(task, len(by_task[task]))
                if len(by_task[task]) != count or not count:
                    raise CheckpointError(
                        f"{arm}, seed {seed} has {len(by_task[task])} answers to {task}, another run has {count}; "
                        "score every run on the same questions"
                    )
    return known


def _task_results(
    by_seed: Mapping[int, Mapping[str, np.ndarray]], questions: Mapping[str, Questions]
) -> dict[str, TaskResult]:
    seeds = sorted(by_seed)
    tables = {task: own.table(np.stack([by_seed[seed][task] for seed in seeds])) for task, own in questions.items()}
    return {
        **{task: _task_result(seeds, [one]) for task, one in tables.items()},
        AVERAGE: _task_result(seeds, [*tables.values()]),
    }


def _task_result(seeds: Sequence[int], tables: Sequence[Table]) -> TaskResult:
    """An accuracy with its interval, cut to what is possible."""
    means = np.mean([one.values.mean(axis=1) for one in tables], axis=0)
    found = estimate(tables) if len(seeds) > 1 else None
    return TaskResult(
        mean=_within(float(means.mean()), 0),
        low=None if found is None else _within(found.low, 0),
        high=None if found is None else _within(found.high, 0),
        per_seed={str(seed): _within(float(mean), 0) for seed, mean in zip(seeds, means, strict=True)},
    )


def _paired(
    first: Mapping[int, Mapping[str, np.ndarray]],
    second: Mapping[int, Mapping[str, np.ndarray]],
    questions: Mapping[str, Questions],
) -> list[Table]:
    """A table of differences for each task over the seeds both have; empty if they share none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return []
    return [
        own.table(np.stack([first[s][task].astype(float) - second[s][task].astype(float) for s in seeds]))
        for task, own in questions.items()
    ]


def _seeds(tables: Sequence[Table]) -> int:
    return len(tables[0].values)


def _difference(
    start: dict[str, Any], tables: list[Table], found: Estimate | None, adjusted: float | None
) -> Difference:
    """A difference without its verdict; its interval is cut to -100 … 100 points."""
    if found is None:
        return Difference(**start, mean=float(np.mean([one.values.mean() for one in tables])), verdict="")
    low, high = _within(found.low, -1), _within(found.high, -1)
    return Difference(
        **start, mean=found.mean, low=low, high=high, p_value=found.p_value, p_adjusted=adjusted, verdict=""
    )


def _one_seed(
    scores: Scores, difference: Difference, tables: Sequence[Table], questions: Mapping[str, Questions]
) -> str:
    """The verdict on a pair of runs: how many questions only one of them got right, and what that is worth."""
    arms = difference.arm, difference.baseline
    first, second = (scores[arm] for arm in arms)
    (seed,) = first.keys() & second.keys()
    gaps = np.concatenate([first[seed][task] - second[seed][task].astype(float) for task in questions])
    p_value = p_of_no_difference(tables)
    if all(own.steps is None for own in questions.values()):
        if not np.isin(gaps, (-1, 0, 1)).all():  # a diverged run counts as guessing
            return f"one seed, at which {difference.arm} or {difference.baseline} diverged: cannot tell"
        counts = int((gaps > 0).sum()), int((gaps < 0).sum())
        units = units_of([own.scored for own in questions.values()])
        return of_one_seed(*counts, p_value, baseline=difference.baseline, units=units)
    if any(all(np.array_equal(scores[arm][seed][task], own.guess) for task, own in questions.items()) for arm in arms):
        return f"one seed, at which {difference.arm} or {difference.baseline} got what guessing gets: cannot tell"
    return of_one_seed_in_parts(p_value)


def _within(value: float, lowest: float) -> float:
    return min(1.0, max(lowest, value))
