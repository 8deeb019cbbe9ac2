"""How a command's help shows its arguments and options: switches as switches, and what a value is in a word."""

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

WORDS = {"int": "N", "float": "X", "path": "PATH", "str": "TEXT"}  # of what the library would write


class Command(TyperCommand):
    """A command whose help shows no type beside a switch or an argument, and a plain word beside other options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The arguments and options, `--help` included, as they are shown."""
        return _shown(super().get_params(ctx), ctx)


class Group(TyperGroup):
    """A group of commands whose own options are shown in the same way."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, `--help` included, as they are shown."""
        return _shown(super().get_params(ctx), ctx)


def _shown(params: list[Any], ctx: Any) -> list[Any]:
    for param in params:
        if isinstance(param, TyperArgument):
            vars(param)["display_type_rich"] = _nothing
        elif getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.metavar is None:
            kind = param.display_type(ctx).lower()
            param.metavar = next((word for name, word in WORDS.items() if name in kind), kind)
    return params


def _nothing(ctx: Any) -> None:
    """What stands beside an argument, which its name explains."""
