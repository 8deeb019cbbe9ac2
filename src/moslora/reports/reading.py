"""Reading the folders of runs, comparisons and studies: records, logged values, adapter pictures and answers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moslora.comparison.subjects import measure_of, place_of, seed_of, subjects_of
from moslora.errors import CheckpointError, ConfigError
from moslora.evaluation.examples import Examples, read_examples
from moslora.judging.judgements import StudyRecord, read_study
from moslora.judging.schema import FILE as STUDY
from moslora.packed import read_text
from moslora.records import AdapterPictures, ComparisonRecord, EvaluationRecord, RunRecord
from moslora.runs.ownership import is_owned

RUN, COMPARISON, METRICS, PICTURES, ANSWERS = (
    "run.json",
    "comparison.json",
    "metrics.jsonl",
    "adapter.json",
    "answers",
)
Metrics = list[dict[str, Any]]


@dataclass(frozen=True)
class StoredRun:
    """One run: its record, what it logged while training (one dict a line), and its adapter's pictures."""

    label: str
    folder: Path
    record: RunRecord
    metrics: Metrics
    pictures: AdapterPictures | None
    subject: str | None = None  # of a comparison of several

    def evaluation(self, task: str, when: str) -> EvaluationRecord | None:
        """The task's first evaluation at that moment ("before", "after"), the one that counts."""
        return next((found for found in self.record.evaluations if (found.task, found.when) == (task, when)), None)

    def answers(self, task: str, when: str = "after", *, scoring: str | None = None) -> Metrics:
        """The answers to a task's questions, one dict each; empty where none were kept, or of another subject.

        They are those of the evaluation that counts, unless `scoring` names another way.
        """
        measure = measure_of(self.subject, task)
        if measure is None:
            return []
        found = self.evaluation(measure, when)
        scoring = scoring or (found.scoring if found else "log_probability")
        return read_lines(self.folder / ANSWERS / f"{measure}-{when.replace(' ', '-')}-{scoring}.jsonl")

    def examples(self, task: str) -> Examples | None:
        """A few of the task's questions with their pictures; None where none were kept."""
        return read_examples(self.folder / ANSWERS / f"{task}-examples.json")


@dataclass(frozen=True)
class Comparison:
    """A comparison and the runs found in its folder, by arm and seed (and subject, where there are several).

    `missing` are recorded and not there.
    """

    folder: Path
    record: ComparisonRecord
    runs: dict[str, dict[str, StoredRun]]
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judged:
    """A study of judges that is closed."""

    folder: Path
    record: StudyRecord


@dataclass(frozen=True)
class Sources:
    """What a report is about."""

    comparisons: list[Comparison]
    runs: list[StoredRun]
    studies: list[Judged]


def open_sources(paths: Sequence[str | Path]) -> Sources:
    """Read the folders of runs, comparisons and studies.

    Raises `CheckpointError` for a folder that is none of these, or damaged, and `ConfigError` for a study in which
    judging is not closed.
    """
    sources = Sources([], [], [])
    for path in dict.fromkeys(Path(path) for path in paths):
        if (path / COMPARISON).is_file():
            sources.comparisons.append(_comparison(path))
        elif (path / RUN).is_file():
            sources.runs.append(_run(path, label=path.resolve().name))
        elif (path / STUDY).is_file():
            sources.studies.append(_study(path))
        else:
            state = f"holds no {RUN}, no {COMPARISON} and no {STUDY}" if path.is_dir() else "is not a folder"
            raise CheckpointError(
                f"{path} {state}; give folders that `moslora train`, `moslora compare` or `moslora judge serve` wrote"
            )
    _tell_apart(sources.runs)
    return sources


def read_lines(path: Path) -> Metrics:
    """The JSON objects of a file, one a line; empty without a file, and without a last line that was cut off.

    Raises `CheckpointError` for a damaged line elsewhere.
    """
    try:
        return [*_parsed(path, (read_text(path) or "").split("\n"))]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _parsed(path: Path, lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # a run that was killed while it wrote
                return
            raise CheckpointError(
                f"{path}, line {number} is not JSON: {error}; restore the file or remove it"
            ) from error
        if isinstance(value, dict):
            yield value


def _comparison(folder: Path) -> Comparison:
    record = ComparisonRecord.load(folder / COMPARISON)
    found = Comparison(folder, record, {arm.arm: {} for arm in record.arms})
    for arm in record.arms:
        for seed, whole in sorted(arm.runs.items(), key=lambda item: (len(item[0]), item[0])):
            for subject in subjects_of(record.plan):
                place = place_of(whole, subject)
                if (folder / place / RUN).is_file():
                    run = _run(folder / place, label=arm.arm, subject=subject)
                    found.runs[arm.arm][seed_of(seed, subject)] = run
                else:
                    found.missing.append(place)
    return found


def _study(folder: Path) -> Judged:
    record = read_study(folder)
    if not record.is_closed:
        raise ConfigError(
            f"judging of {folder} is still open, and results are not shown before it is closed; close it first"
        )
    return Judged(folder, record)


def _run(folder: Path, *, label: str, subject: str | None = None) -> StoredRun:
    pictures = folder / PICTURES
    record = RunRecord.load(folder / RUN)
    if record.status == "running" and not is_owned(folder):
        record.status = "interrupted"  # killed before it could write so
    return StoredRun(
        label=label,
        folder=folder,
        record=record,
        metrics=read_lines(folder / METRICS),
        pictures=AdapterPictures.load(pictures) if pictures.is_file() else None,
        subject=subject,
    )


def _tell_apart(runs: list[StoredRun]) -> None:
    """Give runs whose folders have one name the path above it too."""
    names = [run.label for run in runs]
    for index, run in enumerate(runs):
        if names.count(run.label) > 1:
            folder = run.folder.resolve()
            runs[index] = StoredRun(
                f"{folder.parent.name}/{folder.name}", folder, run.record, run.metrics, run.pictures
            )
