"""`moslora methods`: what a recipe's `adapter.method` may be."""

from typing import Annotated, Any

import typer

from moslora.cli.options import JsonOption, SetOption, print_json, print_table, remarks, results

EXAMPLES = (
    "moslora methods",
    "# for your own model and rank",
    "moslora methods mine.yaml --set adapter.r=32",
    "moslora methods --json",
)


def methods(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")] = "demo",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods, with the parameters each trains on a recipe's model, counted without its weights."""
    from moslora.cli.quiet import quiet_libraries
    from moslora.runs.recipe import load_recipe

    chosen = load_recipe(recipe, settings or [])
    quiet_libraries()
    from moslora.runs.counting import count_methods

    counted = [count.to_dict() for count in count_methods(chosen)]
    if as_json:
        print_json(counted)
        return
    print_table(results, _table(counted))
    remarks.print(
        f"trained parameters for {chosen.model.path} (recipe {chosen.name}); their share of lora's", style="dim"
    )
    for left_out in dict.fromkeys(tuple(row["left_out"]) for row in counted if row["left_out"]):
        names = [row["name"] for row in counted if tuple(row["left_out"]) == left_out]
        remarks.print(f"not on {', '.join(left_out)}, which lora adapts: {', '.join(names)}", style="dim")
    for reason in dict.fromkeys(row["reason"] for row in counted if row["reason"]):
        remarks.print(f"not counted: {reason}", style="dim")


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("method", "parameters", "of lora"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    table.add_column("what it is")
    table.add_column("limits")
    for row in rows:
        trainable, relative = row["trainable"], row["relative"]
        shown = "not counted" if trainable is None else f"{trainable:,}"
        table.add_row(row["name"], shown, "" if relative is None else f"{relative:.2f}", row["summary"], row["limits"])
    return table
