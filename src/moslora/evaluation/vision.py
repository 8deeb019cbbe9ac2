"""From a generated text about a picture to a credit of 0 to 1: pure rules, each with the sentence that a record names.

A text in which no rule finds an answer earns nothing, and is told apart from a wrong answer: published scores differ by
tens of points in what they do with it. No rule asks another model.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moslora.data.vision_tasks import Question
from moslora.errors import DataError, unknown_name
from moslora.evaluation.answers import UNIT_RULES
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
class UnitCredit:
    """What the questions of a unit earn together, 0 to 1, and how often it counts; `is_read` if all were read."""

    unit: str
    value: float
    weight: float
    is_read: bool
    kind: str | None = None
    group: str | None = None


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


@dataclass(frozen=True)
class PairScore:
    """MME: by subtask the accuracy over questions and over pictures with both right, each 0 to 100."""

    subtasks: dict[str, tuple[float, float]]

    @property
    def total(self) -> float:
        """The sum of both accuracies over the subtasks: 0 to 200 each, 2,800 for all fourteen."""
        return sum(map(sum, self.subtasks.values()))

    @property
    def per_cent(self) -> float:
        """The total as a share of what can be had, 0 to 100: a 28th of it for all fourteen subtasks."""
        return self.total / (2 * len(self.subtasks))


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
                f"question {question.index} has no answer to score by; write the file of predictions instead"
            )
    return [rule.credit(text, question) for text, question in zip(texts, questions, strict=True)]


def unread(credits: Sequence[Credit]) -> int:
    """How many texts no answer was found in."""
    return sum(not credit.is_read for credit in credits)


def unit_credits(questions: Sequence[Question], credits: Sequence[Credit], *, rule: Rule) -> list[UnitCredit]:
    """The credits of the units, in the order in which these come."""
    units: defaultdict[str, list[tuple[Question, Credit]]] = defaultdict(list)
    for question, credit in zip(questions, credits, strict=True):
        units[question.unit].append((question, credit))
    found = []
    for unit, members in units.items():
        first = members[0][0]
        value = UNIT_RULES[rule.unit_rule]([credit.value for _, credit in members])
        is_read = all(credit.is_read for _, credit in members)
        found.append(UnitCredit(unit, value, first.weight, is_read, first.kind, first.group))
    return found


def weighted_mean(units: Sequence[UnitCredit]) -> float:
    """The mean credit of the units, 0 to 1. Raises DataError if there are none."""
    if not units:
        raise DataError("no answers to score; evaluate at least one question")
    return sum(unit.weight * unit.value for unit in units) / sum(unit.weight for unit in units)


def means_by_kind(units: Sequence[UnitCredit]) -> dict[str, float]:
    """The mean credit of each kind, by name; units without a kind are left out."""
    kinds: defaultdict[str, list[UnitCredit]] = defaultdict(list)
    for unit in units:
        if unit.kind is not None:
            kinds[unit.kind].append(unit)
    return {kind: weighted_mean(kinds[kind]) for kind in sorted(kinds)}


def pair_score(questions: Sequence[Question], credits: Sequence[Credit]) -> PairScore:
    """MME's own score of all its questions, whose units are pictures and whose kinds are subtasks."""
    pictures: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question, credit in zip(questions, credits, strict=True):
        pictures[question.kind or ""][question.unit].append(credit.value)
    return PairScore({kind: _accuracies(pictures[kind]) for kind in sorted(pictures)})


def _accuracies(pictures: Mapping[str, list[float]]) -> tuple[float, float]:
    single = [value for values in pictures.values() for value in values]
    both = [min(values) for values in pictures.values()]
    return 100 * sum(single) / len(single), 100 * sum(both) / len(both)


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
