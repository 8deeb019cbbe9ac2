"""From the answers of one evaluation to its record. Imports no torch."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from moslora.data.tasks import RESPONSE_START, TASKS
from moslora.evaluation.answers import Unit, is_counted, units
from moslora.evaluation.majority import commonest, majority
from moslora.evaluation.scores import Accuracy, Answer, accuracy, accuracy_by_kind, chance
from moslora.records import EvaluationRecord, Majority, Score, Scored

QUESTION = "question"  # what a unit is, unless a record says otherwise
TRAINED = ("after", "evaluated")  # before training no model answers in the words that are taught
LITTLE = 0.01  # of the probability, below which labels are hardly what a model would answer


def evaluation_record(
    answers: Sequence[Answer],
    *,
    task: str,
    when: str,
    scoring: str,
    prompt: str | None,
    wall_seconds: float,
    rule: str | None = None,
    unit: str | None = None,
) -> EvaluationRecord:
    """The numbers of a task scored once, in all and by kind of question; `rule` names what gave the answers credit.

    `unit` is what one is called that is no question. Raises DataError if there are no answers, or those of a unit do
    not fit together.
    """
    found = accuracy(answers)
    unread = sum(not answer.is_read for answer in answers)
    return EvaluationRecord(
        task=task,
        when=when,
        scoring=scoring,
        prompt=prompt,
        chance=chance(answers),
        groups=found.groups,
        by_kind={kind: Score(**_numbers(own)) for kind, own in accuracy_by_kind(answers).items()},
        wall_seconds=wall_seconds,
        scored=scored_by(rule, units(answers), answers=len(answers), unit=unit),
        unread=unread if unread or rule else None,
        label_share=None if rule else _label_share(answers),
        **(_majority(answers) if rule else {}),
        **_numbers(found),
    )


def scored_by(rule: str | None, found: Sequence[Unit], *, answers: int, unit: str | None = None) -> Scored | None:
    """How so many answers became the credits of these units; None where each is right or wrong and counts alike."""
    scored = Scored(rule=rule, is_counted=is_counted(found), units=len(found), answers=answers, unit=unit)
    return None if scored == Scored(is_counted=True, units=answers, answers=answers) else scored


def chance_of(found: EvaluationRecord) -> float | None:
    """What guessing gets; records of former versions leave it to the task."""
    if found.chance is None and found.task in TASKS and found.scored is None:
        return TASKS[found.task].chance
    return found.chance


def scoring_notes(found: EvaluationRecord) -> list[str]:
    """What a reader must know of how a task was scored, where it is more than a share of right answers."""
    notes = [f"{found.task}: {scored_text(found.scored)}"] if found.scored and found.agreement is None else []
    if found.unread:
        answers = f"{found.unread:,} of {answer_count(found):,} answers"
        notes.append(f"{found.task}, {found.when}: nothing could be read from {answers}; they count as wrong")
    if hardly_answers(found):
        share = 100 * (found.label_share or 0)
        notes.append(
            f"{found.task}, {found.when}: the model gives '{RESPONSE_START}...' {share:.1f} % of the"
            " probability, all labels together: it does not answer in these words, so this accuracy says little; read"
            " what it writes (--scoring generation), or train on such questions (moslora recipes show choice)"
        )
    return notes


def hardly_answers(found: EvaluationRecord) -> bool:
    """Whether a trained model would hardly give any of the answers that it was scored on."""
    is_whole = found.agreement is None  # else a part was scored a second time
    return is_whole and found.when in TRAINED and found.label_share is not None and found.label_share < LITTLE


def answer_count(found: EvaluationRecord) -> int:
    """How many answers were given, which may be more than there are units."""
    return found.scored.answers if found.scored else found.total


def scored_text(scored: Scored) -> str:
    """What an accuracy is the mean of, in a few words."""
    counted = f"{scored.units:,} {units_of([scored])}"
    if scored.units != scored.answers:
        counted = f"{scored.units:,} units of {scored.answers:,} answers"
    what = "share right" if scored.is_counted else "mean credit (0 to 1)"
    return f"accuracy is the {what} of {counted}" + (f", by the rule {scored.rule}" if scored.rule else "")


def units_of(found: Iterable[Scored | None]) -> str:
    """What single units of these tasks are called, where all are called the same; else questions."""
    names = {one.unit if one else None for one in found}
    own = names.pop() if len(names) == 1 else None
    return f"{own or QUESTION}s"


def group_note(task: str, groups: int, scored: Scored | None) -> str:
    """That the intervals of a task count groups."""
    return f"{task}: intervals count {groups} groups of {units_of([scored])} that depend on each other"


def _label_share(answers: Sequence[Answer]) -> float | None:
    """The mean probability of a question's labels together; None unless all answers were chosen by it."""
    shares = [min(1.0, sum(map(math.exp, answer.scores.values()))) for answer in answers if answer.scores]
    return fmean(shares) if len(shares) == len(answers) else None


def _majority(answers: Sequence[Answer]) -> dict[str, Any]:
    always, given = majority(answers), commonest(answers)
    if not always:
        return {}
    own = None if len(given) > 1 else next(iter(given.values()))
    return {
        "majority": Majority(answer=own, **_numbers(accuracy(always))),
        "majority_by_kind": {
            kind: Majority(answer=given[kind], **_numbers(one)) for kind, one in accuracy_by_kind(always).items()
        },
    }


def _numbers(found: Accuracy) -> dict[str, Any]:
    low, high = found.interval
    return {"correct": found.correct, "total": found.total, "accuracy": found.value, "low": low, "high": high}
