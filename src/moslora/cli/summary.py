"""A finished run in a few lines, which fit 60 columns of a terminal."""

import textwrap
from collections.abc import Collection, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from moslora.cli.kinds import is_read_by_rule, print_kinds
from moslora.cli.losses import print_losses
from moslora.cli.options import print_table
from moslora.cli.parts import print_parts
from moslora.data.tasks import EVERYDAY, chance_text
from moslora.errors import command
from moslora.evaluation.recording import answer_count, chance_of, group_note, scoring_notes
from moslora.records import EvaluationRecord, RunRecord, Score

FACT = 20  # columns of a fact's name
WIDTH = 72  # columns below which a table leaves out what is less asked for
SCORINGS = {"log_probability": "log-prob.", "generation": "generation"}


def print_run(console: Console, record: RunRecord, folder: Path, *, said: Collection[str] = ()) -> None:
    """Accuracy with intervals, losses, parameters, time, memory, and where everything is; no note already `said`."""
    console.print(f"run {folder.resolve().name}: {record.status}", style="bold")
    print_evaluations(console, record.evaluations)
    print_losses(console, record.losses)
    console.print()
    if record.coverage and record.coverage.parts:
        print_parts(console, (part.model_dump() for part in record.coverage.parts))
        console.print()
    notes = [("note", note) for note in record.told if note not in said]
    for name, value in [*_losses(record), *_facts(record), *notes, *_places(record, folder)]:
        print_line(console, f"{name:<{FACT}}{value}", indent=FACT)


def print_evaluations(
    console: Console, evaluations: Iterable[EvaluationRecord], *, beside: Iterable[EvaluationRecord] = ()
) -> None:
    """Each evaluation's accuracy, each agreement of two ways of scoring, and the accuracy by kind of question.

    `beside` are controls of the same questions, made before.
    """
    evaluations = list(evaluations)
    if evaluations:
        print_table(console, _evaluation_table(evaluations, is_narrow=console.width < WIDTH))
    groups = [found for found in evaluations if found.groups and found.agreement is None]
    for note in dict.fromkeys(group_note(found.task, found.groups or 0, found.scored) for found in groups):
        print_line(console, note)
    for note in dict.fromkeys(note for found in evaluations for note in scoring_notes(found)):
        print_line(console, note)
    for found in evaluations:
        if found.agreement is not None:
            scoring = found.scoring.replace("_", " ")
            share = f"{found.agreement:.0%} of {answer_count(found)}"
            print_line(console, f"{found.task}: {scoring} gave the same answer to {share}")
    print_kinds(console, [*filter(is_read_by_rule, evaluations), *beside])
    others = [found for found in evaluations if found.agreement is None and not is_read_by_rule(found)]
    moments = {found.when: found.by_kind for found in others if found.by_kind}
    if moments:
        console.print("\naccuracy by kind of question")
        print_table(console, _kind_table(moments))


def print_line(console: Console, text: str, *, indent: int = 0) -> None:
    """A line, on a terminal broken between words, with what is continued set in; in a pipe or a file it stays one."""
    if console.is_terminal:
        lines = textwrap.wrap(
            text, console.width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        text = "\n".join(lines)
    console.print(text)


def _evaluation_table(evaluations: Iterable[EvaluationRecord], *, is_narrow: bool) -> Table:
    """All that is known of each; on a narrow screen without what was counted and how it was scored."""
    headings = ["task", "when", "accuracy (95 %)", "chance", "right", "scored by"]
    headings = headings[:4] if is_narrow else headings
    table = _table(*headings)
    for found in evaluations:
        cells = (
            found.task,
            found.when,
            f"{found.accuracy:.1%} ({found.low:.0%} - {found.high:.0%})",
            chance_text(chance_of(found)),
            f"{found.correct}/{found.total}",
            SCORINGS.get(found.scoring, found.scoring),
        )
        table.add_row(*cells[: len(headings)])
    return table


def _kind_table(moments: dict[str, dict[str, Score]]) -> Table:
    kinds = sorted({kind for by_kind in moments.values() for kind in by_kind})
    table = _table("kind", *moments)
    for kind in kinds:
        table.add_row(kind, *(_share(by_kind.get(kind)) for by_kind in moments.values()))
    return table


def _next(record: RunRecord, folder: Path, *, has_mixers: bool) -> str:
    if has_mixers and "folded" not in record.artifacts:
        return command("fold", folder)
    if record.recipe["evaluation"]["tasks"]:
        return command("evaluate", folder)
    if _draws(record):
        return command("generate", folder, "--prompts", "FILE")
    sees_pictures = record.recipe.get("kind") == "vision_language"
    return command("evaluate", folder, "--task", "easy-vqa" if sees_pictures else EVERYDAY)


def _draws(record: RunRecord) -> bool:
    return record.recipe.get("kind") == "subject"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        is_text = heading in ("task", "when", "scored by", "kind")
        table.add_column(heading, justify="left" if is_text else "right")
    return table


def _share(score: Score | None) -> str:
    return f"{score.accuracy:.0%} ({score.low:.0%} - {score.high:.0%})" if score else ""


def _losses(record: RunRecord) -> list[tuple[str, str]]:
    facts = []
    if record.validation_loss is not None:
        each = "picture" if _draws(record) else "token"
        facts.append(("validation loss", f"{record.validation_loss:.4f} per {each}, of the weights kept"))
    if record.validation_perplexity is not None:
        facts.append(("perplexity", f"{record.validation_perplexity:,.2f} on the validation samples"))
    if record.train_loss is not None:
        facts.append(("training loss", f"{record.train_loss:.4f} (mean of {record.steps} steps)"))
    return facts


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    facts = []
    if record.parameters:
        counts = record.parameters
        mixers = f", {counts.mixer:,} of them mixers" if counts.mixer else ""
        share = counts.trainable / counts.total
        facts.append(("trained parameters", f"{counts.trainable:,} of {counts.total:,} ({share:.2%}){mixers}"))
    if record.coverage and record.coverage.total:
        covered, total = record.coverage.adapted, record.coverage.total
        facts.append(("adapted weights", f"{covered:,} of {total:,} ({covered / total:.1%})"))
    times = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in record.wall_seconds.items())
    facts.append(("time", times or "-"))
    if record.peak_memory_bytes:
        facts.append(("peak memory", f"{record.peak_memory_bytes / 2**30:.2f} GiB"))
    return facts


def _places(record: RunRecord, folder: Path) -> list[tuple[str, str]]:
    has_mixers = record.parameters is not None and record.parameters.mixer > 0
    written = [(name, str(folder / path)) for name, path in record.artifacts.items()]
    return [*written, ("record", str(folder / "run.json")), ("next", _next(record, folder, has_mixers=has_mixers))]
