"""`moslora inspect`: what an adapter, or a recipe, covers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moslora.cli.options import BaseOption, JsonOption, SetOption, print_json, print_table, remark, remarks, results
from moslora.cli.parts import print_parts
from moslora.errors import ConfigError

EXAMPLES = (
    "moslora inspect runs/demo",
    "# before training: which modules a recipe would adapt",
    "moslora inspect demo --set adapter.target_modules=[q_proj]",
    "moslora inspect runs/demo --layers --json",
    "# its mixers and updates as a picture",
    "moslora inspect runs/demo --plot inside.png",
)
STATISTICS = {
    "mixer_condition": "mixer condition",
    "mixer_from_identity": "from identity",
    "mixer_from_orthogonal": "from orthogonal",
    "update_norm": "update norm",
    "effective_rank": "effective rank",
}


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="RUN|ADAPTER|RECIPE", help="A folder, or a recipe.", show_default=False)
    ],
    settings: SetOption = None,
    layers: Annotated[bool, typer.Option("--layers", help="One row per layer instead of one per kind.")] = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Only plot mixers and updates, to a .png or .svg file.", show_default=False
        ),
    ] = None,
) -> None:
    """Show coverage (which modules got the adapter, which patterns match nothing), parameters and mixers."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    if plot is not None:
        _draw(source, plot, base=base, others={"--set": bool(settings), "--json": as_json, "--layers": layers})
        return
    from moslora.runs.inspecting import inspect_source

    found = inspect_source(source, settings or [], base=base, report=remark)
    if as_json:
        print_json(found.to_dict())
        return
    results.print(f"{found.title}\n")
    results.print(
        f"parameters  {found.parameters['trainable']:,} trained of {found.parameters['total']:,}"
        f" ({found.parameters['mixer']:,} in mixers)"
    )
    results.print(
        f"coverage    {found.adapted} of {found.layers_able} layers that could carry it, {found.adapted_weights:,} of"
        f" {found.weights:,} weights ({found.adapted_weights / max(found.weights, 1):.0%}); not adapted: "
        f"{', '.join(found.not_adapted) or 'none'}"
    )
    if found.bare_not_adapted:
        results.print(f"left out    {', '.join(found.bare_not_adapted)}: bare parameters, which are no layers")
    for field, pattern in found.unmatched:
        results.print(f"NO MATCH    {field}: '{pattern}' names no module of the model")
    for note in found.notes:
        results.print(f"note        {note}")
    if found.parts:
        results.print()
        print_parts(results, found.parts)
        results.print()
    if not found.layers:
        return
    print_table(results, _table(found.layers if layers else found.kinds()))
    if not layers:
        remarks.print("one row per layer: add --layers", style="dim")


def _draw(source: str, plot: Path, *, base: str | None, others: dict[str, bool]) -> None:
    from moslora.reports.page import check_picture, write_adapter_pictures
    from moslora.runs.picturing import pictures_of

    for option in (option for option, is_given in others.items() if is_given):
        raise ConfigError(f"--plot only draws, {option} says what to print: leave one of them out")
    check_picture(plot)
    write_adapter_pictures(pictures_of(source, base=base), plot)
    results.print(str(plot))


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    has_parts = any("part" in row for row in rows)
    for heading in ("part", "module") if has_parts else ("module",):
        table.add_column(heading)
    for heading in ("layers", "rank", "parameters", *STATISTICS.values()):
        table.add_column(heading, justify="right")
    for row in rows:
        counts = (str(row["count"]), str(row["rank"]), f"{row['parameters']:,}")
        named = (row["part"], row["name"]) if has_parts else (row["name"],)
        table.add_row(*named, *counts, *(_number(row[key]) for key in STATISTICS))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
