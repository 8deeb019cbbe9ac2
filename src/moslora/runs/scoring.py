"""The evaluations a recipe asks for, before and after training, each with its answers on disk."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.data.everyday import without_question
from moslora.data.tasks import EVERYDAY, Task
from moslora.evaluation.choice import score_by_generation, score_by_log_probability
from moslora.evaluation.recording import evaluation_record
from moslora.evaluation.scores import Answer
from moslora.files import check_writable, write_atomically
from moslora.records import EvaluationRecord
from moslora.runs.active import ActiveRun, Report
from moslora.runs.adapters import Opened, load_adapted
from moslora.runs.material import Samples, TestSet, load_test_sets
from moslora.runs.ownership import check_unowned
from moslora.runs.recipe import EvaluationSettings

QUESTION_REMOVED, EVALUATED = "question removed", "evaluated"
OTHER_SCORING = {"log_probability": "generation", "generation": "log_probability"}


def score(
    run: ActiveRun,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    test_sets: Sequence[TestSet],
    *,
    when: str,
) -> None:
    """Score what the recipe asks for "before" or "after", and add it to the record; what is there already is left."""
    settings = run.recipe.evaluation
    if when == "before" and not settings.before:
        return
    for test_set in test_sets:
        for moment, scoring, indices in _wanted(test_set, settings, when=when):
            if run.has_scored(test_set.task.name, when=moment, scoring=scoring):
                continue
            samples = [test_set.samples[index] for index in indices]
            if moment == QUESTION_REMOVED:
                samples = [without_question(sample) for sample in samples]
            run.report(_line(test_set.task, moment, scoring, len(samples)))
            evaluation, answers = evaluate(
                model,
                tokenizer,
                samples,
                task=test_set.task,
                when=moment,
                scoring=scoring,
                prompt_style=run.recipe.asked_with,
                batch_size=settings.batch_size,
                progress=run.progress,
            )
            if scoring != settings.scoring:
                path = answers_path(run.place.answers, task=test_set.task, when=when, scoring=settings.scoring)
                first = read_predictions(path)
                evaluation.agreement = agreement([first[index] for index in indices], answers)
            save_answers(answers_path(run.place.answers, task=test_set.task, when=moment, scoring=scoring), answers)
            run.add(evaluation)


def evaluate_adapter(
    opened: Opened,
    settings: EvaluationSettings,
    *,
    with_agreement: bool,
    report: Report,
    answers_folder: Path | None = None,
    progress: bool = True,
) -> list[EvaluationRecord]:
    """Score a saved adapter on tasks; the numbers go into its run's record, the answers to `answers_folder`.

    The answers' folder is the run's unless another is named. A folder without a run is made to be shipped: nothing is
    written there, and answers are kept only where a folder is named for them.
    """
    prompt_style = opened.asked_with
    if opened.run is not None:
        check_unowned(opened.run.path)
    folder = answers_folder or (opened.run.answers if opened.run else None)
    if folder is not None:
        check_writable(folder)
    test_sets = load_test_sets(settings)
    model, tokenizer = load_adapted(opened)
    found = []
    for test_set in test_sets:
        first: list[Answer] = []
        for scoring in [settings.scoring, *([OTHER_SCORING[settings.scoring]] if with_agreement else [])]:
            report(_line(test_set.task, EVALUATED, scoring, len(test_set.samples)))
            evaluation, answers = evaluate(
                model,
                tokenizer,
                test_set.samples,
                task=test_set.task,
                when=EVALUATED,
                scoring=scoring,
                prompt_style=prompt_style,
                batch_size=settings.batch_size,
                progress=progress,
            )
            evaluation.agreement = agreement([answer.predicted for answer in first], answers) if first else None
            first = answers
            if folder is not None:
                save_answers(answers_path(folder, task=test_set.task, when=EVALUATED, scoring=scoring), answers)
            found.append(evaluation)
    _replace_in_record(opened, found)
    return found


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Samples,
    *,
    task: Task,
    when: str,
    scoring: str,
    prompt_style: str,
    batch_size: int,
    progress: bool,
) -> tuple[EvaluationRecord, list[Answer]]:
    """One evaluation's numbers and answers, by log-probability or by the paper's protocol of generating."""
    started = time.perf_counter()
    scored_by = score_by_generation if scoring == "generation" else score_by_log_probability
    answers = scored_by(
        model, tokenizer, samples, task=task, prompt_style=prompt_style, batch_size=batch_size, progress=progress
    )
    evaluation = evaluation_record(
        answers,
        task=task.name,
        when=when,
        scoring=scoring,
        prompt=prompt_style,
        wall_seconds=time.perf_counter() - started,
    )
    return evaluation, answers


def agreement(first: Sequence[str | None], second: Sequence[Answer]) -> float:
    """The share of questions answered alike; no answer agrees with nothing."""
    pairs = zip(first, second, strict=True)
    return sum(answer.predicted is not None and found == answer.predicted for found, answer in pairs) / len(second)


def answers_path(folder: Path, *, task: Task, when: str, scoring: str) -> Path:
    """Where an evaluation's answers lie."""
    return folder / f"{task.name}-{when.replace(' ', '-')}-{scoring}.jsonl"


def save_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write the answers, one JSON object a question."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(answer.to_dict(), ensure_ascii=False) + "\n" for answer in answers))


def read_predictions(path: Path) -> list[str | None]:
    """The predicted labels in a file of answers, in the order of its questions."""
    return [json.loads(line)["predicted"] for line in path.read_text(encoding="utf-8").split("\n") if line]


def spread_indices(total: int, count: int) -> list[int]:
    """`count` numbers spread evenly over 0 … total - 1, so that every kind of question is met."""
    return [index * total // count for index in range(count)] if count < total else list(range(total))


def _wanted(test_set: TestSet, settings: EvaluationSettings, *, when: str) -> list[tuple[str, str, list[int]]]:
    """When, scoring and question numbers of each evaluation of a test set."""
    everything = list(range(len(test_set.samples)))
    wanted = [(when, settings.scoring, everything)]
    if when == "after" and settings.question_removed and test_set.task.name == EVERYDAY:
        wanted.append((QUESTION_REMOVED, settings.scoring, everything))
    if when == "after" and settings.agreement_questions:
        chosen = spread_indices(len(everything), settings.agreement_questions)
        wanted.append((when, OTHER_SCORING[settings.scoring], chosen))
    return wanted


def _line(task: Task, when: str, scoring: str, questions: int) -> str:
    moment = "" if when == EVALUATED else f", {when}"
    return f"scoring {task.name}{moment} ({scoring.replace('_', ' ')}, {questions} questions)"


def _replace_in_record(opened: Opened, found: Sequence[EvaluationRecord]) -> None:
    if opened.run is None:
        return
    replaced = {(evaluation.task, evaluation.when, evaluation.scoring) for evaluation in found}
    with opened.run.changing_record() as record:
        kept = [e for e in record.evaluations if (e.task, e.when, e.scoring) not in replaced]
        record.evaluations = [*kept, *found]
