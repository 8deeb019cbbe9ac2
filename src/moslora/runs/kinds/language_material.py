"""What a language model's run works on: its sources as token ids, and questions with options."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.mixing import weighted
from moslora.data.packing import pack
from moslora.data.prompts import CHAT
from moslora.data.showing import LEARNED_MARKS, marked_lines, marked_text
from moslora.data.template_choice import choose_template
from moslora.data.tokens import Example
from moslora.data.vocabulary import Vocabulary
from moslora.errors import DataError
from moslora.runs.kinds.language_examples import Made, Source, make_examples, read_source
from moslora.runs.kinds.language_tasks import check_test_set, load_test_sets
from moslora.runs.language_settings import DataSettings, LanguageRecipe
from moslora.runs.material import Material, Sources, split

SHOWN = f"the first sample, with what is learned between {' and '.join(LEARNED_MARKS)}:"
FIRST = 2  # examples of each source that can be looked at before training


@dataclass(frozen=True)
class LanguageSources(Sources):
    """Also where the samples stand, and what is validated on if it is a source of its own."""

    read: list[Source] = field(default_factory=list)
    validation: Source | None = None


def read_sources(recipe: LanguageRecipe) -> LanguageSources:
    """Read everything a recipe trains and tests on. Raises DataError for what is not there or broken."""
    test_sets = load_test_sets(recipe.evaluation, recipe.data)
    data = recipe.data
    read = [read_source(name, data) for name in data.sources]
    return LanguageSources({one.name: one.samples for one in read}, test_sets, read, _validation(data))


def _validation(data: DataSettings) -> Source | None:
    if data.validation is None:
        return None
    place = Path(data.validation).expanduser()
    if place.is_file() and place.resolve() in [Path(name).expanduser().resolve() for name in data.sources]:
        raise DataError(f"data.validation {data.validation} is trained on too (data.train); name another file")
    return read_source(data.validation, data, split="validation")


def tokenise(
    recipe: LanguageRecipe, sources: LanguageSources, tokenizer: PreTrainedTokenizerBase, *, vocabulary: Vocabulary
) -> Material:
    """The sources as training rows and test sets. Raises DataError for a sample that cannot be used.

    `vocabulary` tells which of the tokenizer's tokens the model knows.
    """
    data = recipe.data
    vocabulary.check_padding()
    remarks = [*_speaking(data, tokenizer), *_asking(recipe, sources, tokenizer, vocabulary)]
    made = {one.name: make_examples(one, data, tokenizer, vocabulary=vocabulary) for one in sources.read}
    examples = [example for own in made.values() for example in own.examples]
    groups = _groups(made.values(), data)
    trained, held_out = split(groups, data)
    if data.weights:
        trained, mixed = _mixed(made, trained, recipe)
        remarks.append(mixed)
    rows, validation = [examples[index] for index in trained], [examples[index] for index in held_out]
    of_rows, of_validation = ([groups[index] for index in chosen] for chosen in (trained, held_out))
    everything, name, known = [*made.values()], "validation", rows
    if sources.validation is not None:
        apart = make_examples(sources.validation, data, tokenizer, vocabulary=vocabulary)
        validation, of_validation = apart.examples, apart.groups
        everything.append(apart)
        name, known = sources.validation.name, examples
    repeated = _trained_too(name, validation, known) if validation else []
    shown = [SHOWN, *(f"  {line}" for line in marked_lines(marked_text(rows[0], tokenizer)))]
    if data.packing:
        rows = pack(rows, max_length_tokens=data.max_length_tokens)
    if data.together is None:
        of_rows = of_validation = None
    warnings = [*_lengths(everything, data), *(note for own in everything for note in own.warnings), *repeated]
    remarks = [*warnings, *remarks, *(note for own in everything for note in own.remarks)]
    first = {name: own.examples[:FIRST] for name, own in made.items()}
    apart = [sources.validation] if sources.validation is not None else []
    readings = {"train": [one.reading for one in sources.read], "validation": [one.reading for one in apart]}
    told: dict[str, Any] = {"warnings": warnings, "shown": shown, "first": first, "readings": readings}
    return Material(rows, of_rows, validation, sources.test_sets, remarks, of_validation, **told)


def _trained_too(name: str, validation: Sequence[Example], trained: Sequence[Example]) -> list[str]:
    """A warning on samples to validate on that are among those to train on."""
    known = {tuple(example["input_ids"]) for example in trained}
    same = sum(tuple(example["input_ids"]) in known for example in validation)
    if not same:
        return []
    share = f"{same} of {len(validation)} samples are trained on too"
    return [f"{name}: {share}, so the validation loss looks better than it is"]


def _speaking(data: DataSettings, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Give the tokenizer the chat template and system message that chats are trained with, and remark on them."""
    if data.trained_with != CHAT:
        return []
    return choose_template(tokenizer, template=data.chat_template, system=data.system)


def _groups(made: Iterable[Made], data: DataSettings) -> list[Hashable]:
    """What is not divided between training and validation; of one long text alone, pieces are."""
    groups = [group for own in made for group in own.groups]
    return [*range(len(groups))] if data.together is None and len(set(groups)) == 1 else groups


def _mixed(made: Mapping[str, Made], trained: Sequence[int], recipe: LanguageRecipe) -> tuple[list[int], str]:
    """The rows to train on by the sources' weights, and a remark with their numbers."""
    origins = [name for name, own in made.items() for _ in own.examples]
    own = {name: [index for index in trained if origins[index] == name] for name in made}
    mixed = weighted(own, recipe.data.weights, seed=recipe.seed)
    drawn = Counter(origins[index] for index in mixed)
    counts = ", ".join(f"{name} {drawn[name]} (it has {len(rows)})" for name, rows in own.items())
    return mixed, f"samples per epoch, by the sources' weights: {counts}"


def _lengths(made: Iterable[Made], data: DataSettings) -> list[str]:
    is_divided = data.format == "text" and data.longer == "cut"
    name = "document" if is_divided else "sample"
    done = "divided into pieces" if is_divided else "cut"
    counts = ((sum(own.truncated for own in made), done), (sum(own.left_out for own in made), "left out"))
    return [
        f"{count} {name}{' was' if count == 1 else 's were'} longer than data.max_length_tokens and {done}"
        for count, done in counts
        if count
    ]


def _asking(
    recipe: LanguageRecipe, sources: Sources, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary
) -> list[str]:
    """Remarks on held-out samples that are left out, and on a prompt of questions that is not plainly the trained one.

    Refuses what cannot be scored.
    """
    notes: list[str] = []
    for test_set in sources.test_sets:
        notes += check_test_set(test_set, tokenizer, prompt=recipe.asked_with, vocabulary=vocabulary)
    trained_with = recipe.data.trained_with
    if not sources.test_sets or recipe.asked_with == recipe.data.prompt == trained_with:
        return notes
    if recipe.asked_with == trained_with:
        how = "through the chat template" if trained_with == CHAT else "as they are, without a prompt"
        return [*notes, f"questions are asked {how}, as trained"]
    return [
        *notes,
        f"questions are asked with the prompt '{recipe.asked_with}' (evaluation.prompt), training used"
        f" '{trained_with}'",
    ]
