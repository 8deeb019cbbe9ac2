"""Whether the arms of a comparison adapt the same weights of the base: looked at, on the meta device, not assumed.

The same `target_modules` do not mean the same in every method: PEFT turns `all-linear` and the names of experts into
bare parameters for plain LoRA only, and some methods reach linear layers alone.
"""

from collections.abc import Mapping
from typing import Any

from moslora.adapter.coverage import Coverage, coverage, kinds
from moslora.adapter.methods import METHODS
from moslora.comparison.matrix import Arm, arms_of
from moslora.comparison.plan import Plan
from moslora.errors import ConfigError, MosloraError
from moslora.records import CoverageRecord
from moslora.runs.adapters import adapted_on_meta

ELSEWHERE = ("exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern")


def check_coverage(plan: Plan) -> None:
    """Refuse a plan in which an arm adapts other weights than the baseline, unless `same_coverage` is false.

    `full` trains all weights by definition and is left out, and so is an arm whose method cannot adapt the model: its
    runs say so. Raises ConfigError with what differs, and with targets that all arms share where there are any.
    """
    if not plan.same_coverage:
        return
    arms = {arm.name: arm for arm in arms_of(plan) if METHODS[arm.method].config_class}
    found = _covered(plan, list(arms.values()), {})
    if not found:
        return
    first = plan.baseline if plan.baseline in found else next(iter(found))
    other = next((name for name in found if found[name].changed != found[first].changed), None)
    if other is None:
        return
    parts = [_difference(found, one, than) for one, than in ((first, other), (other, first))]
    raise ConfigError(
        f"the arms adapt different weights of the base: {' and '.join(part for part in parts if part)};"
        f" {_advice(plan, arms, found)}, or set same_coverage: false to compare them as they are"
    )


def coverage_notes(found: Mapping[str, CoverageRecord | None]) -> list[str]:
    """What finished runs say of their coverage, by arm: who adapts how much where that differs, experts left out."""
    covered = {arm: record for arm, record in found.items() if record}
    notes = []
    by_amount = _grouped({arm: (record.adapted, record.total) for arm, record in covered.items()})
    if len(by_amount) > 1:
        amounts = [f"{', '.join(arms)} {adapted / total:.0%}" for (adapted, total), arms in by_amount.items() if total]
        notes.append(f"the arms change different shares of the base's weights: {'; '.join(amounts)}")
    for experts, arms in _grouped({arm: tuple(record.experts_left_out) for arm, record in covered.items()}).items():
        if experts:
            notes.append(f"experts not adapted by {', '.join(arms)}: {', '.join(experts)}, which are bare parameters")
    return notes


def _covered(plan: Plan, arms: list[Arm], changes: Mapping[str, Any]) -> dict[str, Coverage]:
    """The coverage of each arm, with changed options, but of those that cannot be made."""
    found = {}
    for arm in arms:
        options = {name: value for name, value in {**arm.options, **changes}.items() if value is not None}
        try:
            found[arm.name] = coverage(adapted_on_meta(plan.recipe.model, arm.method, options))
        except MosloraError:
            continue
    return found


def _difference(found: Mapping[str, Coverage], one: str, than: str) -> str:
    """What an arm adapts and another does not, in words."""
    more = found[one].changed - found[than].changed
    named = kinds(weight for weight in found[one].weights if weight.name in more)
    others = more - {weight.name for weight in found[one].weights}  # biases, single tokens
    named += sorted({".".join(name.split(".")[-2:]) for name in others})
    return f"{one} adapts {', '.join(named)}, which {than} does not" if named else ""


def _advice(plan: Plan, arms: Mapping[str, Arm], found: Mapping[str, Coverage]) -> str:
    """Targets that give every arm the same coverage, tried before they are named."""
    shared = frozenset.intersection(*(one.changed for one in found.values()))
    layers = kinds(layer for one in found.values() for layer in one.layers if layer.name in shared)
    changes = {"target_modules": layers, **dict.fromkeys(ELSEWHERE)}
    tried = _covered(plan, list(arms.values()), changes) if layers else {}
    if len(tried) < len(found) or len({one.changed for one in tried.values()}) != 1:
        return "name targets that every arm adapts alike"
    own = any("target_modules" in plan.arms[name].options for name in arms)
    removed = ["target_modules in the arms"] * own + [
        option for option in ELSEWHERE if any(arm.options.get(option) is not None for arm in arms.values())
    ]
    without = f" (and remove {', '.join(removed)})" if removed else ""
    return f"name targets that every arm adapts alike, recipe.adapter.target_modules=[{','.join(layers)}]{without}"


def _grouped(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return groups
