"""The folder of one run: what lies where, and the checks that must pass before a model is loaded."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from moslora.errors import CheckpointError, ConfigError, OutputError
from moslora.files import ANOTHER, check_writable, is_leftover
from moslora.records import RunRecord
from moslora.runs.ownership import check_unowned, is_lock, owned

RECORD_NAME = "run.json"  # its presence makes a folder a run: written first
WRITING_SECONDS = 10.0  # to wait for another command that is only writing its numbers into a record


def check_there(path: str | Path) -> None:
    """Raise CheckpointError, with the nearest name beside it, for the path of a run or an adapter that is not there."""
    path = Path(path)
    if path.exists():
        return
    beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, n=1)
    advice = f"; did you mean {path.parent / near[0]}?" if near else ": give that of a run, or of a saved adapter"
    raise CheckpointError(f"there is no folder {path}{advice}")


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run's folder; nothing is created by naming them.

    `owner` is the folder whose checkpoints are shared, if that is another one (see `moslora.runs.processes`).
    """

    path: Path
    owner: Path | None = None

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False, resume: bool = False, needed_bytes: int = 0) -> Self:
        """A folder ready to be written: a new or empty one, an old run to resume, or an old run emptied.

        Raises what `check` raises. With `overwrite` the old run is removed only after every check has passed.
        """
        cls.check(path, overwrite=overwrite, resume=resume, needed_bytes=needed_bytes)
        folder = cls(Path(path))
        try:
            if overwrite and folder.record_path.exists():
                _empty(folder.path)
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot prepare the folder {path}: {error.strerror or error}; {ANOTHER}") from error
        return folder

    @classmethod
    def check(cls, path: str | Path, *, overwrite: bool = False, resume: bool = False, needed_bytes: int = 0) -> None:
        """Refuse a folder that a run cannot be written to; changes nothing.

        Raises `ConfigError` for contradicting options, `InUseError` for a run of another process that is still alive,
        and `OutputError` for a folder that is not empty, that has nothing to resume, that is not a run but is to be
        overwritten, that is not writable, or that lies on a disk with fewer than `needed_bytes` bytes free.
        """
        if overwrite and resume:
            raise ConfigError(
                "--resume and --overwrite exclude each other: the first resumes the run, the second starts over"
            )
        folder = cls(Path(path))
        if folder.path.exists() and not folder.path.is_dir():
            raise OutputError(f"{path} is a file, a run needs a folder; {ANOTHER}")
        check_unowned(path)
        is_used = folder.path.is_dir() and not all(is_leftover(it) or is_lock(it) for it in folder.path.iterdir())
        if resume and not folder.record_path.is_file():
            raise OutputError(f"there is no run to resume in {path} (no {RECORD_NAME}); start one without --resume")
        if overwrite and is_used:
            _refuse_to_remove(folder)
        if is_used and not (resume or overwrite):
            advice = "continue with --resume, start over with --overwrite, or " if folder.record_path.is_file() else ""
            raise OutputError(f"the folder {path} is not empty; {advice}{ANOTHER}")
        check_writable(folder.path, needed_bytes=needed_bytes)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The folder of an existing run. Raises `CheckpointError` if it is not one."""
        folder = cls(Path(path))
        if not folder.record_path.is_file():
            state = f"holds no {RECORD_NAME}" if folder.path.is_dir() else "is not a folder"
            raise CheckpointError(f"{path} {state}, so it is not a run; give the folder that `moslora train` wrote")
        return folder

    @property
    def record_path(self) -> Path:
        """The run's record, `run.json`."""
        return self.path / RECORD_NAME

    @property
    def metrics_path(self) -> Path:
        """The values logged while training, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def validation_path(self) -> Path:
        """The loss of each validation sample at the end, one JSON object a line: `loss`, `tokens`, `group`."""
        return self.path / "validation.jsonl"

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def sample_path(self) -> Path:
        """The first training sample as text, what is learned of it marked, where the kind of run shows one."""
        return self.path / "sample.txt"

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter."""
        return self.path / "adapter"

    @property
    def projector(self) -> Path:
        """The folder of the trained projector, of a run that trains nothing else."""
        return self.path / "projector"

    @property
    def model(self) -> Path:
        """The folder of the trained model, of a method that has no adapter."""
        return self.path / "model"

    @property
    def pictures_path(self) -> Path:
        """What the trained adapter looks like inside, layer by layer."""
        return self.path / "adapter.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints a run resumes from."""
        return (self.owner or self.path) / "checkpoints"

    @property
    def answers(self) -> Path:
        """The folder of the answers to every question, one file an evaluation."""
        return self.path / "answers"

    def record(self) -> RunRecord:
        """The run's record. Raises `CheckpointError` if it is missing or damaged."""
        return RunRecord.load(self.record_path)

    @contextmanager
    def changing_record(self) -> Iterator[RunRecord]:
        """The record of a run that nobody is at, to change; it is written at the end.

        Raises `InUseError` while another process holds the run, and what `record` raises.
        """
        with owned(self.path, wait_seconds=WRITING_SECONDS):
            record = self.record()
            yield record
            record.save(self.record_path)


def _empty(folder: Path) -> None:
    """Remove all that is in a folder, but a lock that lies there."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not is_lock(path):
            path.unlink()


def _refuse_to_remove(folder: RunFolder) -> None:
    """Only a run that is not somebody's working or home folder may be removed."""
    try:
        record = json.loads(folder.record_path.read_bytes())
    except (OSError, ValueError):
        record = None
    is_run = isinstance(record, dict) and "moslora_version" in record
    if not is_run:
        raise OutputError(f"{folder.path} is not a run of moslora, so --overwrite will not remove it; {ANOTHER}")
    here = folder.path.resolve()
    if folder.path.is_symlink() or any(place.is_relative_to(here) for place in (Path.cwd(), Path.home())):
        raise OutputError(f"--overwrite will not remove {folder.path}, a link or the folder you are in; {ANOTHER}")
