"""From the answers of one evaluation to its record. Imports no torch."""

from collections.abc import Sequence
from typing import Any

from moslora.evaluation.scores import Accuracy, Answer, accuracy, accuracy_by_kind, chance
from moslora.records import EvaluationRecord, Score


def evaluation_record(
    answers: Sequence[Answer],
    *,
    task: str,
    when: str,
    scoring: str,
    prompt: str | None,
    wall_seconds: float,
) -> EvaluationRecord:
    """The numbers of a task scored once, in all and by kind of question.

    Raises DataError if there are no answers.
    """
    found = accuracy(answers)
    return EvaluationRecord(
        task=task,
        when=when,
        scoring=scoring,
        prompt=prompt,
        chance=chance(answers),
        groups=found.groups,
        by_kind={kind: Score(**_numbers(own)) for kind, own in accuracy_by_kind(answers).items()},
        wall_seconds=wall_seconds,
        **_numbers(found),
    )


def _numbers(found: Accuracy) -> dict[str, Any]:
    low, high = found.interval
    return {"correct": found.correct, "total": found.total, "accuracy": found.value, "low": low, "high": high}
