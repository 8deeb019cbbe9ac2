"""From a generated text about a picture to a credit of 0 to 1: pure rules, each with the sentence that a record names.

A text in which no rule finds an answer earns nothing, and is told apart from a wrong answer: published scores differ by
tens of points in what they do with it. No rule asks another model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moslora.data.vision_tasks import Question
from moslora.errors import DataError, unknown_name
from moslora.evaluation.vqa import normalised, soft_accuracy

_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 4  # VLMEvalKit: the letter's place is greater than the number of words less five
_ANSWER_IS = re.compile(r"answer is\W*([A-Z])\b")
_LETTER_AND_STOP = re.compile(r"([A-Z])\.")
_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z])\.")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Credit:
    """What a text earns, 0 to 1, and the answer read in it; `is_read` is False where no answer was found."""

    value: float
    is_read: bool
    predicted: str | None


@dataclass(frozen=True)
class Rule:
    """How a text earns its credit, in what steps, and how those of a unit become one (a name in `UNIT_RULES`).

    `record` says so in a run's record.
    """

    name: str
    record: str
    credit: Callable[[str, Question], Credit]
    unit_rule: str = "all"
    step: float = 1.0


def rule(name: str) -> Rule:
    """The rule of this name.

    Raises ConfigError, with the nearest name, for an unknown one.
    """
    if name not in RULES:
        raise unknown_name("scoring rule", name, RULES)
    return RULES[name]


def credits_of(questions: Sequence[Question], texts: Sequence[str], *, rule: Rule) -> list[Credit]:
    """The credit of each generated text. Raises DataError for a question whose answer is not known."""
    for question in questions:
        if not question.answers:
            raise DataError(
                f"question {question.index} has no answer to score against; write the file of predictions instead"
            )
    return [rule.credit(text, question) for text, question in zip(texts, questions, strict=True)]


def unread(credits: Sequence[Credit]) -> int:
    """How many texts no answer was found in."""
    return sum(not credit.is_read for credit in credits)


def _by_letter(read: Callable[[str, Mapping[str, str]], str | None]) -> Callable[[str, Question], Credit]:
    def credit(text: str, question: Question) -> Credit:
        predicted = read(text, question.options or {})
        return Credit(float(predicted in question.answers), predicted is not None, predicted)

    return credit


def _inferred(text: str, options: Mapping[str, str]) -> str | None:
    words = text.translate(_BLANKED).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    said = _ANSWER_IS.search(text)
    if said and said[1] in options:
        return said[1]
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    contained = [letter for letter, option in options.items() if option.lower() in text.lower()]
    return contained[0] if len(contained) == 1 else None


def _exact(text: str, options: Mapping[str, str]) -> str | None:
    return text.strip() if text.strip() in options else None


def _before_stop(text: str, options: Mapping[str, str]) -> str | None:
    found = _LETTER_AND_STOP.search(text)
    return _exact(found[1] if found else text, options)


def _answer_is(text: str, options: Mapping[str, str]) -> str | None:
    line = text.replace("\n", ". ")
    if line.strip() in options:
        return line.strip()
    if line[1:3] == ". " and line[0] in options:
        return line[0]
    said = _THE_ANSWER_IS.findall(line)
    return said[0] if len(said) == 1 and said[0] in options else None


def _yes_or_no(text: str, question: Question) -> Credit:
    said = {"yes", "no"} & set(_WORD.findall(text.lower()))
    predicted = said.pop() if len(said) == 1 else None
    return Credit(float(predicted in question.answers), predicted is not None, predicted)


def _soft(text: str, question: Question) -> Credit:
    predicted = normalised(text)
    return Credit(soft_accuracy(text, question.answers), bool(predicted), predicted or None)


def _short(text: str, question: Question) -> Credit:
    predicted = normalised(text)
    is_right = bool(predicted) and predicted in map(normalised, question.answers)
    return Credit(float(is_right), bool(predicted), predicted or None)


_ALL_PASSES = "a question is right if all of its passes are"
SOFT_STEP = 1 / 30  # ten people's answers, each a third of what three that agree are worth
_NORMALISED = "answers made alike as by LLaVA's EvalAIAnswerProcessor"

RULES = {
    one.name: one
    for one in (
        Rule(
            "letters",
            f"one option's letter among the last words, else after 'answer is', else one option's text (VLMEvalKit's "
            f"can_infer, no judge); {_ALL_PASSES}",
            _by_letter(_inferred),
        ),
        Rule("exact-letter", "the whole text is the letter (LLaVA's SEED-Bench)", _by_letter(_exact)),
        Rule(
            "letter-and-stop",
            "the first letter before a full stop, else the text (lmms-eval)",
            _by_letter(_before_stop),
        ),
        Rule(
            "answer-is",
            "the letter, else 'X. ' at the start, else 'The answer is X.' once (LLaVA's ScienceQA)",
            _by_letter(_answer_is),
        ),
        Rule("soft", f"agreement with ten people's answers (VQA accuracy); {_NORMALISED}", _soft, step=SOFT_STEP),
        Rule(
            "yes-no",
            "the word yes or no, not both (VLMEvalKit); a picture earns 1 for both of its questions, 1/4 for one (MME)",
            _yes_or_no,
            unit_rule="mean_and_all",
        ),
        Rule("short", f"equal to an answer; {_NORMALISED}", _short),
    )
}
