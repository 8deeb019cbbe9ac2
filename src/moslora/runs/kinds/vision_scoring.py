"""From the texts that a model answers about pictures to answers with their credit, by the task's rule."""

from collections import Counter
from collections.abc import Sequence

from moslora.data.vision_tasks import Question
from moslora.evaluation.answers import Answer
from moslora.evaluation.vision import Rule, credits_of


def scored(questions: Sequence[Question], texts: Sequence[str], *, rule: Rule) -> list[Answer]:
    """The answers, in the questions' order. Raises DataError for a question whose answer is not known."""
    members = Counter(question.unit for question in questions)
    return [
        Answer(
            index,
            expected=" | ".join(dict.fromkeys(question.answers)),
            predicted=credit.predicted,
            is_correct=credit.value == 1,
            kind=question.kind,
            text=text,
            options=len(question.options) if question.options else None,
            group=question.group,
            credit=credit.value,
            step=rule.step,
            unit=question.unit if members[question.unit] > 1 else None,
            unit_rule=rule.unit_rule,
            weight=question.weight,
            is_read=credit.is_read,
        )
        for index, (question, text, credit) in enumerate(
            zip(questions, texts, credits_of(questions, texts, rule=rule), strict=True)
        )
    ]
