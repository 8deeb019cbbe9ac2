"""Kinds of run. All that a run, a comparison or an export must know of what a model reads and answers comes from here.

`run`, `adapters`, `scoring`, `exporting` and the comparison call the kind of a recipe, or of a model's settings, and
name none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import nn
from transformers import TrainerCallback, TrainingArguments

from moslora.adapter.export import save_folded
from moslora.adapter.heads import Head
from moslora.adapter.verification import Drift
from moslora.errors import python_text
from moslora.evaluation.scores import Answer, SampleAnswer
from moslora.records import EvaluationRecord, LossRecord
from moslora.runs.material import Material, Sources, TestSet
from moslora.training.trainer import Collate

_PLACES = MappingProxyType(
    {"language": "language.Language", "vision_language": "vision_language.VisionLanguage", "subject": "subject.Subject"}
)


class Asked(NamedTuple):
    """One evaluation of a test set: under which name it stands in the record, how, and of which questions."""

    when: str
    scoring: str
    indices: list[int]


class Kind(Protocol):
    """What a kind of run brings; `processor` is whatever turns its samples into a model's inputs (a tokenizer, …)."""

    head: ClassVar[Head]  # the class of transformers that loads a base model
    sees_pictures: ClassVar[bool]
    draws: ClassVar[bool] = False  # pictures, instead of answering in words
    loss_is_of_tokens: ClassVar[bool] = True  # so that it has a perplexity
    unit: ClassVar[str] = "question"  # what is scored as one
    prompts: ClassVar[tuple[str, ...]]  # the styles in which a model may be asked
    example_task: ClassVar[str]
    fold_formats: ClassVar[tuple[str, ...]] = ("peft",)  # of an adapter as plain LoRA, the usual one first
    library: ClassVar[str] = "transformers"  # that loads a full model
    outputs: ClassVar[str] = "logits"  # what a probe gives
    probed: ClassVar[str] = "questions"  # what it is made of

    def load_processor(self, settings: Any, *, saved: Path | None = None) -> Any:
        """The model's processor; `saved` is a trained adapter's folder, whose own must do the same."""
        ...

    def untrained_prompt(self, settings: Any) -> str:
        """The style in which a base model is asked that nothing was trained in; `settings` are the model's."""
        return self.prompts[0]

    def parts(self, model: nn.Module) -> dict[str, str]:
        """The parts of a model that adapters may name, each with the prefix of its modules; empty without parts."""
        ...

    def read(self, recipe: Any) -> Sources:
        """The samples and test sets, as they are found. Raises DataError for what is not there or broken."""
        ...

    def material(self, recipe: Any, sources: Any, processor: Any, *, on_meta: Any) -> Material:
        """The samples as rows. `on_meta` is the adapted model without weights. Raises DataError."""
        ...

    def check_model(self, recipe: Any, model: Any) -> None:
        """Refuse a loaded model that cannot do what the recipe asks for. Raises ConfigError."""
        ...

    def collator(self, model: nn.Module, processor: Any) -> Collate:
        """What makes batches of rows, with their labels."""
        ...

    @contextmanager
    def batches(
        self,
        recipe: Any,
        model: nn.Module,
        processor: Any,
        rows: Sequence[Any],
        *,
        arguments: TrainingArguments,
        progress: bool,
    ) -> Iterator[Collate]:
        """What makes batches of these rows while the model trains; a kind may prepare both, and undo it at the end."""
        yield self.collator(model, processor)

    def watchers(self, recipe: Any, model: nn.Module, *, folder: Path) -> list[TrainerCallback]:
        """What looks on while the model trains, and may write into the run's folder."""
        return []

    def test_sets(self, settings: Any, data: Any = None) -> list[TestSet]:
        """The test sets of the tasks; `data` are the settings of the training samples, where these are known."""
        ...

    def ways_of(self, task: Any, settings: Any) -> list[str]:
        """How a task may be scored, the settings' own way first, where it has several."""
        return [settings.scoring, *(way for way in settings.ways if way != settings.scoring)]

    def asked(self, test_set: TestSet, settings: Any, *, when: str) -> list[Asked]:
        """The evaluations of a test set "before" or "after" training, that of the settings first."""
        ...

    def evaluate(
        self,
        model: nn.Module,
        processor: Any,
        samples: Sequence[Any],
        *,
        task: Any,
        when: str,
        scoring: str,
        prompt: str,
        batch_size: int,
        progress: bool,
    ) -> tuple[EvaluationRecord | LossRecord, Sequence[Answer | SampleAnswer]]:
        """One evaluation's numbers and answers; `when` may name a control, in which the questions are changed."""
        ...

    def examples(
        self, test_set: TestSet, answered: Callable[[str], Sequence[Answer]], *, when: str
    ) -> list[dict[str, Any]]:
        """A few questions to look at, as `evaluation.examples.Example` has them; none unless a kind has such.

        `answered` gives the answers of an evaluation by its name in the record; none of one that was not made.
        """
        return []

    def probe(self, processor: Any, model: Any, *, prompt: str | None) -> dict[str, Any]:
        """The arguments of a forward pass, on which an export is compared with its adapter."""
        ...

    def write_folded(
        self,
        settings: Any,
        model: nn.Module,
        processor: Any,
        folder: Path,
        *,
        format: str,
        probe: Mapping[str, Any],
        allow_drift: bool,
    ) -> Drift:
        """Write an adapter as plain LoRA to `folder`, verified; `settings` are the base model's. As `save_folded`."""
        drift = save_folded(model, folder, probe=probe, allow_drift=allow_drift)
        processor.save_pretrained(folder)
        return drift

    def folded_code(self, base: str, folder: Path, *, class_name: str) -> str:
        """Python code that loads a folded adapter without this package; `base` is code that loads the base model."""
        return (
            f"from peft import PeftModel; from transformers import {class_name};"
            f" model = PeftModel.from_pretrained({base}, {python_text(folder)})"
        )

    def keep(self, folder: Path, *, when: str) -> None:
        """Write into a run's folder what was made to be looked at while it was evaluated; nothing, for most kinds."""

    def speaker(self, model: Any, processor: Any, *, prompt: str, **options: Any) -> Any:
        """What answers prompts, in batches (`answers`) or one on stdout (`say`); `prompt` is the style."""
        ...


def kind_of(name: str) -> Kind:
    """The kind of this name, as recipes and the settings of a model have it."""
    module, _, own = _PLACES[name].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), own)()
