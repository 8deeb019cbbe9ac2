"""What is finished of a comparison: the rows of its table, their scores, and what a reader should know of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moslora.comparison.cost import read_costs
from moslora.comparison.coverage import coverage_notes
from moslora.comparison.execution import DONE, Outcome, outcome
from moslora.comparison.losses import HeldOut, read_held_out
from moslora.comparison.matrix import Arm, Final, Run, final_run
from moslora.comparison.plan import Plan
from moslora.comparison.results import arm_result, guesses, read_questions, read_scores, reference_notes
from moslora.comparison.statistics import Questions
from moslora.comparison.subjects import task_of
from moslora.comparison.tuning import choose, doubts_of
from moslora.records import RESUMED, ArmResult, RunRecord

Scores = dict[str, dict[int, dict[str, np.ndarray]]]  # by arm, seed and task: the credit of each question
BySubject = dict[str | None, dict[str, dict[int, Path]]]  # then by arm and seed: the folder of a run


@dataclass
class Gathered:
    """The table's rows without accuracies, notes, and the folders of runs that finished and of those that diverged."""

    rows: list[ArmResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finished: BySubject = field(default_factory=dict)
    diverged: BySubject = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)  # the tasks of which a loss is measured
    is_complete: bool = True


def gather(plan: Plan, arms: Sequence[Arm], tuning: Sequence[Run], *, folder: Path) -> Gathered:
    """Look at every run that counts."""
    done = Gathered(notes=_option_notes(arms))
    for state in (done.finished, done.diverged):
        state.update({subject: {arm.label: {} for arm in arms} for subject in plan.subject_names})
    records = {arm.label: _add(done, plan, arm, tuning, folder=folder) for arm in arms}
    done.notes += coverage_notes(
        {arm: next((one.coverage for one in own.values()), None) for arm, own in records.items()}
    )
    resumed = [f"{arm} (seed {name})" for arm, own in records.items() for name, one in own.items() if one.resumptions]
    if resumed:
        done.notes.append(f"{RESUMED}: {', '.join(resumed)}")
    every = [one for own in records.values() for one in own.values()]
    done.losses = [*dict.fromkeys(one.task for record in every for one in record.losses)]
    done.notes += reference_notes(every, tasks=plan.tasks, references=plan.recipe.evaluation.references)
    done.notes += _subject_notes(plan, tuning)
    return done


def _add(done: Gathered, plan: Plan, arm: Arm, tuning: Sequence[Run], *, folder: Path) -> dict[str, RunRecord]:
    """Add an arm's row, what is missing of it, and where its runs lie; returns the records of those that finished."""
    choice = choose(plan, arm, tuning, folder=folder)
    found = [(run, outcome(run, folder)) for run in _final_runs(plan, arm, choice.rate)]
    records = {run.seed_name: _of_subject(one.record, run.subject) for run, one in found if _is_finished(one)}
    costs, references = read_costs(folder), plan.recipe.evaluation.references
    row = arm_result(arm, records, tuned_rate=choice.rate, cost=costs.get(arm.label), references=references)
    row.runs = _whole_seeds(plan, arm, found)
    row.failed = {run.seed_name: one.reason for run, one in found if one.state == "failed"}
    row.diverged = [run.seed_name for run, one in found if one.state == "diverged"]
    row.doubts = doubts_of(plan, arm, tuning, folder=folder)
    row.cannot = choice.cannot or _same_reason(row, len(found))
    done.rows.append(row)
    for name, state in (("finished", done.finished), ("diverged", done.diverged)):
        for run in (run for run, one in found if one.state == name):
            state[run.subject][arm.label][run.seed] = folder / run.folder
    missing = [run.seed_name for run, one in found if one.state in ("open", "busy")]
    if choice.missing:
        done.notes.append(f"{arm.label}: no runs yet, {choice.missing}")
    elif missing:
        done.notes.append(f"{arm.label}: seed {', '.join(missing)} not run yet")
    is_done = bool(found) and all(one.state in DONE for _, one in found)
    done.is_complete &= is_done or bool(row.cannot)
    return records


def scores_of(plan: Plan, done: Gathered) -> tuple[Scores, dict[str, Questions]]:
    """The credits of each arm, seed and task, and what is known of each task's questions.

    A seed counts once it is done for every subject. Raises `CheckpointError` as `read_scores` does.
    """
    measures = [name for name in plan.recipe.evaluation.task_names if name not in done.losses]
    parts, known = [], {}
    for subject in plan.subject_names:
        finished = done.finished[subject]
        questions = read_questions(finished, tasks=measures)
        scores = read_scores({label: found for label, found in finished.items() if found}, tasks=measures)
        _count_diverged(scores, done.diverged[subject], questions)
        known |= {task_of(subject, name): one for name, one in questions.items()}
        parts.append(
            {
                arm: {seed: {task_of(subject, name): one for name, one in own.items()} for seed, own in seeds.items()}
                for arm, seeds in scores.items()
            }
        )
    return _joined(parts), known


def held_out_of(plan: Plan, done: Gathered) -> dict[str, HeldOut]:
    """The losses of held-out samples, by task. Raises `CheckpointError` as `read_held_out` does."""
    first = plan.subject_names[0]
    return {
        task: read_held_out(done.finished[first], done.diverged[first], task=task)
        for task in plan.tasks
        if task in done.losses
    }


def _joined(parts: Sequence[Scores]) -> Scores:
    """The tasks of all parts together, of the arms and seeds that every part has."""
    first, *others = parts
    joined: Scores = {}
    for arm, seeds in first.items():
        shared = [seed for seed in seeds if all(seed in part.get(arm, {}) for part in others)]
        if shared:
            joined[arm] = {
                seed: {name: one for part in parts for name, one in part[arm][seed].items()} for seed in shared
            }
    return joined


def _count_diverged(
    scores: Scores, diverged: Mapping[str, Mapping[int, Path]], questions: Mapping[str, Questions]
) -> None:
    """Diverged seeds are part of an arm's result: left out, an arm would be judged by the seeds that went well."""
    guess = guesses(questions)
    for arm, seeds in diverged.items():
        if guess and seeds:
            scores[arm] = dict(sorted((scores.get(arm, {}) | dict.fromkeys(seeds, guess)).items()))


def _final_runs(plan: Plan, arm: Arm, rate: float | None) -> list[Run]:
    if rate is None:
        return []
    pairs = [(seed, subject) for seed in plan.seeds_for(arm.name) for subject in plan.subject_names]
    return [final_run(plan, arm, seed=seed, learning_rate=rate, subject=subject) for seed, subject in pairs]


def _of_subject(record: RunRecord | None, subject: str | None) -> RunRecord:
    """A finished run's record with the comparison's names of its tasks."""
    assert record is not None
    renamed = [one.model_copy(update={"task": task_of(subject, one.task)}) for one in record.evaluations]
    return record.model_copy(update={"evaluations": renamed})


def _whole_seeds(plan: Plan, arm: Arm, found: Sequence[tuple[Run, Outcome]]) -> dict[str, str]:
    """The seeds that are finished for every subject, with what holds their runs."""
    states = {seed: [one for run, one in found if run.seed == seed] for seed in plan.seeds_for(arm.name)}
    return {str(seed): Final(arm, seed).folder for seed, own in states.items() if own and all(map(_is_finished, own))}


def _is_finished(found: Outcome) -> bool:
    return found.state == "finished" and found.record is not None


def _same_reason(row: ArmResult, runs: int) -> str | None:
    """What the method cannot do here: the reason that all of its runs failed for."""
    reasons = set(row.failed.values())
    return reasons.pop() if len(reasons) == 1 and len(row.failed) == runs else None


def _option_notes(arms: Sequence[Arm]) -> list[str]:
    return [
        f"{arm.tuned_as}: its method has no {', '.join(arm.not_known)}, which the plan sets for all arms"
        for arm in {arm.tuned_as: arm for arm in arms}.values()
        if arm.not_known
    ]


def _subject_notes(plan: Plan, tuning: Sequence[Run]) -> list[str]:
    """What several subjects mean for the intervals, and for the learning rates."""
    names = [*plan.subjects]
    if not names:
        return []
    tuned = [f"learning rates are chosen on {names[0]}, the first subject, for every arm"] if tuning else []
    return [f"intervals are for these {len(names)} subjects ({', '.join(names)}), not for others", *tuned]
