"""Answers to questions, and the units in which they are scored. Imports no torch, so reports can use it.

Most questions are units of their own, right or wrong. A unit may also be worth a part (one of ten annotators gave the
answer), hold several answers (one question with its options in every order; two questions on one picture), and count
more or less than others. Everything after this module sees units only: a credit from 0 to 1, and a weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite, prod
from statistics import fmean
from typing import Any, NamedTuple, Self, cast

from moslora.errors import DataError

# From the credits of a unit's answers to the unit's. Each is linear in every credit, so that guesses, which have
# nothing to do with each other, get on average what the rule makes of their averages.
UNIT_RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "all": prod,  # right only if every answer is
    "mean": fmean,
    "mean_and_all": lambda credits: (fmean(credits) + prod(credits)) / 2,  # MME: accuracy and accuracy+ of a picture
}


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question.

    `index` counts the questions from 0; `predicted` is None if the generated `text` holds no label; `scores` are the
    log-probabilities (natural logarithm) of the allowed answers, of which there are `options`. Questions of one `group`
    depend on each other: they share their options, say.

    `credit` is what the answer is worth, 0 to 1, in steps of at least `step`; without one it is 1 or 0, by
    `is_correct`. Answers of one `unit` are scored together, by `unit_rule` (a name in `UNIT_RULES`); without one an
    answer is a unit of its own. `weight` is how much the unit counts beside others. `is_read` is False for a text in
    which no rule could find an answer. Raises ValueError for values that do not fit.
    """

    index: int
    expected: str
    predicted: str | None
    is_correct: bool
    kind: str | None = None
    text: str | None = None
    scores: dict[str, float] | None = None
    options: int | None = None
    group: str | None = None
    credit: float = cast("float", None)
    step: float = 1.0
    unit: str | None = None
    unit_rule: str = "all"
    weight: float = 1.0
    is_read: bool = True

    def __post_init__(self) -> None:
        if self.credit is None:
            object.__setattr__(self, "credit", float(self.is_correct))
        if not 0 <= self.credit <= 1 or self.is_correct != (self.credit == 1):
            state = "right" if self.is_correct else "wrong"
            raise ValueError(
                f"an answer that is {state} has a credit of {self.credit}; give 1 if it is right, else less"
            )
        if not 0 < self.step <= 1 or (self.step == 1 and self.credit not in (0, 1)):
            raise ValueError(
                f"a credit of {self.credit} in steps of {self.step}; give the least that credits differ by"
            )
        if not (isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"an answer has a weight of {self.weight}; give a positive number")
        if self.unit_rule not in UNIT_RULES:
            raise ValueError(f"unknown unit_rule '{self.unit_rule}' (allowed: {', '.join(UNIT_RULES)})")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for a line of JSON; what is only about credits is left out where it is usual."""
        found = asdict(self)
        usual = _USUAL | {"credit": float(self.is_correct)}
        return {name: value for name, value in found.items() if name not in usual or value != usual[name]}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Self:
        """The answer of which this is the line of JSON, of this version or a former one.

        Raises KeyError, TypeError or ValueError if it is none.
        """
        if not isinstance(line["is_correct"], bool):
            raise TypeError(f"is_correct is {line['is_correct']!r}, not true or false")
        given = {field.name: line[field.name] for field in fields(cls) if field.name in line}
        given |= {"index": int(line["index"]), "expected": str(line["expected"])}
        given["options"] = line.get("options") or len(line.get("scores") or ()) or None  # former versions: the scores
        return cls(**{"predicted": None, **given})


@dataclass(frozen=True)
class SampleAnswer:
    """What a model makes of one sample, counted from 0: the mean loss of its tokens (nats), and how many these are."""

    index: int
    loss: float
    tokens: int
    group: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for a line of JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Self:
        """The sample of which this is the line of JSON. Raises KeyError, TypeError or ValueError if it is none."""
        group = line.get("group")
        return cls(int(line["index"]), float(line["loss"]), int(line["tokens"]), None if group is None else str(group))


_USUAL = {"step": 1.0, "unit": None, "unit_rule": "all", "weight": 1.0, "is_read": True}


class Unit(NamedTuple):
    """What is scored as one: its credit, what guessing would get (None where it is not known), and how much it counts.

    A `step` of 1 says that it is either right or wrong.
    """

    credit: float
    chance: float | None
    step: float
    weight: float
    kind: str | None
    group: str | None


def units(answers: Sequence[Answer]) -> list[Unit]:
    """The units of the answers, in the order of their first answers.

    Raises DataError if a unit's answers differ in kind, group, weight or rule.
    """
    members: dict[object, list[Answer]] = {}
    for place, answer in enumerate(answers):
        members.setdefault(place if answer.unit is None else answer.unit, []).append(answer)
    return [_unit(found) for found in members.values()]


def is_counted(found: Sequence[Unit]) -> bool:
    """Whether each unit is right or wrong and all count alike, so that their accuracy is a share of right ones."""
    return all(unit.step == 1 for unit in found) and len({unit.weight for unit in found}) == 1


def _unit(answers: Sequence[Answer]) -> Unit:
    first = answers[0]
    for name in ("kind", "group", "weight", "unit_rule"):
        for other in answers[1:]:
            if getattr(other, name) != getattr(first, name):
                values = f"{getattr(first, name)} and {getattr(other, name)}"
                raise DataError(f"the answers of unit {first.unit} differ in {name} ({values}); give them the same")
    rule = UNIT_RULES[first.unit_rule]
    shares = [1 / answer.options for answer in answers if answer.options]
    return Unit(
        credit=rule([answer.credit for answer in answers]),
        chance=rule(shares) if len(shares) == len(answers) else None,
        step=min(answer.step for answer in answers) / _parts(first.unit_rule, len(answers)),
        weight=first.weight,
        kind=first.kind,
        group=first.group,
    )


def _parts(unit_rule: str, count: int) -> int:
    """Into how many equal parts a rule cuts what one of `count` answers is worth at least."""
    if count == 1 or unit_rule == "all":
        return 1
    return count if unit_rule == "mean" else 2 * count
