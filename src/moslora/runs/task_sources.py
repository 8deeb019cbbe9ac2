"""Tasks that are files of one's own: which file it was, and names that keep two files apart in one record."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moslora.data.short_files import ShortTask
from moslora.data.task_names import CHOICE, HARNESS, SAMPLES, SHORT, task_path
from moslora.records import EvaluationRecord, LossRecord, RunRecord, TaskFile
from moslora.runs.active import Reporter
from moslora.runs.kinds.harness_tasks import HarnessTask
from moslora.runs.kinds.language_tasks import HeldOutTask
from moslora.runs.material import TestSet

KINDS = MappingProxyType({HeldOutTask: SAMPLES, ShortTask: SHORT, HarnessTask: HARNESS})

Scored = EvaluationRecord | LossRecord


def task_files(written: Sequence[str], test_sets: Sequence[TestSet]) -> dict[str, TaskFile]:
    """The file of each test set that is of one, by the task's name; `written` are the tasks in the settings."""
    paths: Mapping[str, Path] = dict(found for text in written if (found := task_path(text)))
    return {
        one.task.name: _file(paths[one.task.name], one.task)
        for one in test_sets
        if one.task.name in paths and paths[one.task.name].expanduser().is_file()
    }


def kept_apart(
    test_sets: Sequence[TestSet], files: dict[str, TaskFile], record: RunRecord | None, *, when: str, report: Reporter
) -> tuple[list[TestSet], dict[str, TaskFile]]:
    """The test sets and their files under names that the record has for no other file.

    A file whose content has changed keeps its name where all that is replaced was scored at the moment `when`. `report`
    is told of every new name, and of numbers of a file as it was.
    """
    scored: list[Scored] = [*record.evaluations, *record.losses] if record else []
    found, named = [], {}
    for one in test_sets:
        file = files.get(one.task.name)
        if file is None:
            found.append(one)
            continue
        named_so = ((name, [had for had in scored if had.task == name]) for name in _names(one.task.name, file))
        name, before = next(pair for pair in named_so if _is_free(pair[1], file, when=when))
        if name != one.task.name:
            report(f"{file.path} is called '{name}' here: the run has scored another '{one.task.name}', which is kept")
        elif any(not _is_same(had, file) for had in before):
            report(f"{file.path} has changed since it was scored: what '{name}' got then is replaced")
        notes = [re.sub(rf"^{re.escape(one.task.name)}(?=: )", name, note) for note in one.notes]
        found.append(replace(one, task=replace(one.task, name=name), notes=notes))
        named[name] = file
    return found, named


def _names(stem: str, file: TaskFile) -> Iterator[str]:
    """The name of the file without its ending, with it, and with a number."""
    yield stem
    whole = Path(file.path).name
    yield whole if whole.startswith(stem) else f"{stem}{Path(whole).suffix}"
    yield from (f"{stem}-{number}" for number in count(2))


def _is_free(scored: Sequence[Scored], file: TaskFile, *, when: str) -> bool:
    """Whether what has a name is of this file, or of this file as it was and replaced as a whole."""
    replaced = all(had.when == when and had.file and _place(had.file) == _place(file) for had in scored)
    return replaced or all(_is_same(had, file) for had in scored)


def _is_same(had: Scored, file: TaskFile) -> bool:
    """Whether it is of the same content, read as the same kind of task; records of former versions do not say."""
    return had.file is None or (had.file.sha256, had.file.kind) == (file.sha256, file.kind)


def _place(file: TaskFile) -> tuple[str, str]:
    return file.path, file.kind


def _file(path: Path, task: Any) -> TaskFile:
    whole, kind = path.expanduser().absolute(), KINDS.get(type(task), CHOICE)
    return TaskFile(path=str(whole), kind=kind, sha256=hashlib.sha256(whole.read_bytes()).hexdigest())
