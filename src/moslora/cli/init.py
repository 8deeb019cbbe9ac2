"""`moslora init`: a recipe for files of one's own."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moslora.cli.options import JsonOption, SetOption, print_json, results
from moslora.errors import ConfigError, OutputError, command
from moslora.runs.model_names import DEMO_MODEL

if TYPE_CHECKING:
    from moslora.starting.proposing import Proposal

EXAMPLES = (
    "moslora init mine.jsonl",
    "# several files, another model, questions to judge it by",
    "moslora init a.csv b.csv --model Qwen/Qwen3-0.6B --task questions.csv",
    "# columns whose names say nothing",
    "moslora init pairs.tsv --set 'data.columns={instruction: en, output: fr}'",
)
NAMES_WIDTH = 10


def init(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files, folders or hub sets to train on.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option("--model", help=f"Hub id or folder. Default: {DEMO_MODEL}, the demo's.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="FILE", help="Questions to evaluate on; may be repeated.", show_default=False),
    ] = None,
    settings: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RECIPE", help="Where to write. Default: named after the file."),
    ] = None,
    time_steps: Annotated[
        bool, typer.Option("--measure", help="Train three steps, to tell how long all take and the memory they need.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: accept every default.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at your data and write a commented recipe that is ready to train."""
    from moslora.cli.quiet import quiet_libraries
    from moslora.runs.settings import override

    _check_are_files(files)
    told: dict[str, Any] = {}
    for assignment in settings or []:
        override(told, assignment, source="--set")
    if output is not None:
        _check_is_new(output)
    quiet_libraries()
    from moslora.starting.machine import this_machine
    from moslora.starting.proposing import measured, propose
    from moslora.starting.sources import look_at

    ask = _default if yes or as_json or not (sys.stdin.isatty() and sys.stderr.isatty()) else _asked
    sources = look_at(files, ask=ask, told=_group(told, "data"))
    place = output or Path(f"{_plain_name(sources.name)}.yaml")
    _check_is_new(place)
    told_path = _group(told, "model").pop("path", None)
    path = model or told_path or ask("which model: a hub id, a folder, or", [DEMO_MODEL])
    proposal = propose(
        sources, name=_plain_name(place.stem), path=path, machine=this_machine(), tasks=tasks or [], told=told
    )
    _write(place, proposal.text)
    cost = measured(proposal) if time_steps else ""
    if as_json:
        shown = {
            "path": str(place),
            "measured": cost,
            "seen": proposal.seen,
            "steps": proposal.steps,
            "recipe": proposal.recipe.to_dict(),
        }
        print_json(shown)
        return
    _print(proposal, cost)
    results.print(f"\nwritten   {place}\nnext      {command('train', place)}")


def _check_are_files(given: Sequence[str]) -> None:
    for name in given:
        if re.match(r"\w+(\.\w+)*=", name) and not Path(name).exists():
            raise ConfigError(f"{name} is a setting and no file: write --set {shlex.quote(name)}")


def _group(told: dict[str, Any], name: str) -> dict[str, Any]:
    group = told.get(name) or {}
    if not isinstance(group, dict):
        raise ConfigError(
            f"--set {name}={group}: {name} is a group of settings; set one of them, --set {name}.NAME=VALUE"
        )
    return group


def _plain_name(stem: str) -> str:
    """A file's stem as the name of a recipe and of a run's folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "mine"


def _check_is_new(place: Path) -> None:
    if place.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output {place} is no recipe's name: end it in .yaml")
    if place.exists():
        raise OutputError(f"{place} is there already and is not overwritten: give another name, --output NAME.yaml")


def _write(place: Path, text: str) -> None:
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(
            f"cannot write {place}: {error.strerror or error}; give another place with --output"
        ) from error


def _default(_question: str, answers: Sequence[str]) -> str:
    return answers[0]


def _asked(question: str, answers: Sequence[str]) -> str:
    """What is typed in answer; one of several answers is asked for again until it is one."""
    is_choice = len(answers) > 1
    shown = f"{question} ({', '.join(answers)})" if is_choice else question
    while True:
        given = typer.prompt(shown, default=answers[0], err=True)
        if not is_choice or given in answers:
            return str(given)


def _print(proposal: "Proposal", cost: str) -> None:
    """What was seen and chosen, and samples as the model reads them."""
    from moslora.data.showing import LEARNED_MARKS

    for name, text in proposal.seen.items():
        _entry(name, text)
    for number, line in enumerate(proposal.chosen):
        _entry("" if number else "chosen", line)
    if cost:
        _entry("measured", cost)
    for number, lines in enumerate(proposal.samples, start=1):
        marks = f"; what is learned stands between {' and '.join(LEARNED_MARKS)}" if number == 1 else ""
        results.print(f"\nsample {number}{marks}")
        for line in lines:
            results.print(f"  {line}")


def _entry(name: str, text: str) -> None:
    """A name, and a text that goes on below itself."""
    for line in wrap(text, max(results.width - NAMES_WIDTH, 20)):
        results.print(f"{name:<{NAMES_WIDTH}}{line}")
        name = ""
