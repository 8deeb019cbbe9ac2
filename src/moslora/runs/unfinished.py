"""What a run that stopped before its end had learned: a folder `step-N` in the run's own, laid out as a run's.

The run itself stays as it is, to be resumed. Its weights of then are made as the run would have saved them, so that
everything that opens a run opens them; their record, model card and `moslora.json` say at which step they are.
"""

from pathlib import Path
from typing import Any, NamedTuple

from moslora.adapter.preparing import starting_tensors, trained_tensors
from moslora.core.folding import is_finite
from moslora.errors import ConfigError, DivergedError, command
from moslora.files import new_folder
from moslora.launch import are_several, is_first
from moslora.records import RunRecord
from moslora.runs.active import Reporter
from moslora.runs.adapters import Opened, open_adapter
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.models import load_model
from moslora.runs.origin import Reached
from moslora.runs.ownership import owned
from moslora.runs.recipe import parse_recipe
from moslora.runs.run import plan_run
from moslora.runs.saving import save_learned
from moslora.runs.steps import prepared
from moslora.training.averaging import Average
from moslora.training.checkpoints import complete_checkpoints, load_weights, read_state

WEIGHTS = frozenset({"adapter", "model", "projector"})  # artifacts of a run that was trained to its end


class Checkpoint(NamedTuple):
    """A complete checkpoint, how far the run was there, and whether its weights are the best of the run until then."""

    path: Path
    reached: Reached
    is_best: bool


def open_reached(source: str | Path, *, report: Reporter = lambda _line: None, **given: Any) -> Opened:
    """As `open_adapter`; of a run that stopped before its weights were saved, those of its newest good checkpoint.

    `report` is told so in a line. Raises DivergedError where no checkpoint is of use, ConfigError where several
    processes were launched together, InUseError while a process is at the run, and what planning the run raises.
    """
    run = RunFolder(Path(source))
    record = run.record() if run.record_path.is_file() else None
    if record is None or record.status == "finished" or WEIGHTS & record.artifacts.keys():
        return open_adapter(source, **given)
    recipe = parse_recipe(record.recipe, source=str(run.record_path))
    found = _checkpoints(run, recipe)
    if not found:
        return open_adapter(source, **given)  # which says how to finish the run
    chosen = found[0] if _place(run, found[0]).path.is_dir() else _taken(run, recipe, found)
    if is_first():
        report(_said(run, chosen, last=max(one.reached for one in found)))
    return open_adapter(_place(run, chosen).path, **given)


def _checkpoints(run: RunFolder, recipe: Recipe) -> list[Checkpoint]:
    """Those of use, first the one to take: the best where the recipe keeps the best, else the newest."""
    paths = complete_checkpoints(run.checkpoints)
    states = [read_state(path) for path in paths]
    best = states[-1].best_global_step if states and recipe.training.keep_best else None
    found = [
        Checkpoint(path, Reached(state.global_step, state.max_steps), is_best=state.global_step == best)
        for path, state in zip(paths, states, strict=True)
    ]
    return sorted(found, key=lambda one: (one.is_best, one.reached), reverse=True)


def _place(run: RunFolder, checkpoint: Checkpoint) -> RunFolder:
    return RunFolder(run.path / f"step-{checkpoint.reached.step}")


def _taken(run: RunFolder, recipe: Recipe, found: list[Checkpoint]) -> Checkpoint:
    """The first checkpoint with finite numbers, whose weights are now in its place."""
    if are_several():
        raise ConfigError(
            f"the run {run.path} stopped early, and several processes cannot take its weights out of a checkpoint: do"
            f" so in one, `{command('inspect', run.path)}`, then start this again"
        )
    with owned(run.path):
        plan = plan_run(recipe, run)
        model = prepared(recipe, plan, load_model(recipe.model))
        start, decay = starting_tensors(model, recipe.adapter.method), recipe.training.average_decay
        average = Average(model, decay=decay) if decay is not None else None
        for one in found:
            if _place(run, one).path.is_dir():
                return one
            load_weights(model, one.path, average=average)
            if all(is_finite(tensor) for tensor in trained_tensors(model).values()):
                with new_folder(_place(run, one).path) as staged:
                    place = RunFolder(staged)
                    saved = save_learned(recipe, plan, model, place, start=start, reached=one.reached)
                    _write_record(run.record(), place, weights=saved.name, reached=one.reached)
                return one
    raise DivergedError(
        f"the run {run.path} diverged, every checkpoint holds numbers that are not finite: train it into another folder"
        " with a lower training.learning_rate"
    )


def _write_record(record: RunRecord, place: RunFolder, *, weights: str, reached: Reached) -> None:
    """The run's record as far as it is true of the weights taken: without losses, scores and times."""
    kept = {"recipe", "seed", "versions", "machine", "parameters", "coverage", "created", "moslora_version"}
    taken = RunRecord(
        **record.model_dump(include=kept),
        status="interrupted",
        steps=reached.step,
        planned_steps=reached.steps,
        artifacts={weights: weights},
        notes=[*record.notes, f"the weights of step {reached.step} of {reached.steps} of a run that had stopped"],
    )
    taken.save(place.record_path)


def _said(run: RunFolder, chosen: Checkpoint, *, last: Reached) -> str:
    taken = "its best weights" if chosen.is_best else "its newest weights that are finite"
    what = "what it had learned by then" if chosen.reached == last else f"{taken}, those of step {chosen.reached.step}"
    onward = command("train", run.recipe_path, "--output", run.path, "--resume")
    return (
        f"this run stopped at step {last.step} of {last.steps}: using {what}, in {_place(run, chosen).path};"
        f" to finish it: {onward}"
    )
