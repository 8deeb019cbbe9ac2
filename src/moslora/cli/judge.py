"""`moslora judge`: blind pairwise judging, from the plan to the results."""

import typer

from moslora.cli import judge_serve
from moslora.cli.options import examples

judge = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    epilog=examples(
        "moslora judge serve runs/a/drawn runs/b/drawn --photos photos --judges 15",
    ),
)
judge.command("serve", epilog=examples(*judge_serve.EXAMPLES))(judge_serve.serve)


@judge.callback()
def program() -> None:
    """Let people compare the answers of methods, blind: serve the pages, and say what the answers show."""
