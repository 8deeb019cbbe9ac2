"""The settings of a subject's run: a text-to-image model learns a subject or a style from a few pictures."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from moslora.errors import ConfigError, unknown_name
from moslora.runs.groups import Count, ModelSettings, Recipe, SampleSettings, ScoringSettings, Text, TrainingSettings

SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # device maps over several devices
EMOJI = "emoji:"  # before the name of a subject that comes with the package
OF_SCENES = ("background", "place", "size", "count", "identity-by-colour", "identity-by-features")
MEASURES = ("subject-similarity", "prompt-similarity", "likeness-to-base", "originality", *OF_SCENES)
REAL = "real pictures"  # measured as if they had been drawn
CAPTION = "caption"  # the prompt style: what is drawn is described as the pictures are


class SubjectModelSettings(ModelSettings):
    """The pretrained pipeline and how it is loaded."""

    kind: ClassVar[str] = "subject"

    variant: str | None = None
    """The variant of the weights' files, such as fp16."""
    autoencoder: str | None = None
    """Hub id or folder of an autoencoder to use instead of the pipeline's own."""
    autoencoder_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The autoencoder's type; SDXL's own overflows in float16."""

    @model_validator(mode="after")
    def _is_loaded_whole(self) -> Self:
        if self.quantize != "none":
            raise ConfigError(f"model.quantize {self.quantize} is for language models: leave it out")
        if self.device_map in SPREAD:
            raise ConfigError(
                f"model.device_map {self.device_map}: all parts must be on one device; name it, such as cuda:0"
            )
        return self


class SubjectDataSettings(SampleSettings):
    """The pictures, what they are called, and how they are cut."""

    prompt: Text | None = None
    """The prompt of every picture, such as `a photo of sks dog`."""
    captions: Literal["prompt", "files", "names"] | None = None
    """Where a picture's caption comes from; not given: the prompt, else a file beside it (.txt), else its own name."""
    class_prompt: Text | None = None
    """For prior preservation, such as `a photo of a dog`: learned beside the subject."""
    class_folder: str | None = None
    """Pictures for `class_prompt`; missing ones are drawn by the untrained model and kept."""
    class_pictures: Count = 100
    """How many pictures of the class to use."""
    resolution: Annotated[int, Field(ge=16)] | None = None
    """The pictures' side in pixels; not given: the model's own."""
    crop: Literal["centre", "random"] = "centre"
    """Where the square is cut out of a picture."""
    flip: bool = False
    """Mirror every other visit; wrong for subjects with a left and a right."""
    buckets: bool = False
    """Keep each picture's shape, as nearly as the model allows, instead of a square."""
    cache: bool = True
    """Encode each picture once; not with random crops or mirroring."""
    validation_steps: Count = 8
    """How many noise steps each validation picture is tried at."""

    @property
    def rows_a_validation_sample(self) -> int:
        """`validation_steps`."""
        return self.validation_steps

    @property
    def trained_with(self) -> str:
        """Always captions."""
        return CAPTION

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.cache and (self.crop == "random" or self.flip):
            chosen = "data.crop: random" if self.crop == "random" else "data.flip"
            raise ConfigError(
                f"{chosen} makes each visit another picture, which data.cache would undo: set it to false"
            )
        if self.class_folder is not None and self.class_prompt is None:
            raise ConfigError("data.class_folder needs data.class_prompt, which says what its pictures show")
        return self


class SubjectTrainingSettings(TrainingSettings):
    """How the adapters are trained."""

    prior_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the class's pictures in the loss, relative to the subject's."""
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    """Weights noise steps by their signal, 5 is usual; not given: all count alike."""
    text_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """For the text encoders; not given: `learning_rate`."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keeps a moving average of the weights in their place; 0.999 is usual."""
    draw_every_steps: Count | None = None
    """How often `evaluation.prompts` are drawn during training."""
    draw_prompts: Count = 4
    """How many of the prompts, from the first on, are drawn then."""

    @property
    def rates_by_part(self) -> dict[str, float]:
        """The text encoders' rate, if they have their own."""
        rate = self.text_learning_rate
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return {} if rate is None else dict.fromkeys(names, rate)

    @property
    def average_decay(self) -> float | None:
        """`ema_decay`."""
        return self.ema_decay


class SubjectEvaluationSettings(ScoringSettings):
    """What is drawn after training, and measured."""

    ways: ClassVar[tuple[str, ...]] = ("drawing",)
    references: ClassVar[tuple[str, ...]] = (REAL,)

    scoring: Literal["drawing"] = "drawing"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Pictures are drawn, and measured."""
    prompt: Literal["caption"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """The prompts' form: always captions."""
    prompts: str | list[Text] | None = None
    """What to draw: a file, a list, `dreambooth-objects`, `dreambooth-live`, or `emoji:fox`."""
    photos: str | list[str] | None = None
    """Photos of the subject to compare with; not given: those trained on."""
    resolution: Count | None = None
    """The side of what is drawn; not given: as trained."""
    subject: Text | None = None
    """What stands for {} in prompts, such as `sks dog`."""
    class_name: Text | None = None
    """The same without the identifier, such as `dog`: for similarity to the prompt."""
    seeds: Count = 4
    """Pictures per prompt."""
    steps: Count = 30
    """Steps to draw a picture."""
    guidance: Annotated[float, Field(ge=0)] = 7.5
    """How closely to follow the prompt; 1: no guidance."""
    negative_prompt: str = ""
    """What not to draw."""
    real_pictures: bool = True
    """After training, also measure what real pictures reach."""
    features: Text = "efficientnet-lite0"
    """What compares pictures: a CLIP or DINO model by hub id or folder; the default needs no download."""

    @classmethod
    def check_task(cls, name: str) -> None:
        """Raise ConfigError for a measure that is not known."""
        if name not in MEASURES:
            raise unknown_name("measure", name, MEASURES)


class SubjectRecipe(Recipe):
    """Every setting of a subject's run."""

    has_subjects: ClassVar[bool] = True

    kind: Literal["subject"]  # pyright: ignore[reportIncompatibleVariableOverride]
    model: SubjectModelSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    data: SubjectDataSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    training: SubjectTrainingSettings = SubjectTrainingSettings()  # pyright: ignore[reportIncompatibleVariableOverride]
    evaluation: SubjectEvaluationSettings = SubjectEvaluationSettings()  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="before")
    @classmethod
    def _drawn_as_trained(cls, given: Any) -> Any:
        """What is drawn has the size of what was trained on, and is compared with it, unless told otherwise."""
        if not isinstance(given, dict) or not isinstance(given.get("data"), dict):
            return given
        own = given.get("evaluation") or {}
        if not isinstance(own, dict):
            return given
        data = given["data"]
        defaults = {"photos": data.get("train"), "resolution": data.get("resolution")}
        return {
            **given,
            "evaluation": own | {k: v for k, v in defaults.items() if v is not None and own.get(k) is None},
        }

    @model_validator(mode="after")
    def _rates_are_used(self) -> Self:
        parts = self.adapter.options.get("parts") or {}
        if self.training.text_learning_rate is not None and not any(part.startswith("text_encoder") for part in parts):
            raise ConfigError(
                f"training.text_learning_rate {self.training.text_learning_rate} would do nothing, since adapter.parts"
                " has no text_encoder: add it there, or remove the rate"
            )
        return self

    @model_validator(mode="after")
    def _has_prompts_where_needed(self) -> Self:
        if (self.evaluation.tasks or self.training.draw_every_steps) and not self.evaluation.prompts:
            raise ConfigError(
                "evaluation.prompts is missing: say what to draw, by a list, a file, or dreambooth-objects or"
                " dreambooth-live with evaluation.subject"
            )
        return self
