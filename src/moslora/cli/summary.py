"""A finished run in a few lines."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moslora.data.tasks import task
from moslora.records import EvaluationRecord, RunRecord, Score


def run_summary(record: RunRecord, folder: Path) -> RenderableType:
    """Accuracy with intervals, parameters, time, memory, and where everything lies."""
    parts: list[RenderableType] = [Text(f"run {record.recipe['name']}: {record.status}", style="bold")]
    if record.evaluations:
        parts.append(evaluation_table(record.evaluations))
    by_kind = kind_table(record.evaluations)
    if by_kind is not None:
        parts += [Text("\naccuracy by kind of question"), by_kind]
    parts.append(_facts(record, folder))
    return Group(*parts)


def evaluation_table(evaluations: Iterable[EvaluationRecord]) -> Table:
    """One row an evaluation: accuracy, 95 % interval, chance."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in ("task", "when", "accuracy", "95 % interval", "chance", "questions", "scored by"):
        table.add_column(name, justify="left" if name in ("task", "when", "scored by") else "right")
    for found in evaluations:
        scoring = found.scoring.replace("_", " ")
        if found.agreement is not None:
            scoring += f" (same answers: {found.agreement:.0%})"
        table.add_row(
            found.task,
            found.when,
            f"{found.accuracy:.1%}",
            f"{found.low:.1%} - {found.high:.1%}",
            f"{1 / len(task(found.task).labels):.0%}",
            str(found.total),
            scoring,
        )
    return table


def kind_table(evaluations: Iterable[EvaluationRecord]) -> Table | None:
    """Accuracy for each kind of question, one column an evaluation of all questions; None where there are no kinds."""
    moments = {found.when: found.by_kind for found in evaluations if found.by_kind and found.agreement is None}
    kinds = sorted({kind for by_kind in moments.values() for kind in by_kind})
    if not kinds:
        return None
    table = Table("kind", *moments, box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for kind in kinds:
        table.add_row(kind, *(_share(by_kind.get(kind)) for by_kind in moments.values()))
    return table


def _share(score: Score | None) -> str:
    return f"{score.accuracy:4.0%} ({score.low:.0%} - {score.high:.0%})" if score else ""


def _facts(record: RunRecord, folder: Path) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_row()
    if record.parameters:
        counts = record.parameters
        share = counts.trainable / counts.total
        mixers = f", {counts.mixer:,} of them mixers" if counts.mixer else ""
        table.add_row("trained parameters", f"{counts.trainable:,} of {counts.total:,} ({share:.2%}){mixers}")
    times = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in record.wall_seconds.items())
    table.add_row("time", times or "-")
    if record.peak_memory_bytes:
        table.add_row("peak memory", f"{record.peak_memory_bytes / 2**30:.2f} GiB")
    if record.train_loss is not None:
        table.add_row("training loss", f"{record.train_loss:.4f} over {record.steps} steps")
    for note in record.notes:
        table.add_row("note", note)
    for name, path in record.artifacts.items():
        table.add_row(name, str(folder / path))
    table.add_row("record", str(folder / "run.json"))
    has_mixers = bool(record.parameters and record.parameters.mixer)
    commands = ("fold", "merge", "inspect") if has_mixers else ("evaluate", "inspect")
    table.add_row("next", "   |   ".join(f"moslora {command} {folder}" for command in commands))
    return table
