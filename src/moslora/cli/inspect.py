"""`moslora inspect`: what an adapter, or a recipe, covers."""

from typing import Annotated, Any

import typer

from moslora.cli.options import BaseOption, JsonOption, SetOption, print_json, remarks, results

EXAMPLES = (
    "moslora inspect runs/demo",
    "# before training: which modules a recipe would adapt",
    "moslora inspect demo --set adapter.target_modules=[q_proj]",
    "moslora inspect runs/demo --layers --json",
)


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="RUN|ADAPTER|RECIPE", help="A folder, or a recipe.", show_default=False)
    ],
    settings: SetOption = None,
    layers: Annotated[bool, typer.Option("--layers", help="One row a layer instead of one a kind.")] = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show coverage (which modules got the adapter, which patterns match nothing), parameters and mixers."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.inspecting import inspect_source

    found = inspect_source(source, settings or [], base=base)
    if as_json:
        print_json(found.to_dict())
        return
    results.print(f"{found.title}\n")
    results.print(
        f"parameters  {found.parameters['trainable']:,} trained of {found.parameters['total']:,}"
        f" ({found.parameters['mixer']:,} in mixers)"
    )
    results.print(
        f"coverage    {found.adapted} of {found.linear} layers that could carry it; not adapted: "
        f"{', '.join(found.not_adapted) or 'none'}"
    )
    for field, pattern in found.unmatched:
        results.print(f"NO MATCH    {field}: '{pattern}' names no module of the model")
    for note in found.notes:
        results.print(f"note        {note}")
    results.print(_table(found, by_layer=layers), soft_wrap=False)
    if not layers and found.layers:
        remarks.print("one row a layer: add --layers", style="dim")


def _table(found: Any, *, by_layer: bool) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in (
        "module",
        "layers",
        "rank",
        "parameters",
        "mixer condition",
        "from identity",
        "from orthogonal",
        "update norm",
        "effective rank",
    ):
        table.add_column(name, justify="left" if name == "module" else "right")
    for row in found.layers if by_layer else found.kinds():
        table.add_row(
            row["name"],
            str(row["count"]),
            str(row["rank"]),
            f"{row['parameters']:,}",
            *(
                _number(row[key])
                for key in (
                    "mixer_condition",
                    "mixer_from_identity",
                    "mixer_from_orthogonal",
                    "update_norm",
                    "effective_rank",
                )
            ),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
