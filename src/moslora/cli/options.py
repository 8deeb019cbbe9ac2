"""What the commands share: where they print, and the arguments and options that mean the same everywhere.

Results go to stdout, progress and remarks to stderr, so that a result can be piped.
"""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moslora.errors import python_line

if TYPE_CHECKING:
    from moslora.runs.exporting import Export

results = Console(highlight=False, markup=False, soft_wrap=True)
remarks = Console(highlight=False, markup=False, soft_wrap=True, stderr=True)


def _checked_model(base: str | None) -> str | None:
    """Refuse a model that cannot be had before anything slow is imported."""
    if base is not None:
        from moslora.runs.model_names import check_obtainable

        check_obtainable(base)
    return base


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.", show_default=False)
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that `moslora train` wrote.", show_default=False)
]
AdapterArgument = Annotated[
    Path, typer.Argument(metavar="RUN|ADAPTER", help="Folder of a run or of a saved adapter.", show_default=False)
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|ADAPTER|MODEL",
        help="Folder of a run, an adapter or a model, smollm2, or a hub id.",
        show_default=False,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", metavar="MODEL", help="A base model other than the recorded one.", callback=_checked_model),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt-style", help="alpaca, plain, chat or none. Default: what the run or folder says."),
]
DriftOption = Annotated[
    bool, typer.Option("--allow-drift", help="Accept a difference above the tolerance, and record it.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Change a setting of the recipe; may be repeated.", show_default=False
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.", show_default=False)
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder first.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume from the folder's newest checkpoint.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def examples(*lines: str) -> str:
    """The end of a command's help: its examples, one a line; lines that start with `#` explain the next."""
    shown = [f"[dim]{escape(line)}[/dim]" if line.startswith("#") else escape(line) for line in lines]
    return "\n".join(["[bold]Examples[/bold]", *shown])


def remark(line: str) -> None:
    """Tell what a command does, beside its result."""
    remarks.print(line, style="dim")


def print_json(value: Any) -> None:
    """Print a result for machines; numbers that JSON does not know are written as text."""
    results.print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_export(export: "Export", headline: str, *, plain: str, code: str, as_json: bool) -> None:
    """What was exported, what was verified, and the Python `code` that loads it with what is `plain`."""
    if as_json:
        print_json(export.to_dict())
        return
    results.print(headline)
    for line in export.verdicts():
        results.print(line)
    results.print(f"load it with {plain}:")
    results.print(f"  {python_line(code)}")
    for note in export.notes:
        results.print(f"note: {note}")


def print_table(console: Console, table: Table) -> None:
    """Print a table at its own width, so that nothing in it is cut, not in a pipe either."""
    width = console.measure(table, options=console.options.update(width=1000)).maximum
    Console(file=console.file, width=max(width, console.width)).print(table)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case _:
            return value


def given_options(context: typer.Context, names: Collection[str]) -> list[str]:
    """Those of a command's options, by the names of their parameters, that were given, as one writes them."""
    sources = {name: context.get_parameter_source(name) for name in names}
    written = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    return [max(option.opts, key=len) for option in context.command.params if option.name in written]
