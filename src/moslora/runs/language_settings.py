"""The settings of a language model's run: instructions or chats, and questions with options."""

from math import inf
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from moslora.data.fields import FIELDS, MARKS
from moslora.data.task_names import check_names, task_name
from moslora.errors import ConfigError, unknown_name
from moslora.runs.groups import ModelSettings, Names, Recipe, SampleSettings, ScoringSettings, Text
from moslora.runs.settings import describe

FORMER_LONGER = "leave_out_longer"
CHAT, NONE = "chat", "none"  # as `moslora.data.prompts` has them, which imports transformers
ASKING = ("instruction", "choice")  # formats whose samples are put through `data.prompt`


class DataSettings(SampleSettings):
    """The training samples and how they become tokens."""

    train: str | list[str] | dict[str, float]  # pyright: ignore[reportIncompatibleVariableOverride]
    """Local file or folder, hub id `owner/name[:config][@split]`, a built-in set, a task's name; or a list of these.

    A mapping of sources to weights, `{mine.jsonl: 2, other.jsonl: 1}`, sets each one's share of an epoch's samples: the
    sources that fall short repeat samples; none is left out.
    """
    format: Literal["instruction", "chat", "completion", "text", "choice"] = "instruction"
    """A sample's form: `instruction` (with input, output), `chat` (messages), `completion` (prompt, completion),
    `text`, or `choice` (a question, options and the answer, as in files that are tasks).
    """
    columns: dict[Text, Text] = Field(default_factory=dict)
    """Fields that have other names in the file: `{instruction: question, output: answer}`."""
    ignore: Names = Field(default_factory=list)
    """Fields of samples and messages to leave out, which would otherwise be refused or noted."""
    on_bad: Literal["stop", "skip"] = "stop"
    """On a sample that cannot be used: stop, or leave it out with a note (up to 5 % of a source)."""
    prompt: Literal["alpaca", "plain", "chat"] = "alpaca"
    """How an instruction becomes text: by Alpaca's template, a plain one, or the model's chat template (`chat`).

    Chats always go through the chat template, prompts of completions stay as they are.
    """
    chat_template: Text | None = None
    """For chats, in place of the tokenizer's own: `chatml`, `chatml-tools` (shows tools and their calls), `gemma`,
    `llama3`, `mistral`, `phi3`, `plain`, `zephyr`, or a Jinja file. It is saved with the adapter.
    """
    system: Text | None = None
    """A system message for chats and instructions that have none of their own."""
    max_length_tokens: Annotated[int, Field(ge=8)] = 256
    """The longest sample, prompt included."""
    longer: Literal["cut", "leave_out", "stop"] = "cut"
    """What to do with a longer sample; plain text is divided into pieces, and all of it is used."""
    loss_on: Literal["sequence", "response"] = "sequence"
    """`response`: the prompt, or the user's turns, are read but not learned."""
    packing: bool = False
    """Put several samples into one row, kept apart."""
    validation: Text | None = None
    """A separate source to validate on: a file, or a folder or hub set whose split `validation` is read."""

    @model_validator(mode="before")
    @classmethod
    def _has_former_names(cls, given: Any) -> Any:
        """`leave_out_longer: true` is `longer: leave_out`, and false is `longer: cut`."""
        if not isinstance(given, dict) or FORMER_LONGER not in given:
            return given
        others = {name: value for name, value in given.items() if name != FORMER_LONGER}
        if not isinstance(former := given[FORMER_LONGER], bool):
            raise ConfigError(
                f"{FORMER_LONGER} is {describe(former)}; write longer: cut, leave_out or stop in its place"
            )
        longer = "leave_out" if former else "cut"
        if others.get("longer", longer) != longer:
            raise ConfigError(
                f"longer is {describe(others['longer'])} and {FORMER_LONGER} {describe(former)}; keep longer"
            )
        return {**others, "longer": longer}

    @field_validator("train", mode="before")
    @classmethod
    def _train_names_sources(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given:
            return super()._train_names_sources(given)
        for source, weight in given.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < inf:
                raise ConfigError(f"the weight of {source} is {describe(weight)}; allowed: a number above 0")
        super()._train_names_sources([*given])
        return given

    @model_validator(mode="after")
    def _rows_are_samples(self) -> Self:
        if self.packing and self.together is not None:
            raise ConfigError(f"data.together={self.together} does not work with data.packing: set one of them")
        if self.together is not None and isinstance(self.train, dict):
            raise ConfigError(f"data.together={self.together} does not work with weights of sources: set one of them")
        if self.format == "choice" and self.on_bad == "skip":
            raise ConfigError("data.on_bad skip does not work with data.format choice, whose files are read as a whole")
        if self.format == "text" and self.loss_on == "response":
            raise ConfigError("data.loss_on response needs a prompt, and data.format text has none: learn the sequence")
        return self

    @model_validator(mode="after")
    def _format_has_templates(self) -> Self:
        if self.chat_template is not None and self.trained_with != CHAT:
            raise ConfigError(
                f"data.chat_template is for data.format chat or data.prompt chat, and the format is {self.format}, the"
                f" prompt {self.trained_with}: take it out"
            )
        if self.system is not None and self.format not in ("chat", *ASKING):
            raise ConfigError(
                f"data.system is for chats and instructions, and data.format is {self.format}: take it out"
            )
        return self

    @model_validator(mode="after")
    def _columns_are_fields(self) -> Self:
        known = (*FIELDS[self.format], *MARKS)
        for name in self.columns:
            if name not in known:
                raise unknown_name(f"field of data.columns (data.format {self.format})", name, known)
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each source; empty where they are simply joined."""
        return self.train if isinstance(self.train, dict) else {}

    @property
    def trained_with(self) -> str:
        """The prompt style of the training samples: `prompt`, `chat` for chats, `none` for text as it is."""
        return {**dict.fromkeys(ASKING, self.prompt), "chat": CHAT}.get(self.format, NONE)

    @property
    def asked_system(self) -> str | None:
        """The system message that prompts bring along; one for the chat template is in it."""
        return self.system if self.format in ASKING and self.prompt != CHAT else None


class EvaluationSettings(ScoringSettings):
    """What is scored after training."""

    ways: ClassVar[tuple[str, ...]] = ("log_probability", "generation")

    prompt: Literal["alpaca", "plain", "chat", "none"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    scoring: Literal["log_probability", "generation"] = "log_probability"  # pyright: ignore[reportIncompatibleVariableOverride]
    """log_probability: the likeliest option; generation: what is written, as in the paper."""
    question_removed: bool = False
    """Also score `everyday` with the options only: what position and wording give away."""
    agreement_questions: Annotated[int, Field(ge=0)] = 0
    """How many questions are also scored the other way, and compared."""

    tasks: list[str] = Field(default_factory=list)
    """Built-in names, and paths of files: questions with options, with short answers, or held-out samples.

    A file's fields tell which; where they fit several, write `choice:`, `short:` or `samples:` before the path.
    """

    @classmethod
    def check_task(cls, name: str) -> None:
        """Raise ConfigError for what names no task; whether a file is there is not looked at."""
        task_name(name)

    @field_validator("tasks")
    @classmethod
    def _names_differ(cls, tasks: list[str]) -> list[str]:
        check_names(tasks)
        return tasks

    @property
    def task_names(self) -> list[str]:
        """What the tasks are called in records: a file's name without its ending."""
        return [task_name(written).name for written in self.tasks]


class LanguageRecipe(Recipe):
    """Every setting of a language model's run."""

    kind: Literal["language"] = "language"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: ModelSettings
    data: DataSettings  # pyright: ignore[reportIncompatibleVariableOverride]
    evaluation: EvaluationSettings = EvaluationSettings()  # pyright: ignore[reportIncompatibleVariableOverride]
