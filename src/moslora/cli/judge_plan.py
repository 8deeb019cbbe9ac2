"""`moslora judge plan`: how many judges and pairs show which difference, before anyone is asked."""

from typing import TYPE_CHECKING, Annotated

import typer

from moslora.cli.options import JsonOption, print_json, print_table, remarks
from moslora.cli.options import results as output
from moslora.errors import ConfigError

if TYPE_CHECKING:
    from moslora.judging.planning import StudyPlan

EXAMPLES = (
    "moslora judge plan",
    "moslora judge plan --judges 15 --pairs 32,100",
    "# three methods, one question, and pairs that differ more",
    "moslora judge plan --methods 3 --questions 1 --pair-variance 0.4",
)


def plan(
    judges: Annotated[str, typer.Option(metavar="N,N", help="Numbers of judges.")] = "3,5,10,15,30",
    pairs: Annotated[str, typer.Option(metavar="N,N", help="Numbers of pairs of two methods.")] = "16,32,64,100",
    questions: Annotated[int, typer.Option(help="Questions asked of each pair.")] = 2,
    methods: Annotated[int, typer.Option(help="Methods, of which every two are compared.")] = 2,
    seconds: Annotated[float, typer.Option(help="What a judge needs for one question.")] = 8.0,
    ties: Annotated[float, typer.Option(help="Share of ties where there is no difference.")] = 0.5,
    pair_variance: Annotated[float, typer.Option(help="Share of the variance that pairs have.")] = 0.3,
    judge_variance: Annotated[float, typer.Option(help="Share of the variance that judges have.")] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Simulate which difference so many judges and pairs would show, and how long each judge needs."""
    from dataclasses import asdict

    from moslora.judging.planning import Assumptions, make_plan

    numbers = _numbers(judges, "--judges"), _numbers(pairs, "--pairs")
    assumptions = Assumptions(of_pairs=pair_variance, of_judges=judge_variance, ties=ties)
    with remarks.status("simulating studies (once; the result is kept)"):
        found = make_plan(*numbers, questions=questions, methods=methods, seconds=seconds, assumptions=assumptions)
    if as_json:
        print_json(asdict(found))
        return
    output.print("Smallest win - loss, in percentage points, that four studies in five would show")
    _print(found)
    for note in _notes(found):
        output.print(f"- {note}")


def _print(found: "StudyPlan") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("judges", justify="right")
    for number in found.pairs:
        table.add_column(f"{number} pairs", justify="right")
    for number, row in zip(found.judges, found.detectable, strict=True):
        table.add_row(str(number), *("–" if one is None else f"{100 * one:.0f}" for one in row))
    table.add_row("a judge takes", *(f"{minutes:.0f} min" for minutes in found.minutes), style="dim")
    print_table(output, table)


def _notes(found: "StudyPlan") -> list[str]:
    assumed = found.assumptions
    rest = 1 - assumed.of_pairs - assumed.of_judges
    looked_for = "one difference" if found.comparisons == 1 else f"{found.comparisons} differences"
    return [
        f"Assumed, not known: pairs have {100 * assumed.of_pairs:g} % of the variance of what is preferred, judges"
        f" {100 * assumed.of_judges:g} %, the rest {100 * rest:g} %; {100 * assumed.ties:g} % ties where methods are"
        " alike. Pairs that differ more need more pairs, not more judges.",
        f"For new judges and new pairs, with {looked_for} looked for (Holm). Several seeds of a prompt are less than as"
        " many prompts.",
        "Decide the numbers before judging begins, and close it when they are reached.",
    ]


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} '{text}' is not a list of numbers; write for example 5,15,30") from None
