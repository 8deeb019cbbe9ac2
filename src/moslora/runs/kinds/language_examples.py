"""From samples in a training format to token ids with labels: those that a run trains on, and held-out ones."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.calls import refuse_silenced
from moslora.data.chat import chat_examples
from moslora.data.choice_training import choice_instructions
from moslora.data.examples import completion_examples, instruction_chats, instruction_examples, text_examples
from moslora.data.fields import FIELDS, check_text, unused_fields, with_columns, with_system, without_fields
from moslora.data.prompts import CHAT
from moslora.data.reading import SKIPPING, Reading
from moslora.data.source import load_samples
from moslora.data.tokens import NOTHING_LEARNED, Example, cut_examples, divide_examples, is_learned
from moslora.data.vocabulary import Vocabulary
from moslora.errors import DataError
from moslora.runs.language_settings import DataSettings
from moslora.runs.material import Samples, group_of


@dataclass(frozen=True)
class Source:
    """The samples of a source as they were read, with the fields' own names."""

    name: str
    samples: list[dict[str, Any]]
    reading: Reading


@dataclass(frozen=True)
class Made:
    """A source's examples with the sample and the group of each, and remarks.

    It also counts the samples that were cut, or left out, for their length. `warnings` are those remarks
    that tell what was left out.
    """

    examples: list[Example]
    numbers: list[int]  # of the samples, from 0; a divided text has one for each piece
    groups: list[Hashable]
    truncated: int
    left_out: int
    warnings: list[str]
    remarks: list[str]


def read_source(name: str, data: DataSettings, *, split: str = "train") -> Source:
    """Read a source; `data.limit` is for those to train on. Raises DataError for what is not there or broken."""
    reading = Reading(name, skips_bad=data.on_bad == "skip", way=SKIPPING)
    limit = data.limit if split == "train" else None
    rows = load_samples(name, split=split, limit=limit, folder=data.folder, reading=reading)
    if not rows:
        reading.check()
    return Source(name, with_columns(rows, data.columns, source=name), reading)


def make_examples(
    source: Source, data: DataSettings, tokenizer: PreTrainedTokenizerBase, *, vocabulary: Vocabulary
) -> Made:
    """The examples of a source. Raises DataError for a sample that cannot be used, unless `data.on_bad` skips it."""
    reading, samples = source.reading, without_fields(source.samples, data.ignore)
    for index in reading.kept():
        with reading.checking(index) as place:
            check_text(samples[index], place=place)
            refuse_silenced(source.samples[index], ignored=data.ignore, place=place)
            if data.together is not None:
                group_of(source.samples[index], data.together, place=place)
    full, unused = training_examples(samples, data, tokenizer, source=source.name, reading=reading)
    made = dict(zip(reading.kept(), full, strict=True))
    for index, example in made.items():
        with reading.checking(index) as place:
            vocabulary.check_row(example["input_ids"], place=place)
            if not is_learned(example):
                raise DataError(f"{place} {NOTHING_LEARNED}")
    reading.check()
    kept = reading.kept()
    whole, places = [made[index] for index in kept], [reading.places[index] for index in kept]
    if data.format == "text" and data.longer == "cut":
        cut = divide_examples(whole, max_length_tokens=data.max_length_tokens)
    else:
        cut = cut_examples(
            whole, max_length_tokens=data.max_length_tokens, source=source.name, longer=data.longer, places=places
        )
    numbers = [kept[index] for index in cut.kept]
    groups = [_group(source, number, data.together) for number in numbers]
    remarks = [*reading.remarks, *([f"{source.name}: fields not used: {', '.join(unused)}"] if unused else [])]
    return Made(
        cut.examples, numbers, groups, cut.truncated, len(whole) - len({*cut.kept}), reading.left_out(), remarks
    )


def _group(source: Source, number: int, field: str | None) -> Hashable:
    return source.name, number if field is None else source.samples[number][field]


def training_examples(
    samples: Samples,
    data: DataSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    source: str,
    reading: Reading | None = None,
) -> tuple[list[Example], list[str]]:
    """The samples' examples at their whole length, and the fields that nothing looks at.

    `reading` says where they stand in the source, and leaves out those that cannot be used; without it, the first such
    sample raises DataError.
    """
    reading = reading or Reading.of(source, len(samples))
    unshown: list[str] = []
    if data.format == "choice":
        samples, unused = choice_instructions(samples, reading=reading)
    else:
        unused = unused_fields(samples, read={*FIELDS[data.format], *([data.together] if data.together else [])})
    full = _in_format(samples, data, tokenizer, reading=reading, unshown=unshown)
    return full, [*unused, *(f"{name} of messages" for name in unshown)]


def _in_format(
    samples: Samples,
    data: DataSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    reading: Reading,
    unshown: list[str],
) -> list[Example]:
    name, shared = reading.source, {"loss_on": data.loss_on, "reading": reading}
    match data.format:
        case "instruction" | "choice":
            if data.prompt == CHAT:
                chats = instruction_chats(samples, reading=reading)
                return chat_examples(chats, tokenizer, source=name, **shared)
            samples = with_system(samples, data.system)
            return instruction_examples(samples, tokenizer, prompt_style=data.prompt, source=name, **shared)
        case "chat":
            return chat_examples(samples, tokenizer, source=name, unshown=unshown, **shared)
        case "completion":
            return completion_examples(samples, tokenizer, **shared)
        case "text":
            return text_examples(samples, tokenizer, reading=reading)
