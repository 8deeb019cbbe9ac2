"""`moslora judge`: blind pairwise judging, from the plan to the results."""

import typer

from moslora.cli import judge_plan, judge_results, judge_serve
from moslora.cli.options import examples
from moslora.cli.showing import Command, Group

judge = typer.Typer(
    cls=Group,
    add_completion=False,
    no_args_is_help=True,
    epilog=examples(
        "moslora judge plan",
        "moslora judge serve runs/a/drawn runs/b/drawn --photos photos --judges 15",
        "moslora judge results study",
    ),
)
judge.command("plan", cls=Command, epilog=examples(*judge_plan.EXAMPLES))(judge_plan.plan)
judge.command("serve", cls=Command, epilog=examples(*judge_serve.EXAMPLES))(judge_serve.serve)
judge.command("results", cls=Command, epilog=examples(*judge_results.EXAMPLES))(judge_results.results)


@judge.callback()
def program() -> None:
    """Let people compare methods' answers blind: serve the pages, then report what the answers show."""
