"""The settings of a language model's run: instructions or chats, and questions with options."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from moslora.data.tasks import task as known_task
from moslora.errors import ConfigError
from moslora.runs.groups import ModelSettings, Recipe, SampleSettings, ScoringSettings, Text


class DataSettings(SampleSettings):
    """The training samples and how they become tokens."""

    format: Literal["instruction", "chat"] = "instruction"
    prompt: Literal["alpaca", "plain"] = "alpaca"
    max_length_tokens: Annotated[int, Field(ge=8)] = 256
    leave_out_longer: bool = False  # leave out longer samples, instead of cutting them
    ignore: list[Text] = Field(
        default_factory=list
    )  # fields of samples and messages to go without, which would be refused or noted
    loss_on: Literal["sequence", "response"] = "sequence"  # response: the prompt (or the user's turns) is masked
    packing: bool = False  # several samples in one row, kept apart

    @model_validator(mode="after")
    def _rows_are_samples(self) -> Self:
        if self.packing and self.together is not None:
            raise ConfigError(f"data.together={self.together} does not work with data.packing: set one of them")
        return self

    @property
    def trained_with(self) -> str:
        """The prompt style of the training samples: `prompt`, or `chat` for chats."""
        return "chat" if self.format == "chat" else self.prompt


class EvaluationSettings(ScoringSettings):
    """What is scored after training."""

    ways: ClassVar[tuple[str, ...]] = ("log_probability", "generation")

    prompt: Literal["alpaca", "plain", "chat"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    # generation: the paper's protocol
    scoring: Literal["log_probability", "generation"] = "log_probability"  # pyright: ignore[reportIncompatibleVariableOverride]
    question_removed: bool = False  # score with the options only: what position and wording give away
    agreement_questions: Annotated[int, Field(ge=0)] = 0  # scored by generation too, and compared

    @classmethod
    def check_task(cls, name: str) -> None:
        """Raise ConfigError for a task that is not known."""
        known_task(name)


class LanguageRecipe(Recipe):
    """Every setting of a language model's run."""

    kind: Literal["language"] = "language"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: ModelSettings
    data: DataSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    evaluation: EvaluationSettings = EvaluationSettings()  # pyright: ignore[reportIncompatibleVariableOverride]
