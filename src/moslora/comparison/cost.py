"""What each arm costs on this machine: seconds a step and peak memory, measured apart from the training runs."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from moslora.adapter.inspection import count_parameters
from moslora.comparison.matching import matched_arms
from moslora.comparison.matrix import Arm, final_run
from moslora.comparison.plan import Plan
from moslora.errors import MosloraError
from moslora.files import write_atomically
from moslora.records import Cost
from moslora.runs.counting import trainable_parameters
from moslora.runs.environment import peak_memory_bytes
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.models import load_model
from moslora.runs.recipe import parse_recipe
from moslora.runs.run import plan_run
from moslora.runs.steps import RunPlan, prepared, trained

COSTS_NAME = "costs.json"
ROUNDS, STEPS = 3, 3  # measured steps an arm: their product


@dataclass(frozen=True)
class Measured:
    """Some training steps of a recipe: each one's seconds, but the first's, and what else was seen."""

    seconds: list[float]
    peak_memory_bytes: int
    trainable: int
    setup_seconds: float = 0.0  # all that is not steps: to read, to load, to prepare, and what the first step adds

    def cost(self) -> Cost:
        """As a record."""
        return Cost(
            seconds_per_step=median(self.seconds),
            peak_memory_bytes=self.peak_memory_bytes,
            trainable=self.trainable,
            steps=len(self.seconds),
        )


def measure_costs(
    plan: Plan, folder: str | Path, *, rounds: int = ROUNDS, steps: int = STEPS, report: Callable[[str], None]
) -> dict[str, Cost]:
    """Measure every arm and write `costs.json`; on a machine that does nothing else.

    Rounds over all arms, so that a slow minute does not fall on one of them; each measurement in a fresh process,
    after a step to warm up. An arm that fails is told of and left out.
    """
    arms = matched_arms(plan)
    distinct = list({arm.tuned_as: arm for arm in arms}.values())
    found: dict[str, list[Measured]] = {}
    for number in range(1, rounds + 1):
        for arm in distinct:
            try:
                # A mistake shows here at once, and not in a process of its own.
                trainable_parameters(plan.recipe.model, arm.method, arm.options)
                measured = _in_fresh_process(measured_recipe(plan, arm, steps=steps))
            except (MosloraError, RuntimeError) as error:  # a broken pool: the process was killed
                reason = "its process was killed" if isinstance(error, BrokenProcessPool) else str(error)
                report(f"round {number} of {rounds}  {arm.tuned_as}: failed: {reason}")
                continue
            found.setdefault(arm.tuned_as, []).append(measured)
            report(
                f"round {number} of {rounds}  {arm.tuned_as}: {median(measured.seconds):.3g} s a step,"
                f" {measured.peak_memory_bytes / 1e9:.2f} GB"
            )
    costs = {arm.label: _together(found[arm.tuned_as]).cost() for arm in arms if arm.tuned_as in found}
    Path(folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps({label: cost.model_dump() for label, cost in costs.items()}, indent=2)
    write_atomically(Path(folder) / COSTS_NAME, text + "\n")
    return costs


def read_costs(folder: Path) -> dict[str, Cost]:
    """The costs measured in a comparison's folder, by arm; empty if none were."""
    path = folder / COSTS_NAME
    if not path.is_file():
        return {}
    return {label: Cost.model_validate(cost) for label, cost in json.loads(path.read_bytes()).items()}


def measured_recipe(plan: Plan, arm: Arm, *, steps: int) -> Recipe:
    """The arm's recipe, `shortened`."""
    run = final_run(plan, arm, seed=plan.tuning.seed, learning_rate=min(plan.rates_for(arm.name)))
    return shortened(run.recipe, steps=steps, source=f"plan {plan.name}, arm {arm.label}")


def shortened(recipe: Recipe, *, steps: int, source: str) -> Recipe:
    """A recipe cut to one step to warm up and `steps` more, without validation, checkpoints and scoring."""
    settings = recipe.to_dict()
    unwanted = dict.fromkeys(("evaluate_every_steps", "save_every_steps"))
    settings["training"] |= {**unwanted, "max_steps": steps + 1, "keep_best": False, "trackers": []}
    settings["data"] = recipe.data.validating(0).model_dump(mode="json")
    settings["evaluation"]["tasks"] = []
    return parse_recipe(settings, source=source)


def measure(recipe: Recipe, *, after: Callable[[nn.Module, RunPlan], None] = lambda _model, _planned: None) -> Measured:
    """Train a recipe's steps in this process and time them; `after` is called with the model and what was planned.

    Raises what `run_recipe` raises.
    """
    times, started = StepTimes(), time.perf_counter()
    with TemporaryDirectory() as scratch:
        place = RunFolder(Path(scratch))
        planned = plan_run(recipe, place)
        model = prepared(recipe, planned, load_model(recipe.model))
        trained(recipe, planned, model, place=place, also=[times])
    seconds = times.seconds()
    setup = time.perf_counter() - started - sum(seconds) - median(seconds)
    found = Measured(seconds, peak_memory_bytes(), count_parameters(model)["trainable"], max(0.0, setup))
    after(model, planned)
    return found


class StepTimes(TrainerCallback):
    """Notes when each optimiser step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time, once the accelerator is done."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """From each step's end to the next one's."""
        return [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]


def _in_fresh_process(recipe: Recipe) -> Measured:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure_quietly, recipe.to_dict()).result()


def _measure_quietly(settings: dict[str, Any]) -> Measured:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return measure(parse_recipe(settings, source="measured recipe"))


def _together(found: Sequence[Measured]) -> Measured:
    seconds = [second for one in found for second in one.seconds]
    return Measured(seconds, max(one.peak_memory_bytes for one in found), found[0].trainable)
