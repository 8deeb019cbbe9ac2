"""`moslora judge results`: what the judgements of a closed study show."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moslora.cli.options import JsonOption, print_json, print_table, remarks
from moslora.cli.options import results as output
from moslora.errors import ConfigError, command

if TYPE_CHECKING:
    from moslora.judging.analysis import Analysis
    from moslora.judging.judgements import StudyRecord
    from moslora.judging.tables import Grid

EXAMPLES = (
    "moslora judge results study",
    "moslora judge results study --csv > results.csv",
    "# how many judgements there are while judging goes on",
    "moslora judge results study --anyway",
)


def results(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Folder that `moslora judge serve` wrote.", show_default=False)
    ],
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="METHOD", help="Compare every method with this one.", show_default=False),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the numbers as CSV.")] = False,
    as_json: JsonOption = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Before judging is closed: counts only, nothing by method.")
    ] = False,
) -> None:
    """Show how often each method was preferred, with intervals for new judges and new pairs, and how far to trust it.

    Refused before judging is closed: who looks and then stops when it looks good finds differences that are not there.
    """
    from moslora.judging.added import added_notes
    from moslora.judging.analysis import analyse
    from moslora.judging.judgements import read_study
    from moslora.judging.tables import as_json as plain
    from moslora.judging.tables import csv_text

    if as_csv and as_json:
        raise ConfigError("--csv and --json cannot go together; give one of them")
    record = read_study(study)
    if not record.is_closed:
        _show_counts(record, study, is_allowed=anyway, as_json=as_json)
        return
    found = analyse(record, baseline=baseline)
    if as_json:
        added = {"judges_added": record.added, "judges_added_after_closing": record.added_after_closing}
        print_json({**plain(found), **added})
    elif as_csv:
        typer.echo(csv_text(found), nl=False)
    else:
        _show(found, added_notes(record))
        remarks.print(f"With the pairs themselves: {command('report', study)}", style="dim")


def _show(found: "Analysis", further: list[str]) -> None:
    from moslora.judging.tables import grids, notes

    output.print(found.verdict)
    for grid in grids(found):
        output.print(f"\n{grid.title}")
        _print(grid)
    output.print()
    for note in (*notes(found), *further):
        output.print(f"- {note}")


def _show_counts(record: "StudyRecord", study: Path, *, is_allowed: bool, as_json: bool) -> None:
    from moslora.judging.added import added_notes
    from moslora.judging.tables import counts_grid

    grid = counts_grid(record)
    if not is_allowed:
        given = sum(one.check is None for one in record.judgements)
        planned = record.pairs_planned * len(record.questions) * max(record.judges_planned, len(record.judges))
        raise ConfigError(
            f"judging of {study} is not closed ({given} of {planned} planned judgements): results are shown when it is;"
            " close it on the admin page, or add --anyway for counts without methods"
        )
    if as_json:
        rows = [dict(zip(grid.head, (cell.text for cell in row), strict=True)) for row in grid.rows]
        print_json({"is_closed": False, "counts": rows})
        return
    output.print("Judging is not closed: counts only.")
    _print(grid)
    for note in added_notes(record):
        output.print(f"- {note}")


def _print(grid: "Grid") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for number, name in enumerate(grid.head):
        table.add_column(Text(name), justify="left" if not number or name in grid.words else "right")
    for row in grid.rows:
        table.add_row(*(Text(cell.text + (f" ({cell.remark})" if cell.remark else "")) for cell in row))
    print_table(output, table)
