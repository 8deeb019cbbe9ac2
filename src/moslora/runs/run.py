"""One recipe from data to record: what `moslora train` does, and every run of a comparison.

Read from top to bottom: everything that can be refused is checked before weights are loaded or an old run is removed;
each part of the run leaves its numbers in `run.json` as soon as it has them.
"""

import json
import shutil
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from moslora.adapter.inspection import count_parameters
from moslora.adapter.methods import METHODS, method_config
from moslora.adapter.parts import ONLY, projector_choice
from moslora.adapter.pictures import mixers_of, picture_adapter
from moslora.adapter.preparing import check_quantisable, starting_tensors, trained_tensors
from moslora.adapter.storage import load_adapter
from moslora.core.folding import is_finite
from moslora.errors import ConfigError, DivergedError, command
from moslora.evaluation.scores import perplexity
from moslora.files import check_writable, write_atomically
from moslora.launch import is_first
from moslora.records import RESUMED, Parameters, RunRecord
from moslora.runs.abilities import check_abilities
from moslora.runs.active import ActiveRun, Reporter
from moslora.runs.adapters import adapted_on_meta, check_options, load_adapted, open_adapter, whole_options
from moslora.runs.arguments import check_checkpointing, check_optimizer, count_steps, training_arguments
from moslora.runs.covering import dead_notes, describe_coverage, part_records
from moslora.runs.environment import describe_machine, describe_versions, peak_memory_bytes
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.models import choose_dtype, load_model
from moslora.runs.ownership import owned
from moslora.runs.processes import follower_folder
from moslora.runs.recipe import parse_recipe
from moslora.runs.saving import learned_folder, save_learned
from moslora.runs.scoring import score
from moslora.runs.settings import changed_settings, told_changes
from moslora.runs.steps import RunPlan, as_loaded, gradient_check, prepared, trained
from moslora.training.validation import SampleLoss

BYTES_BESIDE_WEIGHTS = 2**26  # tokenizer, answers, metrics
FULL_DISK_BYTES = 2**20
BYTES_A_PARAMETER = 4 + 3 * 12  # the adapter, and three checkpoints of it with two moments each, in float32


def run_recipe(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Reporter = lambda _line: None,
    progress: bool = True,
) -> RunRecord:
    """Train and evaluate a recipe in `folder`; returns the record that also lies there as `run.json`.

    `report` is called with a line of text at each part of the run. With `resume` an interrupted run goes on to the
    weights it would have had; a finished one is returned as it is. Where several processes were launched, each calls
    this, and the first one writes and reports. Raises the errors of `moslora.errors`, all but those of the weights
    themselves before anything is loaded or removed (`InUseError` where another process that lives is at the run), and
    KeyboardInterrupt once a checkpoint is saved.
    """
    if is_first():
        place = RunFolder(Path(folder))
        return _run(recipe, place, resume=resume, overwrite=overwrite, report=report, progress=progress)
    with follower_folder(folder, resume=resume) as own:
        return _run(recipe, own, resume=resume, overwrite=False, report=lambda _line: None, progress=False)


def _run(
    recipe: Recipe, place: RunFolder, *, resume: bool, overwrite: bool, report: Reporter, progress: bool
) -> RunRecord:
    RunFolder.check(place.path, resume=resume, overwrite=overwrite, needed_bytes=BYTES_BESIDE_WEIGHTS)
    if resume and (former := _former_record(recipe, place)).status == "finished":
        report(f"{place.path} is finished; nothing to do")
        return former
    plan = plan_run(recipe, place)
    with nullcontext() if place.owner else owned(place.path):  # of several processes, the first holds it for all
        RunFolder.create(place.path, resume=resume, overwrite=overwrite, needed_bytes=plan.needed_bytes)
        record = _former_record(recipe, place) if resume else _new_record(recipe)  # as it is now that it is ours
        seen = record.coverage.parts if record.coverage else None  # by the processes before this one
        record.coverage = plan.coverage.model_copy(update={"parts": seen})
        record.notes = plan.material.notes() + plan.coverage_notes
        if resume:
            record.notes = [*record.notes, _resume_note(record)]
            record.resumptions = (record.resumptions or 0) + 1
        return _do(ActiveRun(recipe, place, record, report, progress), plan)


def _do(run: ActiveRun, plan: RunPlan) -> RunRecord:
    """Do a planned run in its folder; its record says how it ended."""
    record, place = run.record, run.place
    record.status = "running"
    run.save()
    for note in [*plan.material.warnings, *plan.coverage_notes]:
        run.report(note)
    write_atomically(place.recipe_path, run.recipe.to_yaml())
    _show_sample(run, plan.material.shown)
    started = time.perf_counter()
    try:
        _train_and_score(run, plan)
        record.status = "finished"
    except KeyboardInterrupt:
        record.status = "interrupted"
        raise
    except Exception:
        record.status = "failed"
        check_writable(place.path, needed_bytes=FULL_DISK_BYTES)  # else that is the reason, whatever the error said
        raise
    finally:
        run.add_seconds("all", time.perf_counter() - started)
        record.peak_memory_bytes = max(record.peak_memory_bytes or 0, peak_memory_bytes())
        run.save()
    return record


def _show_sample(run: ActiveRun, lines: Sequence[str]) -> None:
    """Keep what is learned of the first sample, and report it once, before the run trains for hours."""
    path = run.place.sample_path
    if not lines or path.is_file():
        return
    write_atomically(path, "\n".join(lines) + "\n")
    for line in lines:
        run.report(line)


def plan_run(recipe: Recipe, place: RunFolder) -> RunPlan:
    """Read and check all that a recipe names but the model's weights. Raises the errors of `moslora.errors`."""
    method, options, kind = recipe.adapter.method, recipe.adapter.options, kind_of(recipe.kind)
    check_options(method, options)
    check_quantisable(method, recipe.model.quantize)
    check_abilities(recipe.model, choose_dtype(recipe.model.dtype))
    arguments = training_arguments(recipe, place.checkpoints)
    sources = kind.read(recipe)
    processor = kind.load_processor(recipe.model)
    on_meta = adapted_on_meta(recipe.model, method, options)
    covered, coverage_notes = describe_coverage(on_meta)
    check_optimizer(recipe, arguments, on_meta)
    check_checkpointing(recipe, on_meta)
    material = kind.material(recipe, sources, processor, on_meta=on_meta)
    total_steps = count_steps(arguments, len(material.rows))
    whole = whole_options(recipe.model, method, options)
    is_projector_only = projector_choice(options) == ONLY
    if not is_projector_only:
        method_config(method, whole, total_steps=total_steps, task_type=kind.head.task_type)
    return RunPlan(
        processor=processor,
        material=material,
        arguments=arguments,
        options=whole,
        is_projector_only=is_projector_only,
        total_steps=total_steps,
        coverage=covered,
        coverage_notes=coverage_notes,
        needed_bytes=BYTES_BESIDE_WEIGHTS + BYTES_A_PARAMETER * count_parameters(on_meta)["trainable"],
    )


def _train_and_score(run: ActiveRun, plan: RunPlan) -> None:
    run.report(f"loading {run.recipe.model.path}")
    if {"model", "adapter", "projector"} & run.record.artifacts.keys():  # interrupted after training
        adapted, _ = load_adapted(open_adapter(run.place.path))
    else:
        model = load_model(run.recipe.model)
        kind_of(run.recipe.kind).check_model(run.recipe, model)
        score(run, model, plan.processor, plan.material.test_sets, when="before")
        adapted = _trained(run, plan, model)
    score(run, adapted, plan.processor, plan.material.test_sets, when="after")


def _trained(run: ActiveRun, plan: RunPlan, model: PreTrainedModel) -> nn.Module:
    """The model as its method trains it, saved."""
    method = run.recipe.adapter.method
    adapted = prepared(run.recipe, plan, model)
    start, mixers = starting_tensors(adapted, method), mixers_of(adapted)
    run.record.parameters = Parameters(**count_parameters(adapted))
    run.report(f"training {run.record.parameters.trainable:,} of {run.record.parameters.total:,} parameters")
    parts = kind_of(run.recipe.kind).parts(adapted)
    check = gradient_check(run.recipe, plan, parts)
    watchers = kind_of(run.recipe.kind).watchers(run.recipe, adapted, folder=run.place.path)
    result = trained(
        run.recipe,
        plan,
        adapted,
        place=run.place,
        validation=plan.material.validation,
        also=[*watchers, *([check] if check else [])],
        resume=run.place.checkpoints.is_dir(),
        progress=run.progress,
    )
    _note_parts(run, adapted, parts, dead=check.dead if check and check.is_over else None)
    run.record.steps, run.record.train_loss = result.steps, result.train_loss
    run.record.validation_loss = result.validation_loss
    if result.validation_loss is not None and kind_of(run.recipe.kind).loss_is_of_tokens:
        run.record.validation_perplexity = perplexity(result.validation_loss)
    _save_losses(run, result.validation_losses, plan.material.validation_groups)
    run.add_seconds("train", result.wall_seconds)
    if not result.is_complete:
        raise KeyboardInterrupt(f"stopped after step {result.steps}, which is saved")
    kept = _save_trained(run, plan, adapted, start=start)
    _save_pictures(run, kept, mixers)
    run.save()
    if result.was_stopped:
        asked = ", ".join(test_set.task.name for test_set in plan.material.test_sets)
        missing = f"; the evaluation ({asked}) is still missing" if asked else ""
        raise KeyboardInterrupt(f"stopped after training; the adapter is saved{missing}")
    return kept


def _note_parts(
    run: ActiveRun, model: nn.Module, parts: Mapping[str, str], *, dead: Mapping[str, Sequence[str]] | None
) -> None:
    """Write what is trained in each part; of a resumed run, what an earlier process saw of its gradients."""
    found, covered = part_records(model, parts, dead=dead), run.record.coverage
    if not found or covered is None:
        return
    if dead is None:
        seen = {part.part: part.dead for part in covered.parts or ()}
        found = [part.model_copy(update={"dead": seen.get(part.part)}) for part in found]
    run.record.coverage = covered.model_copy(update={"parts": found})
    run.record.notes += dead_notes(found)


def _save_losses(run: ActiveRun, losses: Sequence[SampleLoss], groups: Sequence[Hashable] | None) -> None:
    """Write the loss of each validation sample, from which a comparison tells how far two runs' losses differ."""
    names = [str(group) for group in groups] if groups else [None] * len(losses)
    lines = [one._asdict() | {"group": name} for one, name in zip(losses, names, strict=True)] if losses else []
    if lines:
        write_atomically(run.place.validation_path, "".join(json.dumps(line) + "\n" for line in lines))


def _save_trained(
    run: ActiveRun, plan: RunPlan, model: nn.Module, *, start: dict[str, torch.Tensor] | None
) -> nn.Module:
    """Save the adapter, the model of `full`, or a projector; returns the model, with an adapter that was converted."""
    if not all(is_finite(tensor) for tensor in trained_tensors(model).values()):
        raise DivergedError(
            f"training diverged (loss {run.record.train_loss}): the adapter holds numbers that are not finite; lower"
            " training.learning_rate, or choose a wider model.dtype or training.precision"
        )
    shutil.rmtree(learned_folder(run.recipe, plan, run.place), ignore_errors=True)
    place = save_learned(run.recipe, plan, model, run.place, start=start)
    run.record.artifacts[place.name] = place.name
    if METHODS[run.recipe.adapter.method].save_from_start is not None:
        return load_adapter(load_model(run.recipe.model), place)
    return as_loaded(run.recipe, model)


def _save_pictures(run: ActiveRun, model: nn.Module, start: dict[str, torch.Tensor]) -> None:
    """Write what the adapter looks like inside, where its update is a product of factors."""
    pictures = picture_adapter(model, method=run.recipe.adapter.method, start=start)
    if pictures.layers:
        pictures.save(run.place.pictures_path)


def _new_record(recipe: Recipe) -> RunRecord:
    return RunRecord(
        recipe=recipe.to_dict(), seed=recipe.seed, versions=describe_versions(), machine=describe_machine()
    )


def _former_record(recipe: Recipe, place: RunFolder) -> RunRecord:
    """The record of the run to resume. Raises ConfigError for other settings, and for weights taken on the way."""
    record = place.record()
    if record.planned_steps is not None:
        raise ConfigError(
            f"{place.path} holds the weights of step {record.steps} of {record.planned_steps} of the run"
            f" {place.path.parent}: resume that one"
        )
    changed = changed_settings(parse_recipe(record.recipe, source=str(place.record_path)).to_dict(), recipe.to_dict())
    if changed:
        own = command("train", place.recipe_path, "--output", place.path, "--resume")
        raise ConfigError(
            f"{place.path} was started with other settings ({told_changes(changed)}): resume it with its own:"
            f" `{own}`, or train into another folder"
        )
    return record


def _resume_note(record: RunRecord) -> str:
    now = describe_versions()
    changed = [f"{name} {was} to {now.get(name)}" for name, was in record.versions.items() if now.get(name) != was]
    versions = f"; versions changed: {', '.join(changed)}" if changed else ""
    return f"{RESUMED}{versions}"
