"""From a plan to its runs: arms × learning rates while tuning, arms × seeds for the table, each a recipe and a folder.

An arm is a row of the table: a method with its options, at a rank, on a share of the training samples.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from moslora.adapter.methods import METHODS
from moslora.adapter.parts import options_for
from moslora.comparison.plan import Plan
from moslora.comparison.ranks import at_rank, rank_of
from moslora.comparison.subjects import place_of, seed_of
from moslora.errors import ConfigError, unknown_name
from moslora.runs.adapters import check_options
from moslora.runs.groups import AdapterSettings, Recipe
from moslora.runs.recipe import parse_recipe

Kind = Literal["tuning", "final"]


@dataclass(frozen=True)
class Arm:
    """One row: `label` is unique, `name` the plan's word for it, `options` the adapter's options in full."""

    label: str
    name: str
    method: str
    options: dict[str, Any]
    rank: int | None  # of the language model, where a model's parts have their own
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
    subject: str | None = None  # of a run that counts; tuning runs are of the first

    @property
    def seed_name(self) -> str:
        """The seed, and of which subject."""
        return seed_of(self.seed, self.subject)

    @property
    def title(self) -> str:
        """What a person calls this run."""
        if self.kind == "tuning":
            return f"{self.arm.tuned_as}, rate {self.learning_rate:g}, tuning"
        return Final(self.arm, self.seed, self.subject).title


class Final(NamedTuple):
    """A run that counts, before the learning rate of its arm is chosen."""

    arm: Arm
    seed: int
    subject: str | None = None

    @property
    def title(self) -> str:
        """What a person calls this run."""
        return f"{self.arm.label}, seed {seed_of(self.seed, self.subject)}"

    @property
    def folder(self) -> str:
        """Where it will lie, relative to the comparison's folder."""
        return place_of(f"runs/{self.arm.slug}-seed{self.seed}", self.subject)


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
    """Every learning rate of every arm, once at all samples of the first subject; none for a grid of one rate."""
    tuned = {arm.tuned_as: replace(arm, fraction=1.0) for arm in reversed(arms)}
    return [
        _tuning_run(plan, tuned[label], rate)
        for label in dict.fromkeys(arm.tuned_as for arm in arms)
        for rate in plan.rates_for(tuned[label].name)
        if len(plan.rates_for(tuned[label].name)) > 1
    ]


def final_run(plan: Plan, arm: Arm, *, seed: int, learning_rate: float, subject: str | None = None) -> Run:
    """A run that counts: one arm, one seed, at the learning rate chosen for the arm; none given: the first subject."""
    subject = subject or plan.subject_names[0]
    folder = Final(arm, seed, subject).folder
    recipe = _recipe(plan, arm, folder=folder, seed=seed, rate=learning_rate, subject=subject)
    return Run("final", arm, seed, learning_rate, folder, recipe, subject)


def final_seeds(plan: Plan, arms: Sequence[Arm]) -> Iterator[Final]:
    """The runs that count, one seed of every arm after another, so that a part is a table already."""
    seeds = list(dict.fromkeys(seed for arm in arms for seed in plan.seeds_for(arm.name)))
    return (
        Final(arm, seed, subject)
        for seed in seeds
        for subject in plan.subject_names
        for arm in arms
        if seed in plan.seeds_for(arm.name)
    )


def _arm(plan: Plan, name: str, *, rank: int | None, fraction: float) -> Arm:
    settings = plan.arms[name]
    if settings.method not in METHODS:
        unknown = unknown_name(f"method of arm {name}:", settings.method, METHODS, listed_by="moslora methods")
        raise ConfigError(f"plan {plan.name}: {unknown}")
    options, not_known = _options(plan, settings)
    has_rank = "r" in METHODS[settings.method].options
    if rank is not None and has_rank:
        options = at_rank(options, rank)
    try:
        check_options(settings.method, options)
    except ConfigError as error:
        raise ConfigError(f"plan {plan.name}: arm {name}: {error}") from None
    tuned_as = f"{name} r={rank}" if has_rank and len(plan.ranks) > 1 else name
    return Arm(
        label=tuned_as + (f" {fraction * 100:g}%" if len(plan.fractions) > 1 else ""),
        name=name,
        method=settings.method,
        options=options,
        rank=rank_of(settings.method, options),
        fraction=fraction,
        tuned_as=tuned_as,
        not_known=not_known,
    )


def _options(plan: Plan, settings: AdapterSettings) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The shared options that the arm's method has, its own over them, and the names of those it does not have.

    A part's own options lie over the shared ones of that part; null takes an option, or a part, back.
    """
    shared = _without_null(plan.recipe.adapter)
    kept, own = options_for(settings.method, shared), settings.model_extra or {}
    options = {**kept, **own}
    if isinstance(own.get("parts"), Mapping):
        options["parts"] = _laid_over(_group(kept.get("parts")), own["parts"])
    return _without_null(options), tuple(sorted(_names(shared) - _names(kept)))


def _laid_over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The options of each part; what should be a mapping and is not is refused later, by its name."""
    changed = {
        part: _without_null({**_group(shared.get(part)), **options}) if isinstance(options, Mapping) else options
        for part, options in own.items()
    }
    return _without_null({**shared, **changed})


def _without_null(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _group(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(options: Mapping[str, Any]) -> set[str]:
    """The names of options, those of parts as `parts.vision.mixer`."""
    parts = _group(options.get("parts")).items()
    return {*options, *(f"parts.{part}.{option}" for part, own in parts for option in _group(own))}


def _tuning_run(plan: Plan, arm: Arm, rate: float) -> Run:
    folder = f"tuning/{_slug(arm.tuned_as)}-lr{rate:g}".replace("+", "")
    tuning = plan.tuning
    first = plan.subject_names[0]
    compared = _recipe(plan, arm, folder=folder, seed=tuning.seed, rate=rate, subject=first)
    recipe = compared.to_dict()
    training = recipe["training"]
    if training["max_steps"] is not None:
        training["max_steps"] = math.ceil(training["max_steps"] * tuning.steps_share)
    training["epochs"] *= tuning.steps_share
    recipe["data"] = compared.data.validating(tuning.validation_samples).model_dump(mode="json")
    recipe["evaluation"] |= {"tasks": [], "before": False}
    return Run("tuning", arm, tuning.seed, rate, folder, parse_recipe(recipe, source=f"plan {plan.name}, {folder}"))


def _recipe(plan: Plan, arm: Arm, *, folder: str, seed: int, rate: float, subject: str | None) -> Recipe:
    settings: dict[str, Any] = plan.recipe_of(subject)
    name = folder.partition("/")[2].replace("/", "-")
    settings |= {"name": name, "seed": seed, "adapter": {"method": arm.method, **arm.options}}
    settings["training"]["learning_rate"] = rate
    if arm.fraction < 1:
        settings["data"]["fraction"] = arm.fraction
    return parse_recipe(settings, source=f"plan {plan.name}, arm {arm.label}")


def _slug(label: str) -> str:
    words = label.replace("+", "-plus-").replace("%", "pct").replace("=", "")
    return re.sub(r"-+", "-", re.sub(r"[^A-Za-z0-9._]", "-", words)).strip("-")
