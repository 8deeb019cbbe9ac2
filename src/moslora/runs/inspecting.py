"""What `moslora inspect` shows: an adapter's coverage and mixers, or a recipe's coverage without weights."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from moslora.adapter.coverage import covered_layers
from moslora.adapter.inspection import count_parameters, inspect_adapter
from moslora.adapter.methods import method_config
from moslora.adapter.targets import unmatched_patterns
from moslora.adapter.twin import base_of
from moslora.errors import ConfigError
from moslora.runs.adapters import FULL, adapted_on_meta, load_adapted, open_adapter
from moslora.runs.models import meta_model, resolve_model
from moslora.runs.recipe import Recipe, load_recipe

STATISTICS = ("mixer_condition", "mixer_from_identity", "mixer_from_orthogonal", "update_norm", "effective_rank")

NO_ADAPTER = "full fine-tuning: all weights are trained, no layer carries an adapter"


@dataclass(frozen=True)
class Inspection:
    """Coverage, parameters and, for a trained adapter, statistics of its mixers."""

    title: str
    parameters: dict[str, int]
    adapted: int
    linear: int
    not_adapted: list[str]
    unmatched: list[tuple[str, str]]
    layers: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def kinds(self) -> list[dict[str, Any]]:
        """One row a module name: sums, and medians over its layers."""
        names = dict.fromkeys(row["name"].rpartition(".")[2] for row in self.layers)
        return [_kind(name, [row for row in self.layers if row["name"].rpartition(".")[2] == name]) for name in names]


def inspect_source(source: str, overrides: Sequence[str] = (), *, base: str | None = None) -> Inspection:
    """Inspect a run's or adapter's folder, or a recipe by name or file. Raises the errors of what it opens."""
    if Path(source).is_dir():
        if overrides:
            raise ConfigError(f"--set changes a recipe, and {source} is a folder")
        return _inspect_folder(source, base=base)
    if base is not None:
        raise ConfigError(f"--base goes with an adapter, and {source} is a recipe: use --set {shlex.quote(f'model.path={base}')}")
    return _inspect_recipe(load_recipe(source, overrides))


def _inspect_folder(source: str, *, base: str | None) -> Inspection:
    opened = open_adapter(source, base=base)
    model, _ = load_adapted(opened, is_trainable=True)  # so that what was trained can be told from what was not
    if opened.peft_type == FULL:
        return _inspection(f"model {opened.adapter}", model, [], notes=[NO_ADAPTER])
    recorded, used = model.peft_config["default"].base_model_name_or_path, resolve_model(opened.model.path)
    notes = [f"recorded base {recorded}, opened with {used}"] if recorded and recorded != used else []
    rows = [{**report.to_dict(), "count": 1} for report in inspect_adapter(model)] or _rows(model)
    return _inspection(f"adapter {opened.adapter}", model, rows, notes=notes)


def _inspect_recipe(recipe: Recipe) -> Inspection:
    title = f"recipe {recipe.name}, method {recipe.adapter.method}"
    config: Any = method_config(recipe.adapter.method, recipe.adapter.options)
    bare = meta_model(recipe.model)
    if config is None:
        return _inspection(title, bare.requires_grad_(True), [], notes=[NO_ADAPTER])
    unmatched = unmatched_patterns(config, [name for name, _ in bare.named_modules() if name])
    targets = config.target_modules
    for option in {option for option, _ in unmatched}:
        setattr(config, option, _without(getattr(config, option), {one for field, one in unmatched if field == option}))
    if targets and not config.target_modules:
        return _inspection(title, bare.requires_grad_(False), [], unmatched=unmatched)
    model = adapted_on_meta(recipe.model, config)
    return _inspection(title, model, _rows(model), unmatched=unmatched)


def _inspection(
    title: str,
    model: Any,
    rows: list[dict[str, Any]],
    *,
    unmatched: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> Inspection:
    adapted = {row["name"] for row in rows}
    base = base_of(model)
    able = {
        name.removesuffix(".base_layer")
        for name, module in base.named_modules()
        if isinstance(module, (nn.Linear, Conv1D, nn.Conv2d)) and ".lora_" not in name
    }
    left_out = sorted({name.rpartition(".")[2] for name in able - adapted})
    return Inspection(
        title, count_parameters(model), len(adapted), len(able | adapted), left_out, [*unmatched], rows, [*notes]
    )


def _without(value: Any, patterns: set[str]) -> Any:
    """An option's value without the patterns that match nothing; an option that is one pattern itself becomes None."""
    if isinstance(value, (str, int)):
        return None
    if isinstance(value, dict):
        return {pattern: number for pattern, number in value.items() if pattern not in patterns}
    return type(value)(pattern for pattern in value if str(pattern) not in patterns)


def _rows(model: Any) -> list[dict[str, Any]]:
    """Layers without statistics: those of a method that has no factors A and B, or without weights."""
    return [{**row, "count": 1, **dict.fromkeys(STATISTICS)} for row in covered_layers(model)]


def _kind(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ranks = sorted({row["rank"] for row in rows})
    medians = {}
    for key in STATISTICS:
        values = [row[key] for row in rows if row[key] is not None]
        medians[key] = median(values) if values else None
    return {
        "name": name,
        "count": len(rows),
        "rank": str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}",
        "parameters": sum(row["parameters"] for row in rows),
        **medians,
    }
