"""The evaluations a recipe asks for, before and after training, each with its answers on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from moslora.evaluation.scores import Answer, SampleAnswer
from moslora.files import check_writable, write_atomically
from moslora.launch import is_first
from moslora.records import EvaluationRecord, LossRecord
from moslora.runs.active import ActiveRun, Reporter
from moslora.runs.adapters import Opened, load_adapted
from moslora.runs.groups import ScoringSettings
from moslora.runs.kinds import Kind, kind_of
from moslora.runs.material import TestSet
from moslora.runs.ownership import check_unowned
from moslora.runs.task_sources import kept_apart, task_files

EVALUATED = "evaluated"


def score(
    run: ActiveRun,
    model: nn.Module,
    processor: Any,
    test_sets: Sequence[TestSet],
    *,
    when: str,
) -> None:
    """Score what the recipe asks for "before" or "after", and add it to the record; what is there already is left."""
    settings = run.recipe.evaluation
    if when == "before" and not settings.before:
        return
    kind = kind_of(run.recipe.kind)
    files = task_files(settings.tasks, test_sets)
    for test_set in test_sets:
        asked = kind.asked(test_set, settings, when=when)
        for moment, scoring, indices in asked:
            if run.has_scored(test_set.task.name, when=moment, scoring=scoring):
                continue
            samples = [test_set.samples[index] for index in indices]
            run.report(_line(test_set, moment, scoring, len(samples), unit=kind.unit))
            evaluation, answers = kind.evaluate(
                model,
                processor,
                samples,
                task=test_set.task,
                when=moment,
                scoring=scoring,
                prompt=run.recipe.asked_with,
                batch_size=settings.batch_size,
                progress=run.progress,
            )
            evaluation.file = files.get(test_set.task.name)
            if scoring != asked[0].scoring and isinstance(evaluation, EvaluationRecord):
                path = answers_path(run.place.answers, task=test_set.task.name, when=when, scoring=asked[0].scoring)
                first = read_predictions(path)
                evaluation.agreement = agreement([first[index] for index in indices], _of_questions(answers))
            save_answers(
                answers_path(run.place.answers, task=test_set.task.name, when=moment, scoring=scoring), answers
            )
            run.add(evaluation)
        if when != "before":
            keep_examples(kind, test_set, run.place.answers, when=when, scoring=asked[0].scoring)
    kind.keep(run.place.path, when=when)


def evaluate_adapter(
    opened: Opened,
    settings: ScoringSettings,
    *,
    with_agreement: bool,
    report: Reporter,
    answers_folder: Path | None = None,
    progress: bool = True,
) -> list[EvaluationRecord | LossRecord]:
    """Score an adapter, or a model, on tasks; the numbers go into its run's record, the answers to `answers_folder`.

    The answers' folder is the run's unless another is named. A folder without a run is made to be shipped: nothing is
    written there, and answers are kept only where a folder is named for them. Where several processes were launched,
    each calls this and scores its share; the first one reports and writes.
    """
    if not is_first():
        return _scored(opened, settings, with_agreement=with_agreement, report=_silent, folder=None, progress=False)
    if opened.run is not None:
        check_unowned(opened.run.path)
    folder = answers_folder or (opened.run.answers if opened.run else None)
    if folder is not None:
        check_writable(folder)
    how: dict[str, Any] = {"report": report, "folder": folder, "progress": progress}
    found = _scored(opened, settings, with_agreement=with_agreement, **how)
    _replace_in_record(opened, found)
    return found


def _scored(
    opened: Opened,
    settings: ScoringSettings,
    *,
    with_agreement: bool,
    report: Reporter,
    folder: Path | None,
    progress: bool,
) -> list[EvaluationRecord | LossRecord]:
    """The numbers of every task; the answers are kept in `folder`, if there is one."""
    prompt, kind = opened.asked_with, kind_of(opened.model.kind)
    test_sets = kind.test_sets(settings, opened.recipe.data if opened.recipe else None)
    record = opened.run.record() if opened.run else None
    files = task_files(settings.tasks, test_sets)
    test_sets, files = kept_apart(test_sets, files, record, when=EVALUATED, report=report)
    model, processor = load_adapted(opened)
    report(f"evaluating {opened.described} (prompt: {prompt})")
    found = []
    for test_set in test_sets:
        first: list[Answer] = []
        for note in test_set.notes:
            report(note)
        own, *others = kind.ways_of(test_set.task, settings)
        for scoring in [own, *(others if with_agreement else [])]:
            report(_line(test_set, EVALUATED, scoring, len(test_set.samples), unit=kind.unit))
            evaluation, answers = kind.evaluate(
                model,
                processor,
                test_set.samples,
                task=test_set.task,
                when=EVALUATED,
                scoring=scoring,
                prompt=prompt,
                batch_size=settings.batch_size,
                progress=progress,
            )
            evaluation.file = files.get(test_set.task.name)
            if first and isinstance(evaluation, EvaluationRecord):
                evaluation.agreement = agreement([one.predicted for one in first], _of_questions(answers))
            first = _of_questions(answers)
            if folder is not None:
                save_answers(answers_path(folder, task=test_set.task.name, when=EVALUATED, scoring=scoring), answers)
            found.append(evaluation)
        if folder is not None:
            keep_examples(kind, test_set, folder, when=EVALUATED, scoring=own)
    if folder is not None:
        kind.keep(folder.parent if opened.run else folder, when=EVALUATED)
    return found


def agreement(first: Sequence[str | None], second: Sequence[Answer]) -> float:
    """The share of questions answered alike; no answer agrees with nothing."""
    pairs = zip(first, second, strict=True)
    return sum(answer.predicted is not None and found == answer.predicted for found, answer in pairs) / len(second)


def answers_path(folder: Path, *, task: str, when: str, scoring: str) -> Path:
    """Where an evaluation's answers lie."""
    return folder / f"{task}-{when.replace(' ', '-')}-{scoring}.jsonl"


def save_answers(path: Path, answers: Sequence[Answer | SampleAnswer]) -> None:
    """Write the answers, one JSON object a question or sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(answer.to_dict(), ensure_ascii=False) + "\n" for answer in answers))


def keep_examples(kind: Kind, test_set: TestSet, folder: Path, *, when: str, scoring: str) -> None:
    """Write a few questions with their answers beside these, where the kind of run has some to look at."""
    task = test_set.task.name

    def answered(moment: str) -> list[Answer]:
        return read_answers(answers_path(folder, task=task, when=moment, scoring=scoring))

    found = kind.examples(test_set, answered, when=when)
    if found:
        text = json.dumps({"when": when, "examples": found}, ensure_ascii=False, indent=1)
        write_atomically(folder / f"{task}-examples.json", f"{text}\n")


def read_answers(path: Path) -> list[Answer]:
    """The answers in a file, in the order of its questions; none without a file."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [Answer.from_dict(json.loads(line)) for line in lines if line]


def read_predictions(path: Path) -> list[str | None]:
    """The predicted labels in a file of answers, in the order of its questions."""
    return [json.loads(line)["predicted"] for line in path.read_text(encoding="utf-8").split("\n") if line]


def _line(test_set: TestSet, when: str, scoring: str, count: int, *, unit: str) -> str:
    moment = "" if when == EVALUATED else f", {when}"
    unit = getattr(test_set.task, "unit", unit)  # held-out samples are no questions, whatever the kind scores
    counted = f"{count} {unit}{'s' if count != 1 else ''}"
    return f"scoring {test_set.task.name}{moment} ({scoring.replace('_', ' ')}, {counted})"


def _silent(_line: str) -> None:
    """What a process reports that is not the first."""


def _of_questions(answers: Sequence[Answer | SampleAnswer]) -> list[Answer]:
    return [answer for answer in answers if isinstance(answer, Answer)]


def _replace_in_record(opened: Opened, found: Sequence[EvaluationRecord | LossRecord]) -> None:
    if opened.run is None:
        return
    replaced = {(one.task, one.when, one.scoring) for one in found}
    with opened.run.changing_record() as record:
        evaluations = [one for one in record.evaluations if (one.task, one.when, one.scoring) not in replaced]
        losses = [one for one in record.losses if (one.task, one.when, one.scoring) not in replaced]
        record.evaluations = [*evaluations, *(one for one in found if isinstance(one, EvaluationRecord))]
        record.losses = [*losses, *(one for one in found if isinstance(one, LossRecord))]
