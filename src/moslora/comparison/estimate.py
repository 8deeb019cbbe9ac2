"""Before a comparison starts: its runs, and about how long and how much memory they take on this machine."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from rich.table import Table

from moslora.comparison.cost import Measured, measure, measured_recipe
from moslora.comparison.coverage import check_coverage
from moslora.comparison.matching import matched_arms
from moslora.comparison.matrix import Arm, final_run, final_seeds, tuning_runs
from moslora.comparison.memory import forget_peak_memory, release_memory
from moslora.comparison.plan import Plan
from moslora.comparison.rehearsal import Rehearsal
from moslora.comparison.timing import duration
from moslora.errors import MosloraError
from moslora.runs.arguments import count_steps
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.models import resolve_model
from moslora.runs.run import plan_run

STEPS = 2  # timed for an arm, after one to warm up
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class ArmEstimate:
    """An arm's runs; seconds and memory are None where nothing could be measured."""

    arm: str
    rank: int | None
    learning_rates: int  # tuning runs
    seeds: int  # runs that count, of each subject
    steps: int | None  # of a run that counts
    seconds_per_step: float | None = None
    peak_memory_bytes: int | None = None
    seconds: float | None = None  # of all its runs
    problem: str = ""
    subjects: int = 1

    @property
    def runs(self) -> int:
        """Those that count."""
        return self.seeds * self.subjects


@dataclass(frozen=True)
class PlanEstimate:
    """What a plan would do."""

    arms: list[ArmEstimate]
    tuning_runs: int
    final_runs: int
    problem: str = ""  # why there are no times

    @property
    def seconds(self) -> float | None:
        """About how long all of it takes; None if no arm could be measured."""
        known = [arm.seconds for arm in self.arms if arm.seconds is not None]
        return sum(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {**asdict(self), "seconds": self.seconds}

    def table(self) -> Table:
        """One line an arm."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("arm", "rank", "tuning runs", "runs", "steps", "s / step", "memory GB", "about"):
            table.add_column(name, justify="left" if name == "arm" else "right")
        for arm in self.arms:
            about = arm.problem or (duration(arm.seconds) if arm.seconds is not None else "-")
            memory = "-" if arm.peak_memory_bytes is None else f"{arm.peak_memory_bytes / 1e9:.1f}"
            step = "-" if arm.seconds_per_step is None else f"{arm.seconds_per_step:.2g}"
            counts = (arm.rank, arm.learning_rates, arm.runs, arm.steps)
            shown = ["-" if count is None else str(count) for count in counts]
            table.add_row(arm.arm, *shown, step, memory, about)
        return table

    def summary(self) -> str:
        """The whole in a line."""
        runs = f"{self.tuning_runs} runs to choose learning rates and {self.final_runs} that count"
        if self.seconds is None:
            return f"{runs}; no times: {self.problem or 'nothing could be measured'}"
        return f"{runs}: about {duration(self.seconds)} one after another, on this machine as busy as it is now"


def estimate(plan: Plan, *, report: Callable[[str], None] = lambda _line: None) -> PlanEstimate:
    """Count the runs, and time a few steps of every arm where the model's weights are on this machine.

    Writes nothing. Raises the errors of `moslora.errors` for a plan whose runs cannot be written down, and for one
    whose arms adapt different weights.
    """
    arms = matched_arms(plan)
    tuning, finals = tuning_runs(plan, arms), list(final_seeds(plan, arms))
    listed = [
        ArmEstimate(
            arm.label,
            arm.rank,
            sum(run.arm.tuned_as == arm.tuned_as for run in tuning) if _is_first(arm, arms) else 0,
            len(plan.seeds_for(arm.name)),
            plan.recipe.training.max_steps,
            subjects=len(plan.subject_names),
        )
        for arm in arms
    ]
    found = PlanEstimate(listed, len(tuning), len(finals))
    if not _has_weights(plan.recipe.model.path):
        return replace(found, problem=f"the weights of {plan.recipe.model.path} are not on this machine yet")
    check_coverage(plan)
    try:
        return replace(found, arms=_timed(plan, arms, listed, report=report))
    except MosloraError as error:
        return replace(found, problem=str(error))


def _timed(
    plan: Plan, arms: Sequence[Arm], listed: Sequence[ArmEstimate], *, report: Callable[[str], None]
) -> list[ArmEstimate]:
    sizes = {fraction: _sizes(plan, replace(arms[0], fraction=fraction)) for fraction in {*plan.fractions, 1.0}}
    measured: dict[str, tuple[Measured, Rehearsal] | str] = {}
    for arm in {arm.tuned_as: arm for arm in arms}.values():
        report(f"timing {arm.tuned_as}")
        forget_peak_memory()
        rehearsal = Rehearsal(_full_run(plan, arm))
        try:
            found = measure(measured_recipe(plan, arm, steps=STEPS), after=rehearsal.play)
            measured[arm.tuned_as] = found, rehearsal
        except (MosloraError, torch.OutOfMemoryError) as error:
            measured[arm.tuned_as] = " ".join(str(error).split())[:100]
        release_memory()
    return [
        _with_times(plan, one, measured[arm.tuned_as], sizes=sizes[arm.fraction], all_steps=sizes[1.0][0])
        for arm, one in zip(arms, listed, strict=True)
    ]


def _with_times(
    plan: Plan, arm: ArmEstimate, found: tuple[Measured, Rehearsal] | str, *, sizes: tuple[int, int], all_steps: int
) -> ArmEstimate:
    """An arm with its runs' times; `all_steps` are those of a run on all samples, as tuning does."""
    steps, validation_rows = sizes
    if isinstance(found, str):
        return replace(arm, steps=steps, problem=found)
    measured, rehearsal = found
    step, beside = median(measured.seconds), measured.setup_seconds + rehearsal.saving
    tuning_steps = math.ceil(all_steps * plan.tuning.steps_share)

    def validating(rows: int, steps: int) -> float:
        every = plan.recipe.training.evaluate_every_steps
        return rehearsal.validating_a_sample * rows * (1 + (steps // every if every else 0))

    tuning_rows = plan.tuning.validation_samples * plan.recipe.data.rows_a_validation_sample
    final = beside + steps * step + validating(validation_rows, steps) + rehearsal.scoring
    tuning = beside + tuning_steps * step + validating(tuning_rows, tuning_steps)
    return replace(
        arm,
        steps=steps,
        seconds_per_step=step,
        peak_memory_bytes=max(measured.peak_memory_bytes, rehearsal.peak_memory_bytes),
        seconds=arm.runs * final + arm.learning_rates * tuning,
    )


def _sizes(plan: Plan, arm: Arm) -> tuple[int, int]:
    """The optimiser steps of a run of an arm that counts, and the rows it validates on."""
    with TemporaryDirectory() as scratch:
        planned = plan_run(_full_run(plan, arm), RunFolder(Path(scratch)))
    return count_steps(planned.arguments, len(planned.material.rows)), len(planned.material.validation)


def _full_run(plan: Plan, arm: Arm) -> Recipe:
    """The recipe of a run that counts; of several subjects, the first one's stands for all."""
    return final_run(plan, arm, seed=plan.tuning.seed, learning_rate=plan.rates_for(arm.name)[0]).recipe


def _is_first(arm: Arm, arms: Sequence[Arm]) -> bool:
    """Whether the arm stands for its learning rate's tuning among arms on several shares of the samples."""
    return next(other for other in arms if other.tuned_as == arm.tuned_as) is arm


def _has_weights(path: str) -> bool:
    """Whether a model can be loaded without fetching it."""
    try:
        resolved = resolve_model(path)
    except MosloraError:
        return False
    if Path(resolved).is_dir():
        return True
    return any(isinstance(try_to_load_from_cache(resolved, name), str) for name in WEIGHTS)
