"""Runs beside one another: the settings in which they differ, and which of their evaluations are of the same thing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moslora.records import EvaluationRecord, RunRecord
from moslora.reports.reading import StoredRun
from moslora.reports.wording import NONE

FINAL = ("after", "evaluated")  # moments at which a trained adapter is scored
MOMENTS = ("before", *FINAL)
GENERATION = "generation"
MOST = 4  # settings shown; the others stand in the recipes
LONGEST = 40  # letters of a value
WORDS = {  # what is shown, by preference; the method and the steps have places of their own
    "adapter.r": "rank",
    "adapter.lora_alpha": "alpha",
    "training.learning_rate": "learning rate",
    "data.train": "data",
    "model.path": "model",
    "seed": "seed",
    "adapter.mixer": "mixer",
    "adapter.target_modules": "layers",
    "data.fraction": "share of the data",
    "training.batch_size": "batch size",
    "model.quantize": "quantised",
    "model.dtype": "dtype",
    "adapter.lora_dropout": "dropout",
    "training.schedule": "schedule",
    "training.optimizer": "optimiser",
    "training.weight_decay": "weight decay",
    "data.prompt": "prompt",
    "data.loss_on": "loss on",
    "data.max_length_tokens": "longest sample",
}
TEXTS = ("data", "model", "mixer", "layers", "quantised", "dtype", "schedule", "optimiser", "prompt", "loss on")


class Differing(NamedTuple):
    """A setting in which runs differ, in plain words, and its value in each."""

    word: str
    values: list[str]


class Column(NamedTuple):
    """An evaluation of a task at a moment in each run that has it."""

    title: str
    found: list[EvaluationRecord | None]


def differing(runs: Sequence[StoredRun]) -> list[Differing]:
    """The first settings, of those with plain words, in which the runs' recipes differ."""
    found = []
    for name, word in WORDS.items():
        values = [_setting(run, name) for run in runs]
        if any(value != values[0] for value in values):
            found.append(Differing(word, [_shown(value) for value in values]))
    return found[:MOST]


def finals(record: RunRecord) -> list[EvaluationRecord]:
    """The evaluations of the trained adapter by the first way of scoring, those right after training first."""
    found = [one for moment in FINAL for one in record.evaluations if one.when == moment]
    return [one for one in found if one.agreement is None]


def is_like(one: EvaluationRecord, other: EvaluationRecord) -> bool:
    """Whether two evaluations are of the same: as many questions of a task, scored alike, at the same moment.

    What was evaluated later is as good as what was right after training, if it was asked in the same style.
    """
    at_once = one.when == other.when
    later = one.when in FINAL and other.when in FINAL and one.prompt == other.prompt
    contents = {(one.file.sha256, one.file.kind) for one in (one, other) if one.file}
    return (
        (at_once or later)
        and len(contents) < 2
        and all(getattr(one, name) == getattr(other, name) for name in ("task", "scoring", "total"))
    )


def alike(runs: Sequence[StoredRun], task: str | None = None) -> list[EvaluationRecord]:
    """An evaluation of each run's trained adapter, all of the same: of `task`, or of the first task they share."""
    first, *others = runs
    for one in finals(first.record):
        if task not in (None, one.task):
            continue
        found = [next((other for other in finals(run.record) if is_like(one, other)), None) for run in others]
        if None not in found:
            return [one, *filter(None, found)]
    return []


def columns(runs: Sequence[StoredRun]) -> list[Column]:
    """The evaluations by task, and in order before, after, evaluated, controls.

    Where no run was scored both right after training and later, and all of these are of the same, they are one column.
    """
    keys = dict.fromkeys((one.task, one.scoring, one.when) for run in runs for one in run.record.evaluations)
    found = {key: [_evaluation(run, key) for run in runs] for key in keys}
    for task, scoring, when in keys:
        after = (task, scoring, FINAL[0])
        if when == FINAL[1] and after in found and (both := _together(found[after], found[task, scoring, when])):
            found[after] = both
            del found[task, scoring, when]
    tasks = [*dict.fromkeys(task for task, _, _ in keys)]
    ordered = sorted(found, key=lambda key: (tasks.index(key[0]), _place(key[2]), key[1] == GENERATION))
    return [Column(_title(key), found[key]) for key in ordered]


def _together(
    after: Sequence[EvaluationRecord | None], later: Sequence[EvaluationRecord | None]
) -> list[EvaluationRecord | None]:
    """Two columns as one; empty where a run has both, or some are not of the same."""
    present = [one for one in (*after, *later) if one]
    if any(one and other for one, other in zip(after, later, strict=True)):
        return []
    if not all(is_like(present[0], one) for one in present):
        return []
    return [one or other for one, other in zip(after, later, strict=True)]


def _evaluation(run: StoredRun, key: tuple[str, str, str]) -> EvaluationRecord | None:
    return next((one for one in run.record.evaluations if (one.task, one.scoring, one.when) == key), None)


def _title(key: tuple[str, str, str]) -> str:
    task, scoring, when = key
    return f"{task}, {when}" + (", generated" if scoring == GENERATION else "")


def _place(when: str) -> int:
    return MOMENTS.index(when) if when in MOMENTS else len(MOMENTS)


def _setting(run: StoredRun, name: str) -> Any:
    found: Any = run.record.recipe
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _shown(value: Any) -> str:
    """A value in short: of paths their last part."""
    if value is None:
        return NONE
    parts = [*value] if isinstance(value, (list, dict)) else [value]
    text = ", ".join(Path(part).name if isinstance(part, str) and Path(part).suffix else str(part) for part in parts)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
