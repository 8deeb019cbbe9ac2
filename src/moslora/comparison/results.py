"""From the folders of finished runs to the numbers of a comparison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moslora.comparison.statistics import Questions, Scores, is_above_chance
from moslora.data.everyday import asked
from moslora.data.tasks import EVERYDAY, chance_text
from moslora.errors import CheckpointError
from moslora.records import ArmResult, Cost, RunRecord
from moslora.runs.folder import RunFolder

if TYPE_CHECKING:  # importing it brings torch
    from moslora.comparison.matrix import Arm


class Answers(NamedTuple):
    """One run's answers to a task: what identifies each question, whether it was answered right, and its options."""

    questions: list[tuple[int, str, str | None]]  # index, expected answer, kind
    is_correct: list[bool]
    options: list[int]  # how many labels each allows; 0 where that is not known
    groups: list[str | None]  # of questions that depend on each other


def read_correct(run_folder: str | Path, task: str) -> list[bool]:
    """Whether each question of a task was answered right after training, by the scoring the recipe names.

    Raises `CheckpointError` if the answers are missing or damaged.
    """
    return _read_answers(Path(run_folder), task).is_correct


def read_scores(
    folders: Mapping[str, Mapping[int, Path]], *, tasks: Sequence[str]
) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    """The 0/1 vector of each arm, seed and task, read from the arms' run folders by seed.

    Raises `CheckpointError` if two runs did not answer the same questions in the same order.
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
                scores[arm][seed][task] = np.array(answers.is_correct, dtype=np.int8)
    return scores


def read_questions(folders: Mapping[str, Mapping[int, Path]], *, tasks: Sequence[str]) -> dict[str, Questions]:
    """What is known of each task's questions, from the first run's answers; nothing without a run."""
    first = next((folder for by_seed in folders.values() for folder in by_seed.values()), None)
    return {name: _questions(_read_answers(first, name), name) for name in tasks} if first else {}


def guesses(questions: Mapping[str, Questions]) -> dict[str, np.ndarray]:
    """What a diverged run counts as: on each question, the share of guesses that are right, where that is known."""
    return {name: np.zeros(one.number) if one.chance is None else one.chance for name, one in questions.items()}


def chance_notes(scores: Scores, questions: Mapping[str, Questions]) -> list[str]:
    """The tasks on which no arm is shown to do better than guessing; of a task without a known chance, nothing."""
    notes = []
    for name, found in questions.items():
        right = [[answers[name] for answers in by_seed.values()] for by_seed in scores.values() if by_seed]
        if found.chance is None or any(is_above_chance(one, found.chance, groups=found.groups) for one in right):
            continue
        share = chance_text(float(found.chance.mean()))
        notes.append(f"{name}: no arm is shown to do better than guessing ({share}): nothing to compare yet")
    return notes


def arm_result(arm: "Arm", runs: Mapping[int, RunRecord], *, tuned_rate: float | None, cost: Cost | None) -> ArmResult:
    """An arm's row from its finished runs by seed, without accuracies; what no run tells is None.

    Raises `CheckpointError` if its runs do not train the same number of parameters.
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
    )


def _read_answers(folder: Path, task: str) -> Answers:
    place = RunFolder.open(folder)
    scoring = place.record().recipe.get("evaluation", {}).get("scoring", "log_probability")
    path = place.answers / f"{task}-after-{scoring}.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        questions = [(int(line["index"]), str(line["expected"]), line.get("kind")) for line in lines]
        is_correct = [_boolean(line["is_correct"]) for line in lines]
        options = [int(line.get("options") or len(line.get("scores") or {})) for line in lines]
        groups = [line.get("group") for line in lines]
    except FileNotFoundError:
        raise CheckpointError(
            f"no answers to {task} at {path}; let the run finish with {task} among its tasks"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the answers in {path}: {error!r}; run {folder} again") from error
    if not lines:
        raise CheckpointError(f"{path} holds no answers; run {folder} again")
    return Answers(questions, is_correct, options, groups)


def _questions(answers: Answers, name: str) -> Questions:
    groups: list[str | None] = answers.groups
    if name == EVERYDAY and None in groups:  # answers of former versions do not hold them
        groups = [question["group"] for question in asked(answers.questions)] or groups
    chance = np.array([1 / count for count in answers.options]) if all(answers.options) else None
    return Questions(len(answers.is_correct), None if None in groups else groups, chance)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"is_correct is {value!r}, not true or false")
    return value


def _check_same_questions(task: str, first: tuple[Path, Answers], other: tuple[Path, Answers]) -> None:
    (first_folder, a), (other_folder, b) = first, other
    if a.questions == b.questions:
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
