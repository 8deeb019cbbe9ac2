"""From the name of a data source to its samples: the built-in set, a local file or folder, or a set on the hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moslora.data.files import FORMATS_TEXT, Row, file_format, folder_hint, missing_file, read_rows
from moslora.data.folders import only, split_files, with_any_format
from moslora.data.hub import stay_offline_if_unreachable
from moslora.data.hub_tasks import HUB_TASKS
from moslora.data.reading import Reading
from moslora.data.tasks import EVERYDAY, TASKS, Task, check_answers
from moslora.errors import DataError, suggestion

_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.:%+\[\]-]+))?")


def load_samples(
    source: str,
    *,
    split: str = "train",
    limit: int | None = None,
    folder: str | None = None,
    built_in: Sequence[str] = (EVERYDAY,),
    reading: Reading | None = None,
) -> list[Row]:
    """The first `limit` samples of a source (None: all), in its own order, whose places go to `reading`.

    `source` is `everyday` (built in), a file in one of the formats of `moslora.data.files` (it has no splits, so
    `split` is not looked at), a folder (see `split_files`), or a hub id `owner/name[:config][@split]`. What exists on
    disk goes before the hub. A task's name is that task, as for `task_samples`.

    Raises DataError if nothing is there, with the nearest of the `built_in` names, or it cannot be read (with file and
    line), or it is empty.
    """
    _check_limit(limit)
    if not source.strip():
        raise _unknown_source(source, built_in)
    reading = reading or Reading(source)
    path = Path(source).expanduser()
    if source == EVERYDAY:
        rows = _everyday(split, limit)
    elif source in TASKS and (folder is not None or not path.exists()):
        rows = task_samples(TASKS[source], folder, split=split, limit=limit)
    elif path.is_dir():
        return _folder_rows(path, split, limit=limit, reading=reading)
    elif path.exists() or file_format(path) is not None:
        return read_rows(path, limit=limit, reading=reading)
    else:
        hub_id = _HUB_ID.fullmatch(source)
        if hub_id is None:
            raise _unknown_source(source, built_in)
        rows = _hub_samples(hub_id["name"], hub_id["config"], split=hub_id["split"] or split, limit=limit)
    reading.add(len(rows))
    return rows


def task_samples(task: Task, folder: str | None, *, split: str, limit: int | None = None) -> list[Row]:
    """The first `limit` checked questions of a task (None: all).

    `everyday` comes with the package; the others from `folder/split/task.jsonl` or `folder/task/split.json`, in any
    format that `load_samples` reads. Without a folder, the tasks of `HUB_TASKS` come from the hub.

    Raises DataError naming the places looked at, or the file, sample, field, value and allowed labels.
    """
    _check_limit(limit)
    if task.name == EVERYDAY:
        samples = _everyday(split, limit)
        check_answers(samples, task, source=f"{EVERYDAY} ({split})")
        return samples
    if folder is None and task.name in HUB_TASKS:
        hub = HUB_TASKS[task.name]
        rows = _hub_samples(hub.repository, hub.config, split=hub.split(split), limit=limit)
        samples, source = [hub.sample(row, number) for number, row in enumerate(rows, start=1)], hub.repository
    else:
        path = _task_file(task, folder, split)
        samples, source = read_rows(path, limit=limit), str(path)
    check_answers(samples, task, source=source)
    return samples


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, expected at least 1 sample, or none for all")


def _everyday(split: str, limit: int | None) -> list[Row]:
    from moslora.data.everyday import everyday

    return list(everyday(split))[:limit]


def _folder_rows(folder: Path, split: str, *, limit: int | None, reading: Reading) -> list[Row]:
    rows: list[Row] = []
    files = split_files(folder, split)
    for path in files:
        if limit is None or len(rows) < limit:
            rows += read_rows(path, limit=None if limit is None else limit - len(rows), reading=reading)
    if len(files) > 1:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        reading.remarks.append(f"{folder}: read {', '.join(path.name for path in files[:3])}{more}")
    return rows


def _task_file(task: Task, folder: str | None, split: str) -> Path:
    if folder is None:
        raise DataError(
            f"task '{task.name}' needs a data folder with {split}/{task.name}.jsonl or {task.name}/{split}.json; "
            f"give one (the hub is known for {', '.join(HUB_TASKS)}), or use the built-in task '{EVERYDAY}'"
        )
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise (
            missing_file(root)
            if not root.exists()
            else DataError(f"{root} is a file; give the folder that holds the tasks")
        )
    stems = [root / split / task.name, root / task.name / split]
    found = with_any_format(stems)
    if not found:
        looked = " and ".join(str(stem) for stem in stems)
        at = root / split if (root / split).is_dir() else root
        raise DataError(
            f"no {split} questions for task '{task.name}': looked for {looked} with the endings {FORMATS_TEXT}"
            f"{folder_hint(f'{task.name}.jsonl', at)}; check the folder"
        )
    return only(found)


def _unknown_source(source: str, built_in: Sequence[str]) -> DataError:
    path = Path(source).expanduser()
    hint = suggestion(source, built_in)
    if not hint and path.parent.is_dir() and source:
        hint = folder_hint(path.name, path.parent)
    return DataError(
        f"no data source '{source}'{hint} "
        f"(allowed: {', '.join(built_in)}, another task's name with its folder, a file ending in {FORMATS_TEXT}, a"
        " folder, or a hub id owner/name[:config][@split])"
    )


def _hub_samples(name: str, config: str | None, *, split: str, limit: int | None) -> list[Row]:
    import datasets

    stay_offline_if_unreachable()
    shown = f"{name}:{config}" if config else name
    try:
        dataset: Any = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises errors of many libraries; all mean the set cannot be had
        lines = str(error).splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise DataError(
            f"'{shown}' is not a local file or folder, and split '{split}' cannot be loaded from the hub ({reason}); "
            "check the name, the split and the network, or give a local file"
        ) from error
    if len(dataset) == 0:
        raise DataError(f"hub set '{shown}': no samples in split '{split}'; choose another split")
    dataset = _with_pictures_as_files(dataset)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return [dict(row) for row in dataset.select(range(count))]


def _with_pictures_as_files(dataset: Any) -> Any:
    """The set with pictures as `{bytes, path}`: decoded ones would fill the memory, and lose what a check looks for."""
    import datasets

    file = datasets.Image(decode=False)
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, file)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.List(file))
    return dataset
