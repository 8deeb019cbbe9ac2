"""`moslora evaluate`: score a trained adapter, or a model, on tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moslora.cli.options import (
    BaseOption,
    JsonOption,
    ModelArgument,
    PromptOption,
    print_json,
    remark,
    remarks,
    results,
)
from moslora.errors import ConfigError

if TYPE_CHECKING:
    from moslora.records import EvaluationRecord, LossRecord
    from moslora.runs.adapters import Opened
    from moslora.runs.folder import RunFolder
    from moslora.runs.groups import ScoringSettings

EXAMPLES = (
    "moslora evaluate runs/demo",
    "moslora evaluate runs/demo --task ARC-Easy --data commonsense",
    "# the base model, asked as the run is",
    "moslora evaluate smollm2 --task everyday --prompt-style alpaca",
    "# the paper's protocol: generate, take the first match",
    "moslora evaluate runs/demo --scoring generation --limit 40",
    "# answers for VLMEvalKit, whose judge scores them",
    "moslora evaluate runs/vision-demo --task mm-vet --data sets --predictions out",
    "# how often the two ways of scoring agree",
    "moslora evaluate runs/demo --limit 40 --agreement",
)


def evaluate(
    adapter: ModelArgument,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="A task; may be repeated. Default: the recipe's.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="Folder of the test sets.")] = None,
    scoring: Annotated[
        str | None, typer.Option(help="log_probability, or generation (the paper's). Default: the recipe's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many questions per task.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Questions per batch. Default: the recipe's, else 16.")
    ] = None,
    agreement: Annotated[bool, typer.Option("--agreement", help="Score both ways and compare the answers.")] = False,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers", metavar="FOLDER", help="Where to save the answers. Default: in the run, else nowhere."
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FOLDER",
            help="Score nothing: write the answers about pictures for VLMEvalKit, or MMBench's server.",
        ),
    ] = None,
    base: BaseOption = None,
    prompt_style: PromptOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score an adapter, a merged model or a base model on tasks, and keep the answer to every question."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.launch import is_first
    from moslora.runs.adapters import require_language_model
    from moslora.runs.kinds import kind_of
    from moslora.runs.scoring import evaluate_adapter
    from moslora.runs.unfinished import open_reached

    opened = open_reached(adapter, base=base, prompt=prompt_style, or_base=True, report=remark)
    if not kind_of(opened.model.kind).draws:
        require_language_model(opened, "evaluate")
    chosen = {"tasks": task, "data": data and str(data), "scoring": scoring, "limit": limit, "batch_size": batch_size}
    settings = _settings(opened, {name: value for name, value in chosen.items() if value}, with_agreement=agreement)
    if predictions is not None:
        _predict(opened, settings, predictions, as_json=as_json)
        return
    found = evaluate_adapter(
        opened,
        settings,
        with_agreement=agreement,
        answers_folder=answers,
        report=remark,
    )
    if is_first():
        _print(found, opened.run, answers, as_json=as_json)


def _settings(opened: "Opened", chosen: dict[str, Any], *, with_agreement: bool) -> "ScoringSettings":
    """The recipe's settings, if there is one, with those chosen; its limit is not taken over."""
    from moslora.runs.kinds import kind_of
    from moslora.runs.recipe import scoring_settings
    from moslora.runs.validation import validated

    own = opened.recipe.evaluation.model_dump(exclude={"limit"}) if opened.recipe else {}
    settings = validated(scoring_settings(opened.model.kind), own | chosen, source="evaluate")
    if not settings.tasks:
        example = kind_of(opened.model.kind).example_task
        raise ConfigError(f"no task given: add --task, for example --task {example}")
    if with_agreement and len(settings.ways) < 2:
        raise ConfigError(f"--agreement compares ways of scoring, and there is {settings.scoring} alone: leave it out")
    return settings


def _predict(opened: "Opened", settings: "ScoringSettings", folder: Path, *, as_json: bool) -> None:
    """Write what the model answers, for another program to score."""
    from moslora.launch import is_first
    from moslora.runs.predicting import predict

    written = predict(opened, settings, folder, report=remark)
    if not is_first():
        return
    if as_json:
        print_json({"predictions": [str(path) for path in written]})
        return
    results.print(*(f"predictions: {path}" for path in written), sep="\n")


def _print(
    found: "Sequence[EvaluationRecord | LossRecord]", run: "RunFolder | None", answers: Path | None, *, as_json: bool
) -> None:
    """Print the numbers, and where the answers are."""
    from moslora.cli.losses import print_losses
    from moslora.cli.summary import print_evaluations
    from moslora.records import EvaluationRecord, LossRecord

    if as_json:
        print_json([evaluation.model_dump(mode="json") for evaluation in found])
        return
    evaluations = [one for one in found if isinstance(one, EvaluationRecord)]
    print_evaluations(results, evaluations, beside=_controls(run, evaluations))
    print_losses(results, [one for one in found if isinstance(one, LossRecord)])
    kept = answers or (run.answers if run else None)
    remarks.print(f"answers: {kept or 'not kept; name a folder for them with --answers'}", style="dim")


def _controls(run: "RunFolder | None", found: "Sequence[EvaluationRecord]") -> "list[EvaluationRecord]":
    """What the run's own evaluation got with something taken away, of as many questions."""
    from moslora.cli.kinds import SHORT, is_read_by_rule

    asked = [(one.task, one.total, one.file) for one in found]
    kept = run.record().evaluations if run else []
    return [
        one for one in kept if one.when in SHORT and (one.task, one.total, one.file) in asked and is_read_by_rule(one)
    ]
