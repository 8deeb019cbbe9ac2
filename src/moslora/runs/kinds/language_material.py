"""What a language model's run works on: instructions, chats or tasks as token ids, and questions with options."""

from collections.abc import Hashable

from transformers import PreTrainedTokenizerBase

from moslora.data.fields import without_fields
from moslora.data.packing import pack
from moslora.data.source import load_samples
from moslora.data.tokens import Example, cut_examples
from moslora.data.vocabulary import Vocabulary
from moslora.runs.kinds.language_examples import training_examples
from moslora.runs.kinds.language_tasks import check_test_set, load_test_sets
from moslora.runs.language_settings import LanguageRecipe
from moslora.runs.material import Material, Sources, groups_of, split


def read_sources(recipe: LanguageRecipe) -> Sources:
    """Read everything a recipe trains and tests on. Raises DataError for what is not there or broken."""
    test_sets = load_test_sets(recipe.evaluation, recipe.data)
    data = recipe.data
    read = {name: load_samples(name, split="train", limit=data.limit, folder=data.folder) for name in data.sources}
    return Sources(read, test_sets)


def tokenise(
    recipe: LanguageRecipe, sources: Sources, tokenizer: PreTrainedTokenizerBase, *, vocabulary: Vocabulary
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
        full, unused = training_examples(samples, data, tokenizer, source=name)
        vocabulary.check([example["input_ids"] for example in full], place=f"{name}: sample")
        if unused:
            remarks.append(f"{name}: fields not used: {', '.join(unused)}")
        own_groups = groups_of(read, data.together, source=name)
        cut = cut_examples(full, max_length_tokens=data.max_length_tokens, source=name, longer=data.longer)
        examples += cut.examples
        groups += [own_groups[index] for index in cut.kept]
        truncated += cut.truncated
        left_out += len(full) - len(cut.kept)
    trained, held_out = split(groups, data)
    rows, validation = [examples[index] for index in trained], [examples[index] for index in held_out]
    if data.packing:
        rows = pack(rows, max_length_tokens=data.max_length_tokens)
    of_rows, of_validation = ([groups[index] for index in chosen] for chosen in (trained, held_out))
    if data.together is None:
        of_rows = of_validation = None
    longer = "samples were longer than data.max_length_tokens and"
    counted = [f"{count} {longer} {done}" for count, done in ((truncated, "cut"), (left_out, "left out")) if count]
    return Material(rows, of_rows, validation, sources.test_sets, [*counted, *remarks], of_validation)


def _asking(
    recipe: LanguageRecipe, sources: Sources, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary
) -> list[str]:
    """A remark on the prompt of the questions where it is not plainly the one trained with; refuses one that fails."""
    for test_set in sources.test_sets:
        check_test_set(test_set, tokenizer, prompt=recipe.asked_with, vocabulary=vocabulary)
    trained_with = recipe.data.trained_with
    if not sources.test_sets or recipe.asked_with == recipe.data.prompt == trained_with:
        return []
    if recipe.asked_with == trained_with:
        return ["questions are asked through the chat template, as trained"]
    return [f"questions are asked with the prompt '{recipe.asked_with}' (evaluation.prompt), trained: '{trained_with}'"]
