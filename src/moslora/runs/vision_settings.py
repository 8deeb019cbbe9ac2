"""The settings of a vision-language model's run: conversations with pictures, and questions about pictures."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from moslora.errors import ConfigError
from moslora.runs.groups import ModelSettings, Names, Recipe, SampleSettings, ScoringSettings, TrainingSettings


class VisionModelSettings(ModelSettings):
    """The pretrained model and how it is loaded; quantisation is of the language model only."""

    kind: ClassVar[str] = "vision_language"

    padding: Literal["own", "square", "crop"] = "own"
    """For pictures that are not square; own: what the model's processor does."""


class VisionDataSettings(SampleSettings):
    """The conversations, their pictures, and how they become tokens; the answers carry the loss."""

    style: ClassVar[str] = "chat"  # of every prompt: the chat template's

    image_folder: str | None = None
    """The folder of the pictures; not given: beside the file of conversations."""
    max_length_tokens: Annotated[int, Field(ge=8)] = 2048
    """The longest sample, pictures included; longer ones are cut, a picture never is."""
    ignore: Names = Field(default_factory=list)
    """Fields of samples and messages to leave out, which would otherwise be refused or noted."""
    skip_bad: bool = False
    """Leave out, and count, samples whose picture or text cannot be used."""
    cache_features: bool = False
    """Compute a frozen tower's features once, and keep them as files."""

    @property
    def trained_with(self) -> str:
        """Always the chat template."""
        return self.style


class VisionTrainingSettings(TrainingSettings):
    """How the adapters and the projector are trained."""

    projector_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """For a trained projector; not given: `learning_rate`."""

    @property
    def rates_by_part(self) -> dict[str, float]:
        """The projector's rate, if it has its own."""
        return {} if self.projector_learning_rate is None else {"projector": self.projector_learning_rate}


class VisionEvaluationSettings(ScoringSettings):
    """What is scored after training."""

    ways: ClassVar[tuple[str, ...]] = ("generation",)

    scoring: Literal["generation"] = "generation"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Answers are generated, and read by the task's rule."""
    prompt: Literal["chat"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """The questions' prompt: always the chat template."""
    picture_blanked: bool = False
    """Ask once more with grey pictures: what the question alone gives away."""
    question_removed: bool = False
    """Ask once more with the options only, where a task has options."""

    @classmethod
    def check_task(cls, name: str) -> None:
        """Raise ConfigError for a task that is not known."""
        from moslora.data.vision_tasks import vision_task  # brings numpy, which reading a recipe must not

        vision_task(name)


class VisionRecipe(Recipe):
    """Every setting of a vision-language model's run."""

    kind: Literal["vision_language"]  # pyright: ignore[reportIncompatibleVariableOverride]
    model: VisionModelSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    data: VisionDataSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    training: VisionTrainingSettings = VisionTrainingSettings()  # pyright: ignore[reportIncompatibleVariableOverride]
    evaluation: VisionEvaluationSettings = VisionEvaluationSettings()  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="after")
    def _rates_are_used(self) -> Self:
        choice = self.adapter.options.get("projector", "frozen")
        if self.training.projector_learning_rate is not None and choice == "frozen":
            raise ConfigError(
                f"training.projector_learning_rate {self.training.projector_learning_rate} would do nothing, since"
                " adapter.projector is frozen: set it to trained, or remove the rate"
            )
        return self
