"""The evaluations a recipe asks for, before and after training, each with its answers on disk."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.data.everyday import without_question
from moslora.data.source import task_samples
from moslora.data.tasks import EVERYDAY, Task, check_answers, task
from moslora.evaluation.choice import score_by_generation, score_by_log_probability
from moslora.evaluation.scores import Accuracy, Answer, accuracy, accuracy_by_kind, agreement
from moslora.records import EvaluationRecord, RunRecord, Score
from moslora.runs.adapters import Opened, load_adapted
from moslora.runs.folder import RunFolder, write_atomically
from moslora.runs.recipe import EvaluationSettings, Recipe

Samples = Sequence[Mapping[str, Any]]
QUESTION_REMOVED = "question removed"


@dataclass(frozen=True)
class TestSet:
    """A task's test questions, checked."""

    __test__ = False  # not a test for pytest

    task: Task
    samples: Samples


def load_test_sets(settings: EvaluationSettings) -> list[TestSet]:
    """The test sets of the tasks. Raises DataError for one that is not there or has a wrong sample."""
    test_sets = []
    for name in settings.tasks:
        chosen = task(name)
        samples = task_samples(chosen, settings.data, split="test", limit=settings.limit)
        check_answers(samples, chosen, source=f"{name} (test)")
        test_sets.append(TestSet(chosen, samples))
    return test_sets


def score(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    test_sets: Sequence[TestSet],
    *,
    when: str,
    recipe: Recipe,
    place: RunFolder,
    record: RunRecord,
    report: Callable[[str], None],
    progress: bool,
) -> None:
    """Score what the recipe asks for at this point, and add it to the record; what is there already is left."""
    settings = recipe.evaluation
    if when == "before" and not settings.before:
        return
    options: dict[str, Any] = {"prompt_style": recipe.data.prompt, "progress": progress}
    for test_set in test_sets:
        wanted = [(when, settings.scoring, test_set.samples)]
        if when == "after" and settings.question_removed and test_set.task.name == EVERYDAY:
            wanted.append((QUESTION_REMOVED, settings.scoring, [without_question(s) for s in test_set.samples]))
        if when == "after" and settings.agreement_questions:
            other = "generation" if settings.scoring == "log_probability" else "log_probability"
            chosen = spread_indices(len(test_set.samples), settings.agreement_questions)
            wanted.append((when, other, [test_set.samples[index] for index in chosen]))
        for moment, scoring, samples in wanted:
            if any((e.task, e.when, e.scoring) == (test_set.task.name, moment, scoring) for e in record.evaluations):
                continue
            report(f"scoring {test_set.task.name}, {moment} ({scoring.replace('_', ' ')}, {len(samples)} questions)")
            started = time.perf_counter()
            answers = answer(
                model,
                tokenizer,
                samples,
                task=test_set.task,
                scoring=scoring,
                batch_size=settings.batch_size,
                **options,
            )
            evaluation = evaluation_record(answers, task=test_set.task, when=moment, scoring=scoring)
            evaluation.wall_seconds = time.perf_counter() - started
            if scoring != settings.scoring:
                first = read_predictions(place.answers, task=test_set.task, when=when, scoring=settings.scoring)
                indices = spread_indices(len(test_set.samples), len(samples))
                pairs = zip((first[index] for index in indices), answers, strict=True)
                evaluation.agreement = sum(found == answer.predicted for found, answer in pairs) / len(samples)
            save_answers(place.answers, answers, task=test_set.task, when=moment, scoring=scoring)
            record.evaluations = [*record.evaluations, evaluation]
            record.save(place.record_path)


def evaluate_adapter(
    opened: Opened, settings: EvaluationSettings, *, with_agreement: bool, report: Callable[[str], None]
) -> list[EvaluationRecord]:
    """Score a saved adapter on tasks; the answers go to its folder, the numbers into its run's record."""
    test_sets = load_test_sets(settings)
    model, tokenizer = load_adapted(opened)
    ways = [settings.scoring]
    if with_agreement:
        ways = ["log_probability", "generation"]
    found = []
    for test_set in test_sets:
        first: list[Answer] = []
        for scoring in ways:
            report(f"scoring {test_set.task.name} ({scoring.replace('_', ' ')}, {len(test_set.samples)} questions)")
            started = time.perf_counter()
            answers = answer(
                model,
                tokenizer,
                test_set.samples,
                task=test_set.task,
                scoring=scoring,
                prompt_style=opened.prompt_style,
                batch_size=settings.batch_size,
                progress=True,
            )
            evaluation = evaluation_record(answers, task=test_set.task, when="evaluated", scoring=scoring)
            evaluation.wall_seconds = time.perf_counter() - started
            evaluation.agreement = agreement(first, answers) if first else None
            first = answers
            save_answers(opened.home / "answers", answers, task=test_set.task, when="evaluated", scoring=scoring)
            found.append(evaluation)
    if opened.run is not None:
        record = opened.run.record()
        replaced = {(evaluation.task, evaluation.when, evaluation.scoring) for evaluation in found}
        kept = [e for e in record.evaluations if (e.task, e.when, e.scoring) not in replaced]
        record.evaluations = [*kept, *found]
        record.save(opened.run.record_path)
    return found


def answer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Samples,
    *,
    task: Task,
    scoring: str,
    prompt_style: str,
    batch_size: int,
    progress: bool,
) -> list[Answer]:
    """The model's answers by log-probability, or by the paper's protocol of generating."""
    if scoring == "generation":
        return score_by_generation(
            model, tokenizer, samples, task=task, prompt_style=prompt_style, batch_size=batch_size, progress=progress
        )
    return score_by_log_probability(
        model, tokenizer, samples, task=task, prompt_style=prompt_style, batch_size=batch_size, progress=progress
    )


def evaluation_record(answers: Sequence[Answer], *, task: Task, when: str, scoring: str) -> EvaluationRecord:
    """The numbers of one evaluation."""
    by_kind = {kind: Score(**_numbers(found)) for kind, found in accuracy_by_kind(answers).items()}
    return EvaluationRecord(task=task.name, when=when, scoring=scoring, by_kind=by_kind, **_numbers(accuracy(answers)))


def save_answers(folder: Path, answers: Sequence[Answer], *, task: Task, when: str, scoring: str) -> None:
    """Write the answers, one JSON object a question."""
    lines = "".join(json.dumps(answer.to_dict(), ensure_ascii=False) + "\n" for answer in answers)
    path = answers_path(folder, task=task, when=when, scoring=scoring)
    folder.mkdir(exist_ok=True)
    write_atomically(path, lines)


def read_predictions(folder: Path, *, task: Task, when: str, scoring: str) -> list[str | None]:
    """The predicted labels of an evaluation, in the order of its questions."""
    lines = answers_path(folder, task=task, when=when, scoring=scoring).read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["predicted"] for line in lines if line]


def answers_path(folder: Path, *, task: Task, when: str, scoring: str) -> Path:
    """Where an evaluation's answers lie."""
    return folder / f"{task.name}-{when.replace(' ', '-')}-{scoring}.jsonl"


def spread_indices(total: int, count: int) -> list[int]:
    """`count` numbers spread evenly over 0 … total - 1, so that every kind of question is met."""
    return [index * total // count for index in range(count)] if count < total else list(range(total))


def _numbers(found: Accuracy) -> dict[str, Any]:
    low, high = found.interval
    return {"correct": found.correct, "total": found.total, "accuracy": found.value, "low": low, "high": high}
