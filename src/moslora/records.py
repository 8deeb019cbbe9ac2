"""What a run or a comparison leaves behind: settings, machine, numbers and artifacts as JSON files.

Nothing here imports torch, so reports can read thousands of records quickly.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, NonNegativeInt, ValidationError

from moslora import __version__
from moslora.errors import CheckpointError
from moslora.files import write_atomically
from moslora.score_records import EvaluationRecord, LossRecord, Majority, Record, Score, Scored, Share, TaskFile

__all__ = [
    "AdapterPictures",
    "ArmResult",
    "ComparisonRecord",
    "Cost",
    "CoverageRecord",
    "Difference",
    "EvaluationRecord",
    "LayerPicture",
    "LossRecord",
    "Majority",
    "Parameters",
    "PartRecord",
    "RunRecord",
    "Score",
    "Scored",
    "Status",
    "TaskFile",
    "TaskResult",
    "TuningResult",
]

Status = Literal["running", "finished", "interrupted", "failed"]
RESUMED = "resumed after an interruption; the times leave out a process that was killed"
EXPORTS = ("folded", "merged")  # the artifacts that are compared with the adapter


class _File(Record):
    """A record that is a file of its own."""

    title: ClassVar[str]
    writer: ClassVar[str] = "moslora train"

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record. Raises `CheckpointError` naming the file and the first field that is wrong."""
        path = Path(path)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise CheckpointError(f"no {cls.title} at {path}; give the folder that `{cls.writer}` wrote") from error
        except OSError as error:
            raise CheckpointError(f"cannot read the {cls.title} {path}: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole file"
            raise CheckpointError(
                f"{path} is not a {cls.title} of moslora {__version__}: {field}: {first['msg']}"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the record atomically as JSON. Raises `OutputError` if it cannot be written."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")


class Parameters(Record):
    """How many parameters the model has, how many are trained, and how many of these are mixers."""

    trainable: NonNegativeInt
    total: NonNegativeInt
    mixer: NonNegativeInt = 0


class PartRecord(Record):
    """What is adapted and trained in one part of a model, such as its vision tower."""

    part: str
    layers: NonNegativeInt  # linear layers, convolutions and embeddings
    adapted: NonNegativeInt  # those of them that carry the adapter
    quantised: NonNegativeInt  # those whose weight is quantised
    ranks: list[int] = []  # of these and of the next three, each value in use once
    alphas: list[float] = []
    dropouts: list[float] = []
    mixers: list[str] = []
    parameters: NonNegativeInt = 0  # of the adapter, mixers included
    mixer_parameters: NonNegativeInt = 0
    whole_parameters: NonNegativeInt = 0  # of modules trained themselves, as a projector
    trained_parameters: NonNegativeInt = 0
    dead: list[str] | None = None  # trained modules that no gradient reached; None where nobody looked


class CoverageRecord(Record):
    """How much of the base's weights (matrices, kernels, experts; not biases and norms) the adapter changes."""

    written_if_set = ("parts",)

    adapted: NonNegativeInt
    total: NonNegativeInt
    experts_left_out: list[str] = []  # such as experts.down_proj
    parts: list[PartRecord] | None = None  # of a model made of parts


class RunRecord(_File):
    """One run from its resolved recipe to its numbers; the file `run.json` of a run's folder."""

    title = "run record"
    written_if_set = ("validation_perplexity", "losses", "planned_steps", "resumptions", "exports")

    moslora_version: str = __version__
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    status: Status = "running"
    recipe: dict[str, Any]  # every setting, defaults included
    seed: int
    versions: dict[str, str] = {}  # python and the libraries the numbers depend on
    machine: dict[str, str | int | float | None] = {}  # platform, cpu, cores, memory_bytes, accelerator
    parameters: Parameters | None = None
    coverage: CoverageRecord | None = None
    wall_seconds: dict[str, float] = {}  # by part of the run: train, evaluate, ...
    peak_memory_bytes: int | None = None
    train_loss: float | None = None
    validation_loss: float | None = None  # of the weights kept, where validation samples were set apart
    validation_perplexity: float | None = None  # exp of it, where it is the loss of a token
    steps: NonNegativeInt = 0
    planned_steps: NonNegativeInt | None = None  # of the weights of a run that stopped at `steps`, before its end
    evaluations: list[EvaluationRecord] = []
    losses: list[LossRecord] = []  # of held-out samples
    artifacts: dict[str, str] = {}  # what was written, and where (relative to the run's folder)
    exports: dict[str, str] = {}  # by artifact: how far its tensors and outputs are from the adapter's, in words
    resumptions: NonNegativeInt | None = None  # how often it was resumed; former records know that it was
    notes: list[str] = []

    @property
    def told(self) -> list[str]:
        """What a reader should know of the run: its notes, and how its exports were verified."""
        return [*self.notes, *(f"{name}: {verdict}" for name, verdict in self.exports.items())]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """As any record; what former ones told in notes alone becomes fields."""
        record = super().load(path)
        if record.resumptions is None and any(note.startswith(RESUMED) for note in record.notes):
            record.resumptions = 1
        verdicts = {name: note for note in record.notes for name in EXPORTS if note.startswith(f"{name}: ")}
        record.exports = {name: note.removeprefix(f"{name}: ") for name, note in verdicts.items()} | record.exports
        record.notes = [note for note in record.notes if note not in verdicts.values()]
        return record


class LayerPicture(Record):
    """The inside of one adapted layer; distances are Frobenius norms as shares of the norm of what they are from."""

    name: str
    rank: int
    update_norm: float  # of scale · B·M·A
    singular_values: list[float]  # of the update, largest first, at most `rank`
    effective_rank: float  # exponential of the entropy of the normalised singular values, 1 to rank
    mixer: list[list[float]] | None = None  # the chain as one R × R matrix, where R is at most 64
    mixer_from_start: float | None = None
    mixer_from_identity: float | None = None
    mixer_from_orthogonal: float | None = None  # of MᵀM from the identity


class AdapterPictures(_File):
    """What a trained adapter looks like inside; the file `adapter.json` of a run's folder."""

    title = "set of adapter pictures"

    method: str
    layers: list[LayerPicture]


class Cost(Record):
    """What one arm costs on one machine, measured apart from the training runs."""

    seconds_per_step: float  # median
    peak_memory_bytes: int  # of the process, or of the accelerator
    trainable: NonNegativeInt
    steps: int  # measured


class TaskResult(Record):
    """An arm's accuracy on a task (or "average"): mean over seeds with a 95 % interval (None with one seed).

    The interval is for new seeds and new questions. A diverged seed has what guessing would get.
    """

    mean: Share
    low: Share | None = None
    high: Share | None = None
    per_seed: dict[str, Share] = {}


class ArmResult(Record):
    """One row of a comparison's table."""

    written_if_set = ("controls", "losses")

    arm: str  # label, e.g. "moslora" or "moslora r=8 50%"
    method: str
    options: dict[str, Any] = {}
    rank: int | None = None
    fraction: Share = 1.0
    learning_rate: float | None = None  # the one chosen on validation data
    trainable: int | None = None
    cost: Cost | None = None
    train_seconds: float | None = None  # median over the runs themselves
    peak_memory_bytes: int | None = None  # largest over the runs themselves
    tasks: dict[str, TaskResult] = {}  # each task, and "average"
    losses: dict[str, TaskResult] = {}  # of held-out samples, by task: the mean loss of a token
    controls: dict[str, dict[str, Share]] = {}  # by what was taken away ("picture blanked"), then task: mean accuracy
    runs: dict[str, str] = {}  # seed to run folder, relative to the comparison's
    failed: dict[str, str] = {}  # seed to the reason in a line
    diverged: list[str] = []  # the seeds at which training diverged; they count as guessing
    doubts: list[str] = []  # what makes the choice of its learning rate uncertain, in a few words each
    cannot: str | None = None  # what the method cannot do here, in a line


class Difference(Record):
    """An arm against the baseline on a task (or "average"), paired by seed: of accuracies, or of losses in nats."""

    arm: str
    baseline: str
    task: str
    mean: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None  # Holm: the average over its arms, single tasks over arms and tasks
    seeds: int
    verdict: str


class TuningResult(Record):
    """One learning rate tried for an arm."""

    arm: str
    learning_rate: float
    validation_loss: float | None
    run: str
    is_chosen: bool = False


class ComparisonRecord(_File):
    """A comparison from its plan to its verdict; the file `comparison.json` of its folder."""

    title = "comparison record"
    writer = "moslora compare"
    written_if_set = ("scored", "loss_differences")

    moslora_version: str = __version__
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    plan: dict[str, Any]
    versions: dict[str, str] = {}
    machine: dict[str, str | int | float | None] = {}
    baseline: str
    tasks: list[str]  # with an accuracy
    arms: list[ArmResult]
    chance: dict[str, Share] = {}  # by task, what guessing gets right; missing where it is not known
    groups: dict[str, int] = {}  # by task, how many groups its questions form, where they depend on each other
    scored: dict[str, Scored] = {}  # by task; missing where each answer is right or wrong and counts alike
    differences: list[Difference] = []
    loss_differences: list[Difference] = []  # on held-out samples: below 0 the arm's loss is lower, which is better
    tuning: list[TuningResult] = []
    is_complete: bool = True
    verdict: str = ""  # one sentence over all of it
    notes: list[str] = []
