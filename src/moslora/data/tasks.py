"""The multiple-choice tasks: their labels, and how the paper finds a label in generated text (paper.md, section 2)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moslora.errors import DataError, unknown_name

RESPONSE_START = "the correct answer is "
FORMAT_LINE = "Answer format:"
EVERYDAY = "everyday"
VARYING = ("ARC-Easy", "ARC-Challenge")  # three, four or five options a question


@dataclass(frozen=True)
class Task:
    """One multiple-choice task.

    `labels` are the answers a question may have; `label_pattern` is the regular expression whose first match in a
    generated text is the prediction. It follows the reference protocol, so it can find a label the task lacks
    (`answer5` in a four-way question), which then counts as wrong.
    """

    name: str
    labels: tuple[str, ...]
    label_pattern: str

    @property
    def chance(self) -> float | None:
        """The share that guessing gets right; None where questions have different numbers of options."""
        return None if self.name in VARYING else 1 / len(self.labels)

    def allowed_labels(self, instruction: str) -> tuple[str, ...]:
        """The labels one question allows: those its answer-format line (else its whole text) names, else all.

        A question naming fewer than two labels says nothing useful, so it falls back to all labels too.
        """
        _, found, after = instruction.rpartition(FORMAT_LINE)
        text = after if found else instruction
        named = tuple(label for label in self.labels if re.search(rf"\b{re.escape(label)}\b", text))
        return named if len(named) > 1 else self.labels

    def predicted_label(self, text: str) -> str | None:
        """The first match of the label pattern in `text` without its outer white space; None if there is none."""
        match = re.search(self.label_pattern, text.strip())
        return match.group(0) if match else None


def _numbered(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}{number}" for number in range(1, count + 1))


def _pattern(labels: tuple[str, ...]) -> str:
    return "|".join(re.escape(label) for label in labels)


_ANSWER_PATTERN = _pattern(_numbered("answer", 5))


def _task(name: str, labels: tuple[str, ...]) -> Task:
    has_answers = labels[0].startswith("answer")
    return Task(name, labels, _ANSWER_PATTERN if has_answers else _pattern(labels))


COMMONSENSE = ("boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "ARC-Easy", "ARC-Challenge", "openbookqa")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("boolq", ("true", "false")),
        _task("piqa", _numbered("solution", 2)),
        _task("social_i_qa", _numbered("answer", 3)),
        _task("hellaswag", _numbered("ending", 4)),
        _task("winogrande", _numbered("option", 2)),
        _task("ARC-Easy", _numbered("answer", 5)),
        _task("ARC-Challenge", _numbered("answer", 5)),
        _task("openbookqa", _numbered("answer", 4)),
        _task(EVERYDAY, _numbered("answer", 4)),
    )
}


def chance_text(share: float | None) -> str:
    """A share that guessing gets right as a percentage: whole where it is, else with a decimal or two."""
    return "–" if share is None else f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def task(name: str) -> Task:
    """The task of this name.

    Raises ConfigError, with the nearest name, for an unknown one.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]


def check_answers(samples: Sequence[Mapping[str, Any]], task: Task, *, source: str) -> None:
    """Check that every sample has an instruction, an output, and an answer its question allows.

    Raises DataError naming `source`, the sample (counted from 1), the field, its value and the allowed labels.
    """
    if not samples:
        raise DataError(f"{source}: no samples for task '{task.name}'; give at least one")
    for number, sample in enumerate(samples, start=1):
        for field in ("instruction", "output"):
            text_field(sample, field, place=f"{source}: sample {number}")
        answer = sample.get("answer")
        allowed = task.allowed_labels(sample["instruction"])
        if answer not in allowed:
            given = "is missing" if "answer" not in sample else f"is {answer!r}"
            raise DataError(
                f"{source}: sample {number}: field 'answer' {given}, which task '{task.name}' does not allow there "
                f"(allowed: {', '.join(allowed)}); correct the sample or choose its task"
            )


def text_field(
    sample: Mapping[str, Any], field: str, *, place: str, advice: str = "add it or choose another data format"
) -> str:
    """The text of a sample's field.

    Raises DataError naming the place and the field if it is missing, blank or not text; `advice` is for a missing one.
    """
    if field not in sample:
        raise DataError(
            f"{place}: field '{field}' is missing (it has: {', '.join(map(str, sample)) or 'none'}); {advice}"
        )
    value = sample[field]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: field '{field}' is {value!r}, expected text; correct the sample")
    return value
