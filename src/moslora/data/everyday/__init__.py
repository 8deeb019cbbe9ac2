"""`everyday`: original multiple-choice questions about everyday things, built in so that a first run needs no download.

Twelve kinds, 2,400 questions to train and 384 to test on. Four options each, every label behind its option: a small
model learns to read that within a short run. Two promises, both tested:

- The test asks about unseen items. A test item (the thing asked about; for opposites, daily steps and sizes each option
  too) has no key word in common with any training question or option. Key words are all words, lower case and singular,
  but for the function words and everyday verbs in `wording.GLUE`. The shared answers ("a bird") are in both splits.
- The options alone give nothing away. Each set of four options is asked four times, each option being right once and
  each position once, so a rule that sees no question is right one time in four.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from moslora.data.everyday.build import Sample, build_split
from moslora.data.everyday.tables import TABLES
from moslora.errors import DataError, suggestion

__all__ = ["KINDS", "SPLITS", "asked", "everyday", "without_question"]

KINDS = tuple(table.kind for table in TABLES)
SPLITS = ("train", "test")


def everyday(split: str) -> list[dict[str, str]]:
    """The questions of a split ("train" or "test"), as fresh dicts that the caller may change.

    Each has `instruction` (the question, a newline, the labelled options), `input` (empty), `output` ("the correct
    answer is answer3"), `answer` ("answer3"), `kind` (one of `KINDS`) and `group` (the four that share their options).

    Raises DataError for another split.
    """
    if split not in SPLITS:
        raise DataError(f"everyday has no split '{split}'{suggestion(split, SPLITS)} (allowed: {', '.join(SPLITS)})")
    return [dict(sample) for sample in _built(split)]


def asked(answers: Sequence[tuple[int, str, str | None]]) -> list[dict[str, str]]:
    """The test questions of answers given by index, right answer and kind; none if these answer other questions.

    Answers may be to the first questions only.
    """
    questions = everyday("test")
    found = [questions[index] for index, _, _ in answers if index < len(questions)]
    is_same = [(one["answer"], one["kind"]) for one in found] == [(answer, kind) for _, answer, kind in answers]
    return found if is_same else []


def without_question(sample: Mapping[str, str]) -> dict[str, str]:
    """The sample with its options alone, to measure what a model gets right without reading the question."""
    _, _, options = sample["instruction"].partition("\n")
    return {**sample, "instruction": options}


@cache
def _built(split: str) -> tuple[Sample, ...]:
    return tuple(build_split(split))
