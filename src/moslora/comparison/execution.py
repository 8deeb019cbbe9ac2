"""One run of a comparison: at most one process does it, a failure is kept as a line, and what is not needed goes.

Beside a run's folder lie its lock (`moslora.runs.ownership`), `.NAME.begun` (removed at its end, but for
a kill) and, after a failure, `NAME.failed` (a JSON object: `reason` in a line, and whether training `diverged`).
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moslora.comparison.matrix import Run
from moslora.comparison.memory import forget_peak_memory, release_memory
from moslora.errors import CheckpointError, DivergedError, InUseError, MosloraError, OutputError
from moslora.files import write_atomically
from moslora.launch import agreed, are_several, is_first
from moslora.records import RunRecord
from moslora.runs.folder import RunFolder
from moslora.runs.ownership import owned
from moslora.runs.recipe import parse_recipe
from moslora.runs.run import run_recipe

START, RESUME, SKIP = "start", "resume", "skip"  # what the first process decides about a run
DONE = ("finished", "diverged")  # a run that diverged would diverge again
State = Literal["open", "finished", "diverged", "failed", "busy"]


@dataclass(frozen=True)
class Outcome:
    """Where a run stands: its record once finished, the reason in a line if it failed or diverged."""

    state: State
    record: RunRecord | None = None
    reason: str = ""


def outcome(run: Run, folder: Path) -> Outcome:
    """What the disk says of a run, which may have been done under another name; changes nothing."""
    place = RunFolder(folder / run.folder)
    try:
        record = place.record()
    except CheckpointError:
        record = None
    if record is not None and record.status == "finished":
        done = parse_recipe(record.recipe | {"name": run.recipe.name}, source=str(place.record_path))
        if done != run.recipe:
            return Outcome("failed", None, f"{place.path} holds a run with other settings: remove it")
        loss = record.validation_loss
        if run.kind == "tuning" and (loss is None or not math.isfinite(loss)):
            return Outcome("diverged", record, f"the validation loss is {loss}")
        return Outcome("finished", record)
    return _failure(place) or Outcome("open")


def execute(run: Run, folder: Path) -> Outcome:
    """Do a run, or what is left of it; finished runs, and those that diverged, are left as they are.

    A failure becomes a reason in a line. Where several processes were launched, the first one decides, and all do the
    run together; one that fails alone raises its error, for the launcher to end the others, which wait for it. Raises
    KeyboardInterrupt once the run's checkpoint is saved.
    """
    place = RunFolder(folder / run.folder)
    if not is_first():
        return _follow(run, folder)
    place.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with owned(place.path):
            found = outcome(run, folder)
            if found.state in DONE:
                _keep_what_is_needed(run, place)
                agreed(SKIP)
                return found
            resume = place.record_path.is_file()
            if not _can_start(place, resume=resume):
                agreed(SKIP)
                return outcome(run, folder)
            agreed(RESUME if resume else START)
            with _failure_kept(place):
                forget_peak_memory()
                run_recipe(run.recipe, place.path, resume=resume, progress=False)
                _keep_what_is_needed(run, place)
            agreed(None)
            found = outcome(run, folder)
            if found.state == "diverged":
                shutil.rmtree(place.checkpoints, ignore_errors=True)
            return found
    except InUseError as error:
        agreed(SKIP)
        return Outcome("busy", None, str(error))


def _follow(run: Run, folder: Path) -> Outcome:
    """Do what the first process does; what comes of it is its own to write."""
    decision = agreed(None)
    if decision != SKIP:
        try:
            run_recipe(run.recipe, folder / run.folder, resume=decision == RESUME, progress=False)
        except Exception as error:  # the first process writes the reason down
            if not _is_in_all(error):
                raise
        finally:
            release_memory()
        agreed(None)
    return outcome(run, folder)


def has_failed(run_folder: Path) -> bool:
    """Whether a run failed, or its process was killed; while a process is at it, it seems so too."""
    place = RunFolder(run_folder)
    return _failure_file(place).is_file() or _begun_file(place).is_file()


def _can_start(place: RunFolder, *, resume: bool) -> bool:
    """Whether the folder takes a run, which the first process alone can tell; else the reason is kept."""
    try:
        RunFolder.check(place.path, resume=resume)
    except MosloraError as error:
        keep_failure(place, error)
        return False
    return True


def _is_in_all(error: Exception) -> bool:
    """Whether every process meets this error at the same place: what is wrong with a recipe, not with a disk."""
    is_of_recipe = isinstance(error, MosloraError) and not isinstance(error, OutputError)
    return is_of_recipe or not are_several()


@contextmanager
def _failure_kept(place: RunFolder) -> Iterator[None]:
    begun = _begun_file(place)
    begun.touch()
    try:
        yield
    except Exception as error:  # whatever it is, the other runs go on
        keep_failure(place, error)
        if not _is_in_all(error):
            raise
    else:
        _failure_file(place).unlink(missing_ok=True)
    finally:
        begun.unlink(missing_ok=True)
        release_memory()  # or this run's model would stay beside the next one's


def keep_failure(place: RunFolder, error: Exception) -> None:
    """Write down beside a run's folder why it failed."""
    first_line = next(iter(str(error).splitlines()), "")
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    failure = {"reason": f"{kind}{first_line}", "diverged": isinstance(error, DivergedError)}
    write_atomically(_failure_file(place), json.dumps(failure, ensure_ascii=False) + "\n")


def _failure(place: RunFolder) -> Outcome | None:
    """What a run's failure left; None without one. Former ones are the reason alone."""
    path = _failure_file(place)
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8").strip()
    try:
        failure = json.loads(text)
        reason, is_diverged = failure["reason"], failure["diverged"]
    except (ValueError, TypeError, KeyError):
        reason, is_diverged = text, text.startswith("training diverged")
    return Outcome("diverged" if is_diverged else "failed", None, reason)


def _keep_what_is_needed(run: Run, place: RunFolder) -> None:
    """Remove checkpoints, and weights that are not an adapter to keep: those of tuning runs, and whole models."""
    shutil.rmtree(place.checkpoints, ignore_errors=True)
    record = place.record()
    removed = [name for name in record.artifacts if name == "model" or run.kind == "tuning"]
    for name in removed:
        shutil.rmtree(place.path / record.artifacts[name], ignore_errors=True)
    if run.kind == "tuning":
        place.pictures_path.unlink(missing_ok=True)
    if removed:
        record.artifacts = {name: path for name, path in record.artifacts.items() if name not in removed}
        record.notes = [*record.notes, "its weights were removed by `moslora compare` to save space"]
        record.save(place.record_path)


def _begun_file(place: RunFolder) -> Path:
    return place.path.with_name(f".{place.path.name}.begun")


def _failure_file(place: RunFolder) -> Path:
    return place.path.with_name(f"{place.path.name}.failed")
