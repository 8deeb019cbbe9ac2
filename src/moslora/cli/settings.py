"""`moslora settings`: what a recipe may say, explained."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moslora.cli.options import JsonOption, print_json, remarks, results

if TYPE_CHECKING:
    from moslora.runs.explaining import Explained

EXAMPLES = (
    "moslora settings",
    "# one setting, one group, or a name that several groups have",
    "moslora settings data.train",
    "moslora settings training",
    "moslora settings batch_size",
    "# the settings for models that see pictures",
    "moslora settings --kind vision_language",
)
OPTIONS = (
    "An adapter's other settings are its method's own: moslora methods lists the methods, docs/method.md the options."
)


def settings(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A setting or a group of settings.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Kind of run: language, vision_language or subject.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the settings of a recipe, or explain one: what it does, what is allowed, and the default."""
    from moslora.runs.explaining import explained, find
    from moslora.runs.recipe import recipe_class

    recipe = recipe_class(kind)
    found = explained(recipe) if name is None else find(recipe, name)
    if as_json:
        print_json([setting.to_dict() for setting in found])
        return
    if len(found) > 1:
        _print_list(found)
        if name is None:
            remarks.print(f"{OPTIONS}\nOne in full: moslora settings NAME", style="dim")
        elif name == "adapter":
            remarks.print(OPTIONS, style="dim")
        return
    _print_one(found[0])


def _print_one(setting: "Explained") -> None:
    results.print(setting.name, style="bold")
    results.print(setting.explanation, soft_wrap=False)
    results.print(f"allowed  {setting.allowed}", soft_wrap=False)
    results.print(f"default  {_default(setting) or 'not set'}")
    if setting.is_required:
        remarks.print(f"in a recipe, or: --set {setting.name}=VALUE", style="dim")


def _print_list(found: "list[Explained]") -> None:
    """A table: names within their groups, defaults, explanations as wide as the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=16)
    table.add_column("what it does")
    for setting in found:
        if setting.is_group:
            table.add_row()
            table.add_row(setting.name, "", setting.explanation, style="bold")
        else:
            indent = "  " if setting.group and any(one.is_group for one in found) else ""
            shown = setting.key if indent else setting.name
            table.add_row(indent + shown, _default(setting), setting.described)
    results.print(table, soft_wrap=False)


def _default(setting: "Explained") -> Any:
    from moslora.runs.commented import yaml_value

    return "required" if setting.is_required else yaml_value(setting.default)
