"""What a run works on: its data read, tokenised and split."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from moslora.data.chat import chat_examples
from moslora.data.examples import SAMPLE_FIELDS, instruction_examples
from moslora.data.fields import unused_fields, without_fields
from moslora.data.messages import SAMPLE_FIELDS as CHAT_FIELDS
from moslora.data.packing import pack
from moslora.data.prompts import prompt_ids
from moslora.data.source import load_samples, task_samples
from moslora.data.tasks import Task, task
from moslora.data.tokens import Example, cut_examples
from moslora.data.vocabulary import Vocabulary
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
    """Training rows (examples, or packed examples), validation examples and test sets.

    `groups` names the group of each row that `data.together` keeps together, `validation_groups` that of each
    validation example; None without it.
    """

    rows: list[Example]
    groups: list[Hashable] | None
    validation: list[Example]
    test_sets: list[TestSet]
    truncated: int
    left_out: int
    remarks: list[str]
    validation_groups: list[Hashable] | None = None

    def notes(self) -> list[str]:
        """What a reader of the record should know of the data."""
        notes = [f"{len(self.rows)} training rows, {len(self.validation)} validation samples"]
        if self.truncated:
            notes.append(f"{self.truncated} samples were longer than data.max_length_tokens and cut")
        if self.left_out:
            notes.append(f"{self.left_out} samples were longer than data.max_length_tokens and left out")
        return [*notes, *self.remarks]


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


def tokenise(
    recipe: Recipe, sources: Sources, tokenizer: PreTrainedTokenizerBase, *, vocabulary: Vocabulary
) -> Material:
    """The sources as training rows and test sets. Raises DataError for a sample that cannot be used.

    `vocabulary` tells which of the tokenizer's tokens the model knows.
    """
    data = recipe.data
    examples: list[Example] = []
    groups: list[Hashable] = []
    truncated = left_out = 0
    vocabulary.check_padding()
    remarks = _asking(recipe, sources, tokenizer, vocabulary)
    for name, read in sources.samples.items():
        samples = without_fields(read, data.ignore)
        full, unused = _examples(samples, data, tokenizer, source=name)
        vocabulary.check([example["input_ids"] for example in full], place=f"{name}: sample")
        if unused:
            remarks.append(f"{name}: fields not used: {', '.join(unused)}")
        own_groups = _groups(read, data.together, source=name)
        cut = cut_examples(
            full, max_length_tokens=data.max_length_tokens, source=name, leave_out_longer=data.leave_out_longer
        )
        examples += cut.examples
        groups += [own_groups[index] for index in cut.kept]
        truncated += cut.truncated
        left_out += len(full) - len(cut.kept)
    trained, held_out = _split(groups, data)
    rows, validation = [examples[index] for index in trained], [examples[index] for index in held_out]
    if data.packing:
        rows = pack(rows, max_length_tokens=data.max_length_tokens)
    of_rows, of_validation = ([groups[index] for index in chosen] for chosen in (trained, held_out))
    if data.together is None:
        of_rows = of_validation = None
    return Material(rows, of_rows, validation, sources.test_sets, truncated, left_out, remarks, of_validation)


def _asking(recipe: Recipe, sources: Sources, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> list[str]:
    """A remark on the prompt of the questions where it is not plainly the one trained with; refuses one that fails."""
    for test_set in sources.test_sets:
        samples = test_set.samples[:1] if vocabulary.is_enough else test_set.samples
        ids = prompt_ids(samples, tokenizer, style=recipe.asked_with)
        vocabulary.check(ids, place=f"{test_set.task.name}: question")
    trained_with = recipe.data.trained_with
    if not sources.test_sets or recipe.asked_with == recipe.data.prompt == trained_with:
        return []
    if recipe.asked_with == trained_with:
        return ["questions are asked through the chat template, as trained"]
    return [f"questions are asked with the prompt '{recipe.asked_with}' (evaluation.prompt), trained: '{trained_with}'"]


def _examples(
    samples: Samples, data: DataSettings, tokenizer: PreTrainedTokenizerBase, *, source: str
) -> tuple[list[Example], list[str]]:
    """A source's examples, and the fields of its samples that nothing looks at."""
    read = {data.together} if data.together else set()
    if data.format == "instruction":
        full = instruction_examples(samples, tokenizer, prompt_style=data.prompt, loss_on=data.loss_on, source=source)
        return full, unused_fields(samples, read={*SAMPLE_FIELDS, *read})
    unshown: list[str] = []
    full = chat_examples(samples, tokenizer, loss_on=data.loss_on, source=source, unshown=unshown)
    return full, [*unused_fields(samples, read={*CHAT_FIELDS, *read}), *(f"{name} of messages" for name in unshown)]


def load_test_sets(settings: EvaluationSettings) -> list[TestSet]:
    """The test sets of the tasks. Raises DataError for one that is not there or has a wrong sample."""
    tasks = [task(name) for name in settings.tasks]
    return [TestSet(t, task_samples(t, settings.data, split="test", limit=settings.limit)) for t in tasks]


def _groups(samples: Samples, field: str | None, *, source: str) -> list[Hashable]:
    """The group of each sample: its value of `field` within the source, or itself alone without a field."""
    for number, sample in enumerate(samples, start=1):
        if field is not None and (field not in sample or not isinstance(sample[field], Hashable)):
            raise DataError(
                f"{source}: sample {number} has no value '{field}' to keep samples together by (it has:"
                f" {', '.join(map(str, sample))}); correct data.together, or take it out"
            )
    return [(source, number if field is None else sample[field]) for number, sample in enumerate(samples)]


def _split(groups: Sequence[Hashable], data: DataSettings) -> tuple[list[int], list[int]]:
    """The samples to train and to validate on, in their own order; a group is never divided.

    One shuffle, the same whatever the run's seed, gives the validation samples first and then those to train on, so
    each share of these holds the smaller ones, and none holds a validation sample.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    units = list(members.values())
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    held_out = _first([units[number] for number in order], data.validation_samples)
    rest = [units[number] for number in order[len(held_out) :]]
    if not rest:
        together = f" (groups by {data.together}: {len(units)})" if data.together is not None else ""
        raise DataError(
            f"{', '.join(data.sources)}: data.validation_samples {data.validation_samples} leaves nothing to train on"
            f" of {len(groups)} samples{together}; set fewer apart"
        )
    kept = _first(rest, max(1, round(data.fraction * sum(map(len, rest)))))
    return sorted(chain.from_iterable(kept)), sorted(chain.from_iterable(held_out))


def _first(units: Sequence[list[int]], samples: int) -> list[list[int]]:
    """As many units as it takes to have so many samples."""
    before = accumulate((len(unit) for unit in units), initial=0)
    return [unit for unit, count in zip(units, before, strict=False) if count < samples]
