"""A plan: which methods a comparison tries, on what, with which seeds and learning rates; read from YAML and checked.

Unknown keys are refused with the nearest valid name. What every run shares is written as the groups of a recipe.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, create_model, field_validator, model_validator

from moslora.comparison.data_folder import settings_for
from moslora.comparison.subjects import Own, laid_over, own_settings, task_of, with_first_subject
from moslora.errors import ConfigError, unknown_name
from moslora.runs.groups import (
    NAME_PATTERN,
    AdapterSettings,
    ModelSettings,
    Recipe,
    SampleSettings,
    ScoringSettings,
    Settings,
    TrainingSettings,
)
from moslora.runs.recipe import LANGUAGE, recipe_class
from moslora.runs.settings import changed_settings, override
from moslora.runs.shipped import Shipped
from moslora.runs.validation import validated

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
Subject = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]  # names become folders

SHIPPED = Shipped(
    "plan",
    "plans",
    missing="cannot read the plan {path}: No such file or directory",
    kept_by="a comparison keeps its own as {path}/plan.yaml",
    listed_by="moslora compare --list",
)
AXES = {  # settings of a recipe that a plan sets itself, and where
    ("training", "learning_rate"): "tuning.learning_rates",
    ("data", "fraction"): "fractions",
}
OF_KIND = ("kind", "model", "data", "training", "evaluation")  # the groups that each kind of run has its own class of


class SharedSettings(Settings):
    """What every run has in common: the groups of a recipe; each arm takes the adapter options its method knows."""

    kind: str
    model: ModelSettings
    adapter: dict[str, Any] = Field(default_factory=dict)
    data: SampleSettings
    training: TrainingSettings = TrainingSettings()
    evaluation: ScoringSettings

    @model_validator(mode="after")
    def _leaves_the_axes_to_the_plan(self) -> Self:
        for (group, name), axis in AXES.items():
            if name in getattr(self, group).model_fields_set:
                raise ConfigError(f"{group}.{name} is what a plan sets by {axis}: write it there")
        if "method" in self.adapter:
            raise ConfigError("adapter.method: every arm names its own method; remove it")
        if not self.evaluation.tasks:
            raise ConfigError("evaluation.tasks is empty: name what the arms are compared on, such as everyday")
        return self


class TuningSettings(Settings):
    """The learning rates tried for every arm; the lowest validation loss wins. One rate: nothing to try."""

    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    of: dict[str, list[Rate]] = Field(default_factory=dict)  # by arm, as many rates as learning_rates has
    seed: Seed = 0  # not among the seeds compared
    steps_share: Share = 1.0  # of the steps of a compared run; less may choose a rate too high for all of them
    validation_samples: Count = 200  # of the training samples, set apart while tuning


class Plan(Settings):
    """Every setting of one comparison."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    recipe: SharedSettings
    arms: Annotated[dict[Label, AdapterSettings], Field(min_length=1)]  # method and its own options, by label
    baseline: str  # the arm that the others are compared with
    seeds: Annotated[list[Seed], Field(min_length=1)]
    seeds_of: dict[str, list[Seed]] = Field(default_factory=dict)  # for arms with more seeds, or fewer
    subjects: dict[Subject, dict[str, dict[str, Any]]] = Field(
        default_factory=dict
    )  # what each has in a recipe's place
    ranks: list[Count] = Field(default_factory=list)  # every arm at each of these ranks; none given: each at its own
    fractions: list[Share] = Field(default_factory=lambda: [1.0], min_length=1)  # shares of the training samples
    same_coverage: bool = True  # refuse arms that adapt other weights of the base than the baseline does
    match_parameters: bool = False  # choose each arm's rank so that it trains about as many parameters as the baseline
    tuning: TuningSettings

    @model_validator(mode="before")
    @classmethod
    def _recipe_is_the_first_subjects(cls, given: Any) -> Any:
        return with_first_subject(given) if isinstance(given, dict) else given

    @field_validator("arms", "seeds_of", mode="before")
    @classmethod
    def _null_takes_an_entry_back(cls, entries: Any) -> Any:
        return {k: v for k, v in entries.items() if v is not None} if isinstance(entries, dict) else entries

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        if self.baseline not in self.arms:
            raise unknown_name("arm as baseline:", self.baseline, self.arms)
        if unnamed := [label for label, arm in self.arms.items() if "method" not in arm.model_fields_set]:
            raise ConfigError(f"arms.{unnamed[0]}.method is missing: name the method, such as lora")
        for setting, named in (("seeds_of", self.seeds_of), ("tuning.of", self.tuning.of)):
            for label in named:
                if label not in self.arms:
                    raise unknown_name(f"arm in {setting}:", label, self.arms)
        for setting, values in self._lists():
            if len(set(values)) != len(values):
                raise ConfigError(f"{setting} names a value twice: {values}")
        self._check_seeds()
        self._check_grids()
        self._check_subjects()
        if self.match_parameters and self.ranks:
            raise ConfigError("match_parameters chooses the ranks, so ranks must not be given with it")
        return self

    def seeds_for(self, arm: str) -> list[int]:
        """The seeds of an arm's compared runs."""
        return self.seeds_of.get(arm, self.seeds)

    def rates_for(self, arm: str) -> list[float]:
        """The learning rates tried for an arm."""
        return self.tuning.of.get(arm, self.tuning.learning_rates)

    @property
    def subject_names(self) -> list[str | None]:
        """The subjects; one None for a plan that has no such thing."""
        return [*(self.subjects or [None])]

    @property
    def tasks(self) -> list[str]:
        """What the arms are compared on: each measure, of each subject where there are several."""
        return [task_of(subject, name) for subject in self.subject_names for name in self.recipe.evaluation.task_names]

    def recipe_of(self, subject: str | None) -> dict[str, Any]:
        """The shared settings as plain values, with those of a subject."""
        own: Own = self.subjects[subject] if subject is not None else {}
        return laid_over(self.to_dict()["recipe"], own)

    def to_dict(self) -> dict[str, Any]:
        """Every setting, defaults included, as plain values that `parse_plan` reads back."""
        settings = self.model_dump(mode="json")
        for group, name in [*AXES, *own_settings(self.subjects)]:
            settings["recipe"][group].pop(name, None)
        return settings if self.subjects else {name: value for name, value in settings.items() if name != "subjects"}

    def to_yaml(self) -> str:
        """Every setting, defaults included, as YAML; `load_plan` reads it back from a file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def _lists(self) -> list[tuple[str, Sequence[float]]]:
        own = [("seeds", self.seeds), ("ranks", self.ranks), ("fractions", self.fractions)]
        rates = [(f"tuning.of.{label}", rates) for label, rates in self.tuning.of.items()]
        seeds = [(f"seeds_of.{label}", seeds) for label, seeds in self.seeds_of.items()]
        return [*own, *seeds, ("tuning.learning_rates", self.tuning.learning_rates), *rates]

    def _check_seeds(self) -> None:
        for label in self.arms:
            seeds = self.seeds_for(label)
            if self.tuning.seed in seeds:
                raise ConfigError(
                    f"tuning.seed {self.tuning.seed} is among the seeds of '{label}' ({seeds}): learning rates must"
                    " not be chosen on a run that is compared; choose another"
                )
            if not seeds:
                raise ConfigError(f"seeds_of.{label} is empty: give at least one seed, or take the arm out")

    def _check_subjects(self) -> None:
        for subject in [*self.subjects][1:]:  # the first is in `recipe`, which is checked already
            validated(type(self.recipe), self.recipe_of(subject), source=f"subjects.{subject}")

    def _check_grids(self) -> None:
        wanted = len(self.tuning.learning_rates)
        for label, rates in self.tuning.of.items():
            if len(rates) != wanted:
                raise ConfigError(
                    f"tuning.of.{label} has {len(rates)} learning rates, the other arms have {wanted}: give every arm"
                    " as many, or the comparison favours the one with more"
                )


@cache
def _plan_of(recipe: type[Recipe]) -> type[Plan]:
    """A plan whose shared settings are the groups of these recipes."""
    fields = recipe.model_fields
    own: dict[str, Any] = {name: (fields[name].annotation, fields[name]) for name in OF_KIND}
    shared: Any = create_model("SharedOfKind", __base__=SharedSettings, **own)
    return create_model("PlanOfKind", __base__=Plan, recipe=(shared, ...))


def parse_plan(settings: Mapping[str, Any], *, source: str) -> Plan:
    """Check settings and fill in the defaults. Raises `ConfigError` naming `source`, the setting and its value."""
    given = {name: value for name, value in settings.items() if value is not None}
    shared = given.get("recipe")
    kind = shared.get("kind") if isinstance(shared, Mapping) else None
    recipe = recipe_class(kind)
    if given.get("subjects") and not recipe.has_subjects:
        raise ConfigError(f"{source}: subjects: runs of kind '{kind or LANGUAGE}' have none; remove them")
    return validated(_plan_of(recipe), given, source=source)


def load_plan(name_or_path: str | Path, overrides: Sequence[str] = (), *, data: str | Path | None = None) -> Plan:
    """A shipped plan by name, or a YAML file, with overrides such as `seeds=[1,2]`.

    `data` is the folder of training and test sets, or `hub`: see `moslora.comparison.data_folder`. A file without
    `name` is named after itself. Raises `ConfigError`.
    """
    source = f"plan {name_or_path}"
    settings = SHIPPED.settings(name_or_path)
    if data is not None:
        for key, value in settings_for(data, settings).items():
            override(settings, f"{key}={json.dumps(value)}", source=source)  # JSON is YAML
    for assignment in overrides:
        override(settings, assignment, source=source)
    return parse_plan(settings, source=source)


def list_plans() -> dict[str, str]:
    """The names of the shipped plans with what each compares, in alphabetical order."""
    return {name: SHIPPED.summary(name) for name in SHIPPED.names()}


def plan_text(name: str) -> str:
    """The commented YAML of a shipped plan. Raises `ConfigError` for an unknown name."""
    return SHIPPED.text(name)


def changes(former: Plan, wanted: Plan) -> dict[str, tuple[Any, Any]]:
    """The settings in which two plans differ, by dotted name, with both values."""
    return changed_settings(former.to_dict(), wanted.to_dict())
