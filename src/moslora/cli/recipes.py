"""`moslora recipes`: the recipes that come with the package, and skeletons for one's own."""

from typing import Annotated

import typer

from moslora.cli.options import JsonOption, examples, print_json, remarks, results
from moslora.cli.showing import Command, Group

recipes = typer.Typer(
    cls=Group,
    add_completion=False,
    help="List the shipped recipes, or print one to edit.",
    no_args_is_help=True,
    epilog=examples("moslora recipes list", "moslora recipes show instruction > mine.yaml"),
)


@recipes.command("list", cls=Command, epilog=examples("moslora recipes list", "moslora recipes list --json"))
def list_(as_json: JsonOption = False) -> None:
    """List the shipped recipes."""
    from dataclasses import asdict

    from rich.table import Table

    from moslora.runs.recipe import list_recipes, list_skeletons

    shipped, skeletons = list_recipes(), list_skeletons()
    if as_json:
        print_json([asdict(recipe) for recipe in [*shipped, *skeletons]])
        return
    table = Table("name", "what it does", box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.columns[0].no_wrap = True
    for recipe in shipped:
        table.add_row(recipe.name, recipe.summary)
    table.add_row()
    table.add_row("for your own data", "every setting, explained", style="bold")
    for skeleton in skeletons:
        table.add_row(skeleton.name, skeleton.summary)
    results.print(table, soft_wrap=False)
    remarks.print("Print one to edit: moslora recipes show NAME > mine.yaml", style="dim")


@recipes.command(
    cls=Command,
    epilog=examples(
        "moslora recipes show demo",
        "# every setting for instructions of your own: instruction, chat, text or choice",
        "moslora recipes show instruction > mine.yaml",
        "moslora train mine.yaml --set data.train=mine.jsonl",
    ),
)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped recipe or skeleton.", show_default=False)],
) -> None:
    """Print a shipped recipe or skeleton: commented YAML that can be edited and trained."""
    from moslora.runs.recipe import recipe_text

    typer.echo(recipe_text(name), nl=False)
