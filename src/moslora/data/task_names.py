"""What stands in `evaluation.tasks`: a built-in task, the path of a file, or `harness:NAME`.

A file is told by its fields (see `task_files`); where these fit more than one kind of task, its sort stands before the
path: `choice:mine.csv`. A task is called after its file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from moslora.data.files import FORMATS, file_format
from moslora.data.tasks import TASKS
from moslora.errors import ConfigError, suggestion

CHOICE, SHORT, SAMPLES = "choice", "short", "samples"
SORTS = (CHOICE, SHORT, SAMPLES)
HARNESS = "harness"  # before the name of a task of lm-evaluation-harness


class TaskName(NamedTuple):
    """A task as it is written: the `name` that it has in records, and where it comes from.

    `sort` is None for a built-in task and for a file that is told by its fields; `path` is None for all but files.
    `spec` is what lm-evaluation-harness calls its task.
    """

    name: str
    sort: str | None = None
    path: Path | None = None
    spec: str | None = None


def task_name(written: str) -> TaskName:
    """What a text in `evaluation.tasks` names; whether a file is there is not looked at.

    Raises ConfigError, with the nearest name, for one that is neither built in nor the path of a file.
    """
    if written in TASKS:
        return TaskName(written)
    sort, _, rest = written.partition(":")
    if sort == HARNESS and rest:
        return TaskName(f"{HARNESS}-{Path(rest).stem}", HARNESS, spec=rest)
    if sort in SORTS and rest:
        return _file(rest, sort)
    if _is_path(written):
        return _file(written, None)
    raise ConfigError(
        f"unknown task '{written}'{suggestion(written, TASKS)} (allowed: {', '.join(sorted(TASKS))}, the path of a"
        f" file ending in {', '.join(FORMATS)}, or {HARNESS}:NAME)"
    )


def task_path(written: str) -> tuple[str, Path] | None:
    """The name and the path of a task that may be a file; None for what is known by name, or not at all."""
    try:
        found = task_name(written)
    except ConfigError:
        return None
    path = Path(found.spec) if found.spec else found.path
    return (found.name, path) if path else None


def check_names(written: Sequence[str]) -> None:
    """Raises ConfigError for two tasks that records would call the same, or a file called as a built-in task."""
    known: dict[str, str] = {}
    for text in written:
        found = task_name(text)
        if found.path is not None and found.name in TASKS:
            raise ConfigError(
                f"{text}: the file has the same name as the built-in task '{found.name}'; rename the file"
            )
        other = known.setdefault(found.name, text)
        if other != text:
            raise ConfigError(f"{other} and {text} would both be called '{found.name}' in records; rename one file")


def _is_path(written: str) -> bool:
    return file_format(Path(written)) is not None or "/" in written or "\\" in written


def _file(path: str, sort: str | None) -> TaskName:
    name = Path(path).name.removesuffix(".gz")
    return TaskName(Path(name).stem, sort, Path(path))
