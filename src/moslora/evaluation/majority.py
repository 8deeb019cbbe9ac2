"""What always giving the commonest answer gets, of a kind of question or of all. Imports no torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from moslora.evaluation.answers import Answer

SEVERAL = " | "  # between the answers of one question that count as right


def commonest(answers: Sequence[Answer]) -> dict[str | None, str]:
    """The answer that is right most often, by kind of question; of several the first in the alphabet."""
    counts: dict[str | None, Counter[str]] = {}
    for answer in answers:
        counts.setdefault(answer.kind, Counter()).update(answer.expected.split(SEVERAL))
    return {kind: min(found, key=lambda text: (-found[text], text)) for kind, found in counts.items()}


def majority(answers: Sequence[Answer]) -> list[Answer]:
    """The answers with each replaced by its kind's commonest one, scored alike.

    Empty where answers are worth parts: what the commonest would be worth is not known then.
    """
    if any(answer.step < 1 for answer in answers):
        return []
    given = commonest(answers)
    return [_instead(answer, given[answer.kind]) for answer in answers]


def _instead(answer: Answer, given: str) -> Answer:
    is_right = given in answer.expected.split(SEVERAL)
    return replace(answer, predicted=given, is_correct=is_right, credit=float(is_right), is_read=True)
