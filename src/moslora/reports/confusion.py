"""Which answers are mixed up: how often each was given where another, or the same, is right."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from moslora.reports.parts import Cell, Table

MOST = 20  # different right answers that there is room for
OTHER, UNREAD = "another answer", "no answer read"


def confusion(answers: Sequence[Mapping[str, Any]], *, task: str) -> Table | None:
    """A row for each right answer and a column for each one given; None for a single right answer, or many.

    None too where answers are worth parts, so that no single one is right.
    """
    if any(one.get("step", 1) < 1 for one in answers):
        return None
    labels = [*dict.fromkeys(label for _, label in sorted((one.get("kind") or "", one["expected"]) for one in answers))]
    if not 2 <= len(labels) <= MOST:
        return None
    counts = Counter((one["expected"], _column(one, labels)) for one in answers)
    columns = [*labels, *(extra for extra in (OTHER, UNREAD) if any(given == extra for _, given in counts))]
    rows = []
    for label in labels:
        total = sum(counts[label, column] for column in columns)
        rows.append([label, *(_cell(counts[label, column], total) for column in columns)])
    caption = (
        f"{task}: how often each answer (column) was given where the row's is right. The larger its share of the row,"
        " the stronger its colour."
    )
    return Table(caption, ["right answer", *columns], rows, is_dense=True)


def _column(answer: Mapping[str, Any], labels: Sequence[str]) -> str:
    if answer["is_correct"]:
        return answer["expected"]
    if answer["predicted"] is None or not answer.get("is_read", True):
        return UNREAD
    return answer["predicted"] if answer["predicted"] in labels else OTHER


def _cell(count: int, total: int) -> Cell:
    return Cell(f"{count:,}", share=count / total)
