"""From a plan to its runs: arms × learning rates while tuning, arms × seeds for the table, each a recipe and a folder.

An arm is a row of the table: a method with its options, at a rank, on a share of the training samples.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from moslora.adapter.methods import METHODS, known_options, method_config
from moslora.comparison.plan import Plan
from moslora.errors import ConfigError, unknown_name
from moslora.runs.groups import Recipe
from moslora.runs.recipe import parse_recipe

ALPHAS = ("lora_alpha", "alpha")  # what PEFT's methods call the number over the rank that scales an update
Kind = Literal["tuning", "final"]


@dataclass(frozen=True)
class Arm:
    """One row: `label` is unique, `name` the plan's word for it, `options` the adapter's options in full."""

    label: str
    name: str
    method: str
    options: dict[str, Any]
    rank: int | None
    fraction: float
    tuned_as: str  # the label whose learning rate it takes: its own, but for shares of the samples
    not_known: tuple[str, ...] = ()  # shared options that the method does not have

    @property
    def slug(self) -> str:
        """The label as part of a folder's name."""
        return _slug(self.label)


@dataclass(frozen=True)
class Run:
    """One run: where it lies (relative to the comparison's folder) and everything it does."""

    kind: Kind
    arm: Arm
    seed: int
    learning_rate: float
    folder: str
    recipe: Recipe

    @property
    def title(self) -> str:
        """What a person calls this run."""
        tried = f"rate {self.learning_rate:g}, tuning" if self.kind == "tuning" else f"seed {self.seed}"
        return f"{self.arm.tuned_as if self.kind == 'tuning' else self.arm.label}, {tried}"


class Final(NamedTuple):
    """A run that counts, before the learning rate of its arm is chosen."""

    arm: Arm
    seed: int

    @property
    def folder(self) -> str:
        """Where it will lie, relative to the comparison's folder."""
        return f"runs/{self.arm.slug}-seed{self.seed}"


def arms_of(plan: Plan) -> list[Arm]:
    """The rows of the table, in order. Raises ConfigError for a method, an option or a pair of labels that cannot be.

    With `match_parameters` ranks are still those of the plan: see `moslora.comparison.matching`.
    """
    arms: dict[str, Arm] = {}
    for fraction in plan.fractions:
        for rank in plan.ranks or [None]:
            for name in plan.arms:
                arm = _arm(plan, name, rank=rank, fraction=fraction)
                arms.setdefault(arm.label, arm)  # a method without a rank is met at every rank
    slugs: dict[str, str] = {}
    for arm in arms.values():
        if slugs.setdefault(arm.slug, arm.label) != arm.label:
            raise ConfigError(
                f"the arms '{slugs[arm.slug]}' and '{arm.label}' would share the folder '{arm.slug}': rename one"
            )
    return list(arms.values())


def baseline_of(plan: Plan, arm: Arm, arms: Sequence[Arm]) -> Arm:
    """The arm that this one is compared with: the plan's baseline at the same rank and share of the samples."""
    same = [other for other in arms if other.name == plan.baseline and other.fraction == arm.fraction]
    return next((other for other in same if other.rank == arm.rank), same[0])


def tuning_runs(plan: Plan, arms: Sequence[Arm]) -> list[Run]:
    """Every learning rate of every arm, once at all samples; none for a grid of one rate."""
    tuned = {arm.tuned_as: replace(arm, fraction=1.0) for arm in reversed(arms)}
    return [
        _tuning_run(plan, tuned[label], rate)
        for label in dict.fromkeys(arm.tuned_as for arm in arms)
        for rate in plan.rates_for(tuned[label].name)
        if len(plan.rates_for(tuned[label].name)) > 1
    ]


def final_run(plan: Plan, arm: Arm, *, seed: int, learning_rate: float) -> Run:
    """A run that counts: one arm, one seed, at the learning rate chosen for the arm."""
    folder = Final(arm, seed).folder
    recipe = _recipe(plan, arm, folder=folder, seed=seed, rate=learning_rate)
    return Run("final", arm, seed, learning_rate, folder, recipe)


def final_seeds(plan: Plan, arms: Sequence[Arm]) -> Iterator[Final]:
    """The runs that count, one seed of every arm after another, so that a part is a table already."""
    seeds = list(dict.fromkeys(seed for arm in arms for seed in plan.seeds_for(arm.name)))
    return (Final(arm, seed) for seed in seeds for arm in arms if seed in plan.seeds_for(arm.name))


def _arm(plan: Plan, name: str, *, rank: int | None, fraction: float) -> Arm:
    settings = plan.arms[name]
    if settings.method not in METHODS:
        raise ConfigError(f"plan {plan.name}: {unknown_name(f'method of arm {name}:', settings.method, METHODS)}")
    known = METHODS[settings.method].options
    shared = {option: value for option, value in plan.recipe.adapter.items() if value is not None}
    options = known_options(settings.method, shared) | settings.options
    if rank is not None and "r" in known:
        options = at_rank(options, rank)
    try:
        config = method_config(settings.method, options)
    except ConfigError as error:
        raise ConfigError(f"plan {plan.name}: arm {name}: {error}") from None
    has_rank = rank is not None and len(plan.ranks) > 1 and "r" in known
    tuned_as = f"{name} r={rank}" if has_rank else name
    return Arm(
        label=tuned_as + (f" {fraction * 100:g}%" if len(plan.fractions) > 1 else ""),
        name=name,
        method=settings.method,
        options=options,
        rank=options.get("r", getattr(config, "r", None)) if "r" in known else None,
        fraction=fraction,
        tuned_as=tuned_as,
        not_known=tuple(sorted(shared.keys() - known)),
    )


def at_rank(options: dict[str, Any], rank: int) -> dict[str, Any]:
    """The options at another rank; an alpha of twice the rank stays twice the rank, another stays as it is."""
    former = options.get("r")
    follows = [name for name in ALPHAS if former is not None and options.get(name) == 2 * former]
    return options | {"r": rank} | dict.fromkeys(follows, 2 * rank)


def _tuning_run(plan: Plan, arm: Arm, rate: float) -> Run:
    folder = f"tuning/{_slug(arm.tuned_as)}-lr{rate:g}".replace("+", "")
    tuning = plan.tuning
    recipe = _recipe(plan, arm, folder=folder, seed=tuning.seed, rate=rate).to_dict()
    training = recipe["training"]
    if training["max_steps"] is not None:
        training["max_steps"] = math.ceil(training["max_steps"] * tuning.steps_share)
    training["epochs"] *= tuning.steps_share
    recipe["data"]["validation_samples"] = tuning.validation_samples
    recipe["evaluation"] |= {"tasks": [], "before": False}
    return Run("tuning", arm, tuning.seed, rate, folder, parse_recipe(recipe, source=f"plan {plan.name}, {folder}"))


def _recipe(plan: Plan, arm: Arm, *, folder: str, seed: int, rate: float) -> Recipe:
    settings: dict[str, Any] = plan.to_dict()["recipe"]
    settings |= {"name": folder.rpartition("/")[2], "seed": seed, "adapter": {"method": arm.method, **arm.options}}
    settings["training"]["learning_rate"] = rate
    if arm.fraction < 1:
        settings["data"]["fraction"] = arm.fraction
    return parse_recipe(settings, source=f"plan {plan.name}, arm {arm.label}")


def _slug(label: str) -> str:
    words = label.replace("+", "-plus-").replace("%", "pct").replace("=", "")
    return re.sub(r"-+", "-", re.sub(r"[^A-Za-z0-9._]", "-", words)).strip("-")
