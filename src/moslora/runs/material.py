"""What a run works on: its data read, made into rows, and split."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any

import torch

from moslora.data.reading import Reading
from moslora.errors import DataError
from moslora.runs.groups import SampleSettings

Samples = Sequence[Mapping[str, Any]]
SPLIT_SEED = 0  # of the order in which samples are set apart


@dataclass(frozen=True)
class TestSet:
    """A task's test questions, checked; `notes` say what was guessed in reading them."""

    __test__ = False  # not a test for pytest

    task: Any  # of the kind of run; it has a `name`
    samples: Sequence[Any]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Material:
    """Training rows and validation rows, as the kind of run makes batches of them, and test sets.

    `groups` names the group of each row that `data.together` keeps together, `validation_groups` that of each
    validation row; None without it. Where `alike` is given, batches are of rows of one kind and of like lengths in
    tokens: those it holds of each row. `remarks` are what a reader of the record should know of the data. Rows may
    leave a part of the model unused, as a text without a picture does: `complete_share` of them use every part. With
    `visits` batches are of numbered visits to rows (`moslora.training.visits`), and run on through the epochs.
    `shown` are lines of text with the first sample, what is learned of it marked; empty where none is shown.
    `warnings` are the remarks to be seen before training, `first` some rows of each source, each a sample of its own.
    `readings` tell, by split, what was left out of each source because it cannot be used.
    """

    rows: Sequence[Any]
    groups: list[Hashable] | None
    validation: Sequence[Any]
    test_sets: list[TestSet]
    remarks: list[str] = field(default_factory=list)
    validation_groups: list[Hashable] | None = None
    complete_share: float = 1.0
    alike: list[tuple[Hashable, int]] | None = None
    visits: bool = False
    shown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    first: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    readings: Mapping[str, Sequence[Reading]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """The numbers of rows, and the remarks."""
        return [f"{len(self.rows)} training rows, {len(self.validation)} validation samples", *self.remarks]


@dataclass(frozen=True)
class Sources:
    """A recipe's data as it was read: the samples of each training source by its name, and test sets."""

    samples: Mapping[str, Samples]
    test_sets: list[TestSet]


def spread_indices(total: int, count: int) -> list[int]:
    """`count` numbers spread evenly over 0 … total - 1, so that every kind of question is met."""
    return [index * total // count for index in range(count)] if count < total else list(range(total))


def groups_of(samples: Samples, field: str | None, *, source: str) -> list[Hashable]:
    """The group of each sample: its value of `field` within the source, or itself alone without a field."""
    return [
        (source, number if field is None else group_of(sample, field, place=f"{source}: sample {number}"))
        for number, sample in enumerate(samples, start=1)
    ]


def group_of(sample: Mapping[str, Any], field: str, *, place: str) -> Hashable:
    """A sample's value of the field that keeps samples together. Raises DataError if it has none."""
    if field not in sample or not isinstance(sample[field], Hashable):
        raise DataError(
            f"{place} has no value '{field}' to keep samples together by (it has: {', '.join(map(str, sample))});"
            " correct data.together, or take it out"
        )
    return sample[field]


def in_batches(groups: Sequence[Hashable], *, size: int, seed: int) -> list[Hashable]:
    """Groups of at most `size` samples: a larger one is divided at random, the same way for the same seed.

    A batch then holds samples of one group, and the batches of all groups come mixed.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    generator = torch.Generator().manual_seed(seed)
    divided: list[Hashable] = list(groups)
    for group, indices in members.items():
        for place, number in enumerate(torch.randperm(len(indices), generator=generator).tolist()):
            divided[indices[number]] = (group, place // size)
    return divided


def split(groups: Sequence[Hashable], data: SampleSettings) -> tuple[list[int], list[int]]:
    """The samples to train and to validate on, in their own order; a group is never divided.

    One shuffle, the same whatever the run's seed, gives the validation samples first and then those to train on, so
    each share of these holds the smaller ones, and none holds a validation sample.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    units = list(members.values())
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    wanted = data.validation_samples or math.ceil((data.validation_share or 0) * len(groups))
    held_out = _first([units[number] for number in order], wanted)
    rest = [units[number] for number in order[len(held_out) :]]
    if not rest:
        name, value = next(iter(data.validation_settings.items()))
        together = f" (groups by {data.together}: {len(units)})" if data.together is not None else ""
        raise DataError(
            f"{', '.join(data.sources)}: data.{name} {value} leaves nothing to train on"
            f" of {len(groups)} samples{together}; set fewer apart"
        )
    kept = _first(rest, max(1, round(data.fraction * sum(map(len, rest)))))
    return sorted(chain.from_iterable(kept)), sorted(chain.from_iterable(held_out))


def _first(units: Sequence[list[int]], samples: int) -> list[list[int]]:
    """As many units as it takes to have so many samples."""
    before = accumulate((len(unit) for unit in units), initial=0)
    return [unit for unit, count in zip(units, before, strict=False) if count < samples]
