"""What a run leaves behind: its settings, machine, numbers and artifacts as one JSON file.

Nothing here imports torch, so reports can read thousands of records quickly.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from moslora import __version__
from moslora.errors import CheckpointError
from moslora.files import write_atomically

Status = Literal["running", "finished", "interrupted", "failed"]
Share = float  # between 0 and 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, ser_json_inf_nan="strings")


class Score(_Record):
    """Right answers out of so many, with a 95 % interval."""

    correct: NonNegativeInt
    total: NonNegativeInt
    accuracy: Share = Field(ge=0, le=1)
    low: Share = Field(ge=0, le=1)
    high: Share = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.correct > self.total:
            raise ValueError(f"{self.correct} correct answers out of {self.total}")
        return self


class EvaluationRecord(Score):
    """One task scored once."""

    task: str
    when: str  # "before", "after", "question removed", ...
    scoring: str  # "log_probability" or "generation"
    by_kind: dict[str, Score] = {}
    agreement: Share | None = Field(None, ge=0, le=1)  # share of answers equal to the other scoring's, where both ran
    wall_seconds: float = Field(0.0, ge=0)


class Parameters(_Record):
    """How many parameters the model has, how many are trained, and how many of these are mixers."""

    trainable: NonNegativeInt
    total: NonNegativeInt
    mixer: NonNegativeInt = 0


class RunRecord(_Record):
    """One run from its resolved recipe to its numbers; the file `run.json` of a run's folder."""

    moslora_version: str = __version__
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    status: Status = "running"
    recipe: dict[str, Any]  # every setting, defaults included
    seed: int
    versions: dict[str, str] = {}  # python and the libraries the numbers depend on
    machine: dict[str, str | int | float | None] = {}  # platform, cpu, cores, memory_bytes, accelerator
    parameters: Parameters | None = None
    wall_seconds: dict[str, float] = {}  # by part of the run: train, evaluate, ...
    peak_memory_bytes: int | None = None
    train_loss: float | None = None
    steps: NonNegativeInt = 0
    evaluations: list[EvaluationRecord] = []
    artifacts: dict[str, str] = {}  # what was written, and where (relative to the run's folder)
    notes: list[str] = []

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record. Raises `CheckpointError` naming the file and the first field that is wrong."""
        path = Path(path)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise CheckpointError(f"no run record at {path}; give the folder that `moslora train` wrote") from error
        except OSError as error:
            raise CheckpointError(f"cannot read the run record {path}: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole file"
            raise CheckpointError(
                f"{path} is not a run record of moslora {__version__}: {field}: {first['msg']}"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the record atomically as JSON. Raises `OutputError` if it cannot be written."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")
