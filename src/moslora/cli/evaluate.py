"""`moslora evaluate`: score a trained adapter on tasks."""

from pathlib import Path
from typing import Annotated

import typer

from moslora.cli.options import AdapterArgument, BaseOption, JsonOption, print_json, remarks, results
from moslora.errors import ConfigError

EXAMPLES = (
    "moslora evaluate runs/demo",
    "moslora evaluate runs/demo --task ARC-Easy --data commonsense",
    "# the paper's protocol: generate, take the first match",
    "moslora evaluate runs/demo --scoring generation --limit 40",
    "# how often the two ways of scoring agree",
    "moslora evaluate runs/demo --limit 40 --agreement",
)


def evaluate(
    adapter: AdapterArgument,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="A task; may be repeated. Default: the recipe's.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="Where the test sets lie.")] = None,
    scoring: Annotated[
        str, typer.Option(help="log_probability, or generation (the paper's protocol).")
    ] = "log_probability",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions a task.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 16,
    agreement: Annotated[bool, typer.Option("--agreement", help="Score both ways and compare the answers.")] = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score an adapter on tasks, and keep the answer to every question."""
    if scoring not in ("log_probability", "generation"):
        raise ConfigError(f"--scoring {scoring} is not known (allowed: log_probability, generation)")
    from moslora.runs.adapters import open_adapter
    from moslora.runs.recipe import EvaluationSettings

    opened = open_adapter(adapter, base=base)
    recipe_tasks = opened.recipe.evaluation.tasks if opened.recipe else []
    recipe_data = opened.recipe.evaluation.data if opened.recipe else None
    tasks = list(task or recipe_tasks)
    if not tasks:
        raise ConfigError("no task given: add --task, for example --task everyday")
    settings = EvaluationSettings(
        tasks=tasks,
        data=str(data) if data else recipe_data,
        scoring=scoring,
        batch_size=batch_size,
        limit=limit,  # pyright: ignore[reportArgumentType]
    )

    from moslora.cli.quiet import quiet_libraries
    from moslora.cli.summary import evaluation_table, kind_table
    from moslora.runs.scoring import evaluate_adapter

    quiet_libraries()
    found = evaluate_adapter(
        opened, settings, with_agreement=agreement, report=lambda line: remarks.print(line, style="dim")
    )
    if as_json:
        print_json([evaluation.model_dump(mode="json") for evaluation in found])
        return
    results.print(evaluation_table(found), soft_wrap=False)
    kinds = kind_table(found)
    if kinds is not None:
        results.print(kinds, soft_wrap=False)
    remarks.print(f"answers: {opened.home / 'answers'}", style="dim")
