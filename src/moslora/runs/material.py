"""What a run works on: its data read, tokenised and split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from moslora.data.chat import chat_examples
from moslora.data.examples import instruction_examples
from moslora.data.packing import pack
from moslora.data.source import load_samples, task_samples
from moslora.data.tasks import Task, task
from moslora.data.tokens import Example
from moslora.errors import DataError
from moslora.runs.recipe import DataSettings, EvaluationSettings, Recipe

Samples = Sequence[Mapping[str, Any]]
SPLIT_SEED = 0  # of the order in which samples are set apart


@dataclass(frozen=True)
class TestSet:
    """A task's test questions, checked."""

    __test__ = False  # not a test for pytest

    task: Task
    samples: Samples


@dataclass(frozen=True)
class Material:
    """Training rows (examples, or packed examples), validation examples and test sets."""

    rows: list[Example]
    validation: list[Example]
    test_sets: list[TestSet]
    truncated: int

    def notes(self) -> list[str]:
        """What a reader of the record should know of the data."""
        notes = [f"{len(self.rows)} training rows, {len(self.validation)} validation samples"]
        if self.truncated:
            notes.append(f"{self.truncated} samples were longer than data.max_length_tokens and cut")
        return notes


@dataclass(frozen=True)
class Sources:
    """A recipe's data as it was read: the samples of each training source by its name, and test sets."""

    samples: Mapping[str, Samples]
    test_sets: list[TestSet]


def read_sources(recipe: Recipe) -> Sources:
    """Read everything a recipe trains and tests on. Raises DataError for what is not there or broken."""
    test_sets = load_test_sets(recipe.evaluation)
    data = recipe.data
    read = {name: load_samples(name, split="train", limit=data.limit, folder=data.folder) for name in data.sources}
    return Sources(read, test_sets)


def tokenise(recipe: Recipe, sources: Sources, tokenizer: PreTrainedTokenizerBase) -> Material:
    """The sources as training rows and test sets. Raises DataError for a sample that cannot be used."""
    data = recipe.data
    examples: list[Example] = []
    truncated = 0
    for name, samples in sources.samples.items():
        options: dict[str, Any] = {"max_length_tokens": data.max_length_tokens, "loss_on": data.loss_on, "source": name}
        if data.format == "chat":
            read = chat_examples(samples, tokenizer, **options)
        else:
            read = instruction_examples(samples, tokenizer, prompt_style=data.prompt, **options)
        examples += read.examples
        truncated += read.truncated
    rows, validation = _split(examples, data)
    if data.packing:
        rows = pack(rows, max_length_tokens=data.max_length_tokens)
    return Material(rows, validation, sources.test_sets, truncated)


def load_test_sets(settings: EvaluationSettings) -> list[TestSet]:
    """The test sets of the tasks. Raises DataError for one that is not there or has a wrong sample."""
    tasks = [task(name) for name in settings.tasks]
    return [TestSet(t, task_samples(t, settings.data, split="test", limit=settings.limit)) for t in tasks]


def _split(examples: Sequence[Example], data: DataSettings) -> tuple[list[Example], list[Example]]:
    """Training and validation examples, in their own order.

    One shuffle, the same whatever the run's seed, gives the validation examples first and then those to train on, so
    each share of these holds the smaller ones, and none holds a validation example.
    """
    if data.validation_samples >= len(examples):
        raise DataError(
            f"{', '.join(data.sources)}: data.validation_samples {data.validation_samples} leaves nothing to train on"
            f" of {len(examples)} samples; set fewer apart"
        )
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    held_out, rest = order[: data.validation_samples], order[data.validation_samples :]
    kept = rest[: max(1, round(data.fraction * len(rest)))]
    return [examples[index] for index in sorted(kept)], [examples[index] for index in sorted(held_out)]
