"""The command line: `moslora COMMAND`.

A command is one line in `COMMANDS` and one file: `cli/NAME.py` holds the function NAME and its `EXAMPLES` (or a
`typer.Typer` NAME with commands of its own), and is imported only when it is asked for. Heavy libraries are imported
inside the function, so that every `--help` is quick.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from moslora import __version__
from moslora.cli.failures import reported, stoppable
from moslora.cli.options import examples
from moslora.cli.showing import Command, Group
from moslora.errors import unknown_name

# command: module, in the order of the help
COMMANDS = {
    "init": "init",
    "train": "train",
    "evaluate": "evaluate",
    "generate": "generate",
    "inspect": "inspect",
    "compare": "compare",
    "report": "report",
    "judge": "judge",
    "fold": "fold",
    "merge": "merge",
    "import": "import_checkpoint",
    "assemble": "assemble",
    "recipes": "recipes",
    "settings": "settings",
    "methods": "methods",
}

ARGUMENTS = "moslora.arguments"  # where a context keeps what the user typed


class CommandLine(Group):
    """All commands: imported on demand, their exceptions turned into one line and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command. Raises `ConfigError` for an unknown name, except while the shell completes one."""
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:
                return None
            raise unknown_name("command", cmd_name, COMMANDS, listed_by="moslora --help")
        module = import_module(f"moslora.cli.{COMMANDS[cmd_name]}")
        app = getattr(module, COMMANDS[cmd_name])
        if not isinstance(app, typer.Typer):
            function, app = app, typer.Typer(add_completion=False)
            app.command(cmd_name, cls=Command, epilog=examples(*module.EXAMPLES))(function)
        command = get_command(app)
        command.name = cmd_name
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the program's own options; `--debug` counts wherever it stands."""
        ctx.meta[ARGUMENTS] = list(args)
        with reported(ctx, arguments=args):
            return super().parse_args(ctx, sorted(args, key=lambda argument: argument != "--debug"))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with reported(ctx, arguments=ctx.meta[ARGUMENTS]), stoppable():
            return super().invoke(ctx)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moslora {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="moslora",
    cls=CommandLine,
    help="Fine-tune with MoSLoRA and its family, compare honestly, and ship the result as plain LoRA.",
    epilog=examples(
        "moslora train demo",
        "moslora recipes show demo > mine.yaml",
        "moslora train mine.yaml --set training.epochs=1",
        "moslora fold runs/demo",
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback; works with any command.")] = False,
) -> None:
    """The options of the program itself; `reported` looks for `--debug`."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="moslora")
