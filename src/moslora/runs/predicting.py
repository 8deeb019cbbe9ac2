"""The answers of a model in the files that other programs score: VLMEvalKit's, and MMBench's server's."""

from pathlib import Path
from typing import Any

from moslora.data.vision_tasks import prediction_suffix, write_predictions, write_submission
from moslora.errors import ConfigError
from moslora.files import check_writable
from moslora.launch import is_first
from moslora.runs.active import Reporter
from moslora.runs.adapters import Opened, load_adapted
from moslora.runs.groups import ScoringSettings
from moslora.runs.kinds import kind_of
from moslora.runs.kinds.vision_language import answer_all

FILE_NAMES = {"mm-vet": "MMVet", "mathvista": "MathVista_MINI"}  # VLMEvalKit's words for the sets


def predict(opened: Opened, settings: ScoringSettings, folder: Path, *, report: Reporter) -> list[Path]:
    """Answer the tasks' questions and write a file a task into `folder`; returns the files.

    A task that another model judges gets VLMEvalKit's file of predictions, one of multiple choice MMBench's file of a
    submission. Raises ConfigError for a model without pictures.
    """
    kind = kind_of(opened.model.kind)
    if not kind.sees_pictures:
        raise ConfigError(f"{opened.adapter} is an adapter of a model without pictures: leave out --predictions")
    check_writable(folder)
    test_sets = kind.test_sets(settings)
    model, processor = load_adapted(opened)
    name = (opened.run.path if opened.run else opened.adapter).name
    written = []
    for test_set in test_sets:
        task, questions = test_set.task, test_set.samples
        if is_first():
            report(f"answering {task.name} ({len(questions)} questions)")
        how: dict[str, Any] = {"batch_size": settings.batch_size, "progress": is_first()}
        texts = answer_all(model, processor, questions, task=task, **how)
        if not is_first():
            continue
        path = folder / f"{name}_{FILE_NAMES.get(task.name, task.name)}{prediction_suffix()}"
        folder.mkdir(parents=True, exist_ok=True)
        write = write_predictions if task.rule is None else write_submission
        write(path, questions, texts=texts)
        written.append(path)
    return written
