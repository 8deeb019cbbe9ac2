"""A finished run in a few lines, 80 columns wide."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from moslora.cli.kinds import is_read_by_rule, print_kinds
from moslora.cli.losses import print_losses
from moslora.cli.options import print_table
from moslora.cli.parts import part_table
from moslora.data.tasks import EVERYDAY, chance_text
from moslora.errors import command
from moslora.evaluation.recording import answer_count, chance_of, group_note, scoring_notes
from moslora.records import EvaluationRecord, RunRecord, Score

SCORINGS = {"log_probability": "log-prob.", "generation": "generation"}


def print_run(console: Console, record: RunRecord, folder: Path) -> None:
    """Accuracy with intervals, parameters, time, memory, and where everything lies."""
    console.print(f"run {record.recipe['name']}: {record.status}", style="bold")
    print_evaluations(console, record.evaluations)
    print_losses(console, record.losses)
    console.print()
    if record.coverage and record.coverage.parts:
        print_table(console, part_table(part.model_dump() for part in record.coverage.parts))
        console.print()
    for name, value in _facts(record, folder):
        console.print(f"{name:<20}{value}")


def print_evaluations(
    console: Console, evaluations: Iterable[EvaluationRecord], *, beside: Iterable[EvaluationRecord] = ()
) -> None:
    """Each evaluation's accuracy, each agreement of two ways of scoring, and the accuracy by kind of question.

    `beside` are controls of the same questions, made before.
    """
    evaluations = list(evaluations)
    if evaluations:
        print_table(console, _evaluation_table(evaluations))
    groups = [found for found in evaluations if found.groups and found.agreement is None]
    for note in dict.fromkeys(group_note(found.task, found.groups or 0, found.scored) for found in groups):
        console.print(note)
    for note in dict.fromkeys(note for found in evaluations for note in scoring_notes(found)):
        console.print(note)
    for found in evaluations:
        if found.agreement is not None:
            scoring = found.scoring.replace("_", " ")
            share = f"{found.agreement:.0%} of {answer_count(found)}"
            console.print(f"{found.task}: {scoring} gave the same answer to {share}")
    print_kinds(console, [*filter(is_read_by_rule, evaluations), *beside])
    others = [found for found in evaluations if found.agreement is None and not is_read_by_rule(found)]
    moments = {found.when: found.by_kind for found in others if found.by_kind}
    if moments:
        console.print("\naccuracy by kind of question")
        print_table(console, _kind_table(moments))


def _evaluation_table(evaluations: Iterable[EvaluationRecord]) -> Table:
    table = _table("task", "when", "accuracy (95 %)", "chance", "right", "scored by")
    for found in evaluations:
        table.add_row(
            found.task,
            found.when,
            f"{found.accuracy:.1%} ({found.low:.0%} - {found.high:.0%})",
            chance_text(chance_of(found)),
            f"{found.correct}/{found.total}",
            SCORINGS.get(found.scoring, found.scoring),
        )
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


def _facts(record: RunRecord, folder: Path) -> list[tuple[str, str]]:
    facts = []
    has_mixers = False
    if record.parameters:
        counts = record.parameters
        has_mixers = counts.mixer > 0
        mixers = f", {counts.mixer:,} of them mixers" if has_mixers else ""
        share = counts.trainable / counts.total
        facts.append(("trained parameters", f"{counts.trainable:,} of {counts.total:,} ({share:.2%}){mixers}"))
    if record.coverage and record.coverage.total:
        covered, total = record.coverage.adapted, record.coverage.total
        facts.append(("adapted weights", f"{covered:,} of {total:,} ({covered / total:.1%})"))
    times = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in record.wall_seconds.items())
    facts.append(("time", times or "-"))
    if record.peak_memory_bytes:
        facts.append(("peak memory", f"{record.peak_memory_bytes / 2**30:.2f} GiB"))
    if record.train_loss is not None:
        facts.append(("training loss", f"{record.train_loss:.4f} over {record.steps} steps"))
    if record.validation_loss is not None:
        each = "a picture" if _draws(record) else "a token"
        facts.append(("validation loss", f"{record.validation_loss:.4f} {each}, of the weights kept"))
    if record.validation_perplexity is not None:
        facts.append(("perplexity", f"{record.validation_perplexity:,.2f} on the validation samples"))
    facts += [("note", note) for note in record.notes]
    facts += [(name, str(folder / path)) for name, path in record.artifacts.items()]
    facts.append(("record", str(folder / "run.json")))
    facts.append(("next", _next(record, folder, has_mixers=has_mixers)))
    return facts
