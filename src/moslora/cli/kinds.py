"""Accuracy by kind of question beside what needs neither picture nor question, 80 columns wide."""

from collections.abc import Mapping, Sequence
from textwrap import fill

from rich.console import Console
from rich.table import Table

from moslora.cli.options import print_table
from moslora.records import EvaluationRecord, Score

MOMENTS = ("before", "after", "evaluated")
SHORT = {"picture blanked": "no picture", "question removed": "no question"}
Column = tuple[str, Mapping[str, Score], Score | None]
KIND = 16  # letters of a line of a kind's name


def is_read_by_rule(found: EvaluationRecord) -> bool:
    """Whether a rule read what was answered, beside which the commonest answer and controls say something."""
    has_rule = found.scored is not None and found.scored.rule is not None
    return has_rule and found.unread is not None and found.agreement is None


def print_kinds(console: Console, evaluations: Sequence[EvaluationRecord]) -> None:
    """A table for each task: its kinds of question, and all, at every moment, the commonest answer, the controls."""
    for task in dict.fromkeys(found.task for found in evaluations):
        own = [found for found in evaluations if found.task == task]
        own.sort(key=lambda found: found.when not in MOMENTS)
        if any(found.by_kind for found in own):
            console.print(f"\n{task}: accuracy by kind of question, % (95 % interval)")
            _print_task(console, own)


def _print_task(console: Console, found: Sequence[EvaluationRecord]) -> None:
    always = next((one for one in reversed(found) if one.majority and one.when in MOMENTS), None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("kind")
    columns: list[Column] = [(one.when, one.by_kind, one) for one in found]
    if always is not None:
        place = sum(one.when in MOMENTS for one in found)
        columns.insert(place, ("commonest", always.majority_by_kind, always.majority))
    for name, _, _ in columns:
        table.add_column(SHORT.get(name, name), justify="right")
    for kind in sorted({kind for _, by_kind, _ in columns for kind in by_kind}):
        table.add_row(fill(kind.replace("_", " "), KIND), *(_share(by_kind.get(kind)) for _, by_kind, _ in columns))
    table.add_row("all", *(_share(whole) for _, _, whole in columns))
    print_table(console, table)
    if always is not None:
        given = [f"{one.answer} ({kind.replace('_', ' ')})" for kind, one in always.majority_by_kind.items()]
        console.print(fill(f"commonest answers: {', '.join(given)}", 80))


def _share(score: Score | None) -> str:
    return f"{100 * score.accuracy:.0f} ({100 * score.low:.0f}-{100 * score.high:.0f})" if score else "-"
