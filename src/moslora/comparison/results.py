"""From the folders of finished runs to the numbers of a comparison."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moslora.comparison.statistics import Questions, Scores, is_above_chance
from moslora.data.everyday import asked
from moslora.data.tasks import EVERYDAY, chance_text
from moslora.errors import CheckpointError
from moslora.evaluation.answers import Answer, Unit, units
from moslora.evaluation.recording import scored_by
from moslora.packed import read_text
from moslora.records import ArmResult, Cost, RunRecord, Scored
from moslora.runs.folder import RunFolder

if TYPE_CHECKING:  # importing it brings torch
    from moslora.comparison.matrix import Arm

MOMENTS = ("before", "after", "evaluated")  # of evaluations that ask the questions as they are


class Answers(NamedTuple):
    """One run's answers to a task, the units in which they are scored, and how they were."""

    answers: list[Answer]
    units: list[Unit]
    scored: Scored | None  # as the run's record has it

    @property
    def rule(self) -> str | None:
        """The rule that gave the answers their credit."""
        return self.scored.rule if self.scored else None

    @property
    def unit(self) -> str | None:
        """What is scored as one, where that is not a question."""
        return self.scored.unit if self.scored else None

    @property
    def questions(self) -> list[tuple[int, str, str | None]]:
        """What identifies each question: index, expected answer, kind."""
        return [(answer.index, answer.expected, answer.kind) for answer in self.answers]

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether no unit may be worth a part."""
        return all(unit.step == 1 for unit in self.units)


def read_correct(run_folder: str | Path, task: str) -> list[bool]:
    """Whether each question of a task was answered right after training, by the scoring the recipe names.

    Raises `CheckpointError` if the answers are missing or damaged.
    """
    return [answer.is_correct for answer in _read_answers(Path(run_folder), task).answers]


def read_scores(
    folders: Mapping[str, Mapping[int, Path]], *, tasks: Sequence[str]
) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    """The credits of each arm, seed and task, read from the arms' run folders by seed: 0 or 1, or parts, of each unit.

    Raises `CheckpointError` if two runs did not answer the same questions in the same order, scored in the same way.
    """
    first: dict[str, tuple[Path, Answers]] = {}
    scores: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for arm, by_seed in folders.items():
        scores[arm] = {}
        for seed, folder in by_seed.items():
            scores[arm][seed] = {}
            for task in tasks:
                answers = _read_answers(folder, task)
                _check_same_questions(task, first.setdefault(task, (folder, answers)), (folder, answers))
                credits = [unit.credit for unit in answers.units]
                scores[arm][seed][task] = np.array(credits, dtype=np.int8 if answers.is_right_or_wrong else float)
    return scores


def read_questions(folders: Mapping[str, Mapping[int, Path]], *, tasks: Sequence[str]) -> dict[str, Questions]:
    """What is known of each task's questions, from the first run's answers; nothing without a run."""
    first = next((folder for by_seed in folders.values() for folder in by_seed.values()), None)
    return {name: _questions(_read_answers(first, name), name) for name in tasks} if first else {}


def guesses(questions: Mapping[str, Questions]) -> dict[str, np.ndarray]:
    """What a diverged run counts as: on each question, the share of guesses that are right, where that is known."""
    return {name: one.guess for name, one in questions.items()}


def chance_notes(scores: Scores, questions: Mapping[str, Questions]) -> list[str]:
    """The tasks on which no arm is shown to do better than guessing; of a task without a known chance, nothing."""
    notes = []
    for name, found in questions.items():
        right = [[answers[name] for answers in by_seed.values()] for by_seed in scores.values() if by_seed]
        if found.chance is None or any(_is_learned(one, found) for one in right):
            continue
        share = chance_text(found.mean_chance)
        notes.append(f"{name}: no arm is shown to do better than guessing ({share}): nothing to compare yet")
    return notes


def arm_result(
    arm: "Arm",
    runs: Mapping[Any, RunRecord],
    *,
    tuned_rate: float | None,
    cost: Cost | None,
    references: Sequence[str] = (),
) -> ArmResult:
    """An arm's row from its finished runs by seed, without accuracies; what no run tells is None.

    `references` names evaluations that are no controls: no model made what they score. Raises `CheckpointError` if its
    runs do not train the same number of parameters.
    """
    counts = {seed: record.parameters.trainable for seed, record in runs.items() if record.parameters}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count:,} with seed {seed}" for seed, count in sorted(counts.items()))
        raise CheckpointError(f"the runs of {arm.label} train different numbers of parameters ({found}); run it again")
    seconds = [record.wall_seconds["train"] for record in runs.values() if "train" in record.wall_seconds]
    memory = [record.peak_memory_bytes for record in runs.values() if record.peak_memory_bytes is not None]
    return ArmResult(
        arm=arm.label,
        method=arm.method,
        options=dict(arm.options),
        rank=arm.rank,
        fraction=arm.fraction,
        learning_rate=tuned_rate,
        trainable=next(iter(counts.values()), cost.trainable if cost else None),
        cost=cost,
        train_seconds=median(seconds) if seconds else None,
        peak_memory_bytes=max(memory, default=None),
        controls=_controls(runs.values(), references),
    )


def reference_notes(records: Iterable[RunRecord], *, tasks: Sequence[str], references: Sequence[str]) -> list[str]:
    """Between which numbers an arm's stand: before training, and what no model made; nothing without references."""
    found = _means(records)
    notes = []
    for when in references:
        shares = {task: (found.get("before", {}).get(task), found.get(when, {}).get(task)) for task in tasks}
        told = [
            f"{task} {_percent(low)} to {_percent(high)}"
            for task, (low, high) in shares.items()
            if (low, high) != (None, None)
        ]
        notes += [f"from before training to {when}, %: {'; '.join(told)}"] if told else []
    return notes


def _percent(share: float | None) -> str:
    return "(not measured)" if share is None else f"{100 * share:.1f}"


def _controls(records: Iterable[RunRecord], references: Sequence[str]) -> dict[str, dict[str, float]]:
    """The mean accuracy over seeds of each evaluation in which something was taken away from the questions."""
    return {when: tasks for when, tasks in _means(records).items() if when not in (*MOMENTS, *references)}


def _means(records: Iterable[RunRecord]) -> dict[str, dict[str, float]]:
    """The mean accuracy over runs, by when and task."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in (evaluation for record in records for evaluation in record.evaluations):
        found.setdefault(one.when, {}).setdefault(one.task, []).append(one.accuracy)
    return {when: {task: mean(shares) for task, shares in tasks.items()} for when, tasks in found.items()}


def _read_answers(folder: Path, task: str) -> Answers:
    place = RunFolder.open(folder)
    record = place.record()
    scoring = _scoring_of(record, task)
    path = place.answers / f"{task}-after-{scoring}.jsonl"
    try:
        text = read_text(path)
        answers = [Answer.from_dict(json.loads(line)) for line in (text or "").split("\n") if line]
        found = units(answers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the answers in {path}: {error!r}; run {folder} again") from error
    if text is None:
        raise CheckpointError(f"no answers to {task} at {path}; let the run finish with {task} among its tasks")
    if not answers:
        raise CheckpointError(f"{path} holds no answers; run {folder} again")
    key = task, "after", scoring
    of_task = [one for one in record.evaluations if (one.task, one.when, one.scoring) == key]
    return Answers(answers, found, next((one.scored for one in of_task if one.scored), None))


def _scoring_of(record: RunRecord, task: str) -> str:
    """How a task was scored: as the record says first; a task of short answers has its own way."""
    own = (one.scoring for one in record.evaluations if (one.task, one.when) == (task, "after"))
    return next(own, record.recipe.get("evaluation", {}).get("scoring", "log_probability"))


def _questions(found: Answers, name: str) -> Questions:
    groups: list[str | None] = [unit.group for unit in found.units]
    if name == EVERYDAY and None in groups:  # answers of former versions do not hold them
        groups = [question["group"] for question in asked(found.questions)] or groups
    guesses = [unit.chance for unit in found.units if unit.chance is not None]
    weights = np.array([unit.weight for unit in found.units])
    return Questions(
        number=len(found.units),
        groups=None if None in groups else groups,
        chance=np.array(guesses) if len(guesses) == len(found.units) else None,
        weights=None if (weights == weights[0]).all() else weights,
        steps=None if found.is_right_or_wrong else np.array([unit.step for unit in found.units]),
        scored=scored_by(found.rule, found.units, answers=len(found.answers), unit=found.unit),
    )


def _is_learned(right: Sequence[np.ndarray], found: Questions) -> bool:
    assert found.chance is not None
    return is_above_chance(right, found.chance, groups=found.groups, weights=found.weights, steps=found.steps)


def _check_same_questions(task: str, first: tuple[Path, Answers], other: tuple[Path, Answers]) -> None:
    (first_folder, a), (other_folder, b) = first, other
    if a.questions == b.questions:
        _check_same_scoring(task, first, other)
        return
    if len(a.questions) != len(b.questions):
        how = f"{len(a.questions)} questions and {len(b.questions)}"
    else:
        pairs = zip(a.questions, b.questions, strict=True)
        x, y = next((x, y) for x, y in pairs if x != y)
        how = f"question {x[0]} expecting {x[1]} and question {y[0]} expecting {y[1]}"
        how += "" if x[2] == y[2] else f", kinds {x[2]} and {y[2]}"
    raise CheckpointError(
        f"{first_folder} and {other_folder} did not answer the same questions of {task} ({how}); "
        "score every run on the same test set"
    )


def _check_same_scoring(task: str, first: tuple[Path, Answers], other: tuple[Path, Answers]) -> None:
    (first_folder, a), (other_folder, b) = first, other
    pairs = zip(map(_scoring, a.answers), map(_scoring, b.answers), strict=True)
    differing = next((f"{x} and {y}" for x, y in pairs if x != y), None)
    how = differing if a.rule == b.rule else f"by the rules {a.rule} and {b.rule}"
    if how is not None:
        raise CheckpointError(
            f"{first_folder} and {other_folder} did not score {task} alike ({how}); "
            "score every run on the same test set, by the same rule"
        )


def _scoring(answer: Answer) -> str:
    unit = "alone" if answer.unit is None else f"in unit {answer.unit} ({answer.unit_rule})"
    return f"question {answer.index} {unit}, weight {answer.weight:g}, step {answer.step:g}"
