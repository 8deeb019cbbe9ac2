"""What one scoring leaves behind: right answers out of so many, or the loss of held-out samples."""

from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

Share = float  # between 0 and 1


class Record(BaseModel):
    """The base of all records."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, ser_json_inf_nan="strings")
    written_if_set: ClassVar[tuple[str, ...]] = ()  # fields that most records have no use for

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = serialise(self)
        unset = [name for name in self.written_if_set if getattr(self, name) in (None, {}, [])]
        return {name: value for name, value in found.items() if name not in unset}


class Score(Record):
    """Right answers out of so many, with a 95 % interval.

    What is scored as one counts once, however many answers it holds. Where it may be worth a part, or counts more than
    others, `accuracy` is the mean credit, and `correct` those with all of it.
    """

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


class Majority(Score):
    """What always giving one answer gets: a kind of question's commonest, or each kind's own over all of them."""

    answer: str | None = None


class Scored(Record):
    """How a task's answers became credits."""

    written_if_set = ("unit",)

    rule: str | None = None  # that read the answers and gave each its credit, where there are several
    is_counted: bool  # each unit is right or wrong and all count alike: the accuracy is a share, else a mean credit
    units: PositiveInt  # what is scored as one
    answers: PositiveInt
    unit: str | None = None  # what one is called, such as "picture"; None: a question


class TaskFile(Record):
    """The file of a task of one's own, as it was when it was scored."""

    path: str
    kind: str  # of task: "choice", "short", "samples" or "harness"
    sha256: str  # of the content


class EvaluationRecord(Score):
    """One task scored once."""

    written_if_set = ("scored", "unread", "label_share", "majority", "majority_by_kind", "file")

    task: str
    file: TaskFile | None = None  # of a task of one's own; former records do not say
    when: str  # "before", "after", "question removed", ...
    scoring: str  # "log_probability" or "generation"
    prompt: str | None = None  # the style of the questions: "alpaca", "plain" or "chat"; None in older records
    by_kind: dict[str, Score] = {}
    chance: Share | None = Field(None, ge=0, le=1)  # what guessing gets right, by each question's number of options
    groups: NonNegativeInt | None = None  # of questions that depend on each other, if the interval counts these
    agreement: Share | None = Field(None, ge=0, le=1)  # share of answers equal to the other scoring's, where both ran
    wall_seconds: float = Field(0.0, ge=0)
    scored: Scored | None = None  # where it is more than a share of right answers
    unread: NonNegativeInt | None = None  # answers in which nothing was found, where a rule or a pattern read them
    label_share: Share | None = Field(None, ge=0, le=1)  # of the probability, what a question's labels have together
    majority: Majority | None = None  # where a rule reads what is answered, and credits are whole
    majority_by_kind: dict[str, Majority] = {}


class LossRecord(Record):
    """Held-out samples scored once: the mean loss of a token (nats), with the 95 % interval for new samples."""

    written_if_set = ("file",)

    task: str
    file: TaskFile | None = None  # former records do not say
    when: str  # "before", "after", "evaluated"
    scoring: Literal["loss"] = "loss"
    prompt: str | None = None  # the style of the samples' prompts
    learned: str = "sequence"  # the tokens that the loss is of: "sequence" or "response"
    loss: float
    low: float | None = None  # None where one sample, or one group, tells nothing of others
    high: float | None = None
    perplexity: float  # exp(loss)
    samples: PositiveInt
    tokens: PositiveInt
    wall_seconds: float = Field(0.0, ge=0)
