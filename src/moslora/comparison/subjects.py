"""Several subjects in one comparison: each is learned in runs of its own, and each measure of each is a task.

What an arm does with one seed is then a folder with a run for each subject. Imports no torch.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from moslora.errors import ConfigError
from moslora.runs.settings import describe

OWN_GROUPS = ("data", "evaluation")  # of a recipe: what a subject may have of its own
Own = Mapping[str, Mapping[str, Any]]
Value = TypeVar("Value")


def task_of(subject: str | None, measure: str) -> str:
    """The name in a comparison of what is measured of a subject; without subjects that of the measure."""
    return measure if subject is None else f"{subject}: {measure}"


def measure_of(subject: str | None, task: str) -> str | None:
    """The measure that a task of a comparison is of this subject; None for a task of another one."""
    if subject is None:
        return task
    start = task_of(subject, "")
    return task.removeprefix(start) if task.startswith(start) else None


def seed_of(seed: int | str, subject: str | None) -> str:
    """What a person calls one seed of a subject."""
    return str(seed) if subject is None else f"{seed} of {subject}"


def place_of(folder: str, subject: str | None) -> str:
    """Where a subject's run lies in what an arm did with a seed."""
    return folder if subject is None else f"{folder}/{subject}"


def subjects_of(plan: Mapping[str, Any]) -> list[str | None]:
    """The subjects of a plan as plain values; one None for a plan that has no such thing."""
    return [*(plan.get("subjects") or [None])]


def in_common(plan: Mapping[str, Any], found: Mapping[str, Value]) -> dict[str, Value]:
    """What is known of tasks, said once for a measure of which all subjects have the same."""
    subjects = subjects_of(plan)
    told: dict[str, Value] = {}
    for task, value in found.items():
        measure = next((own for one in subjects if (own := measure_of(one, task)) is not None), task)
        alike = [found.get(task_of(one, measure)) == value for one in subjects]
        told[measure if all(alike) else task] = value
    return told


def laid_over(recipe: Mapping[str, Any], own: Own) -> dict[str, Any]:
    """The settings of a recipe with those of a subject over them."""
    changed = {group: {**(recipe.get(group) or {}), **settings} for group, settings in own.items()}
    return {**recipe, **changed}


def own_settings(subjects: Mapping[str, Own]) -> list[tuple[str, str]]:
    """The settings, by group and name, that subjects have of their own: all have the same."""
    return [*_names(next(iter(subjects.values()), {}))]


def with_first_subject(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a plan with a recipe that is the first subject's, which all that looks at one recipe sees.

    Raises ConfigError for subjects that differ in more than data and evaluation, or not all in the same settings.
    """
    subjects, recipe = plan.get("subjects"), plan.get("recipe")
    if not isinstance(subjects, Mapping) or not isinstance(recipe, Mapping):
        return {**plan}
    subjects = {name: own for name, own in subjects.items() if own is not None}
    if not subjects:
        return {**plan, "subjects": subjects}
    for subject, own in subjects.items():
        _check_groups(f"subjects.{subject}", own)
    _check(subjects, recipe)
    first = next(iter(subjects.values()))
    return {**plan, "subjects": subjects, "recipe": laid_over(recipe, first)}


def _check_groups(where: str, own: Any) -> None:
    groups = {f"{where}.{name}": group for name, group in own.items()} if isinstance(own, Mapping) else {}
    for name, value in {where: own, **groups}.items():
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {describe(value)}; allowed: a group of settings")


def _check(subjects: Mapping[str, Own], recipe: Mapping[str, Any]) -> None:
    first, wanted = next(iter(subjects)), {*own_settings(subjects)}
    for subject, own in subjects.items():
        for group, name in _names(own):
            where = f"subjects.{subject}.{group}.{name}"
            if group not in OWN_GROUPS:
                raise ConfigError(f"{where}: subjects differ in data and evaluation alone; set it in recipe, for all")
            if (group, name) == ("evaluation", "tasks"):
                raise ConfigError(f"{where}: every subject is measured alike; set it in recipe, for all")
            if name in (recipe.get(group) or {}):
                raise ConfigError(f"recipe.{group}.{name} is set by each subject: remove it from recipe")
        if odd := sorted(wanted ^ {*_names(own)}):
            which = ", ".join(f"{group}.{name}" for group, name in odd)
            raise ConfigError(
                f"subjects.{subject} and subjects.{first} differ in what they set ({which}): set all of it in each"
            )


def _names(own: Own) -> Iterator[tuple[str, str]]:
    return ((group, name) for group, settings in own.items() for name in settings)
