"""What `moslora inspect` shows: an adapter's coverage and mixers, or a recipe's coverage without weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from moslora.adapter.inspection import count_parameters, inspect_adapter
from moslora.adapter.layers import MixerLayer
from moslora.adapter.methods import method_config
from moslora.adapter.targets import FIELDS, unmatched_patterns
from moslora.errors import ConfigError
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.models import resolve_model
from moslora.runs.recipe import Recipe, load_recipe

STATISTICS = ("mixer_condition", "mixer_from_identity", "mixer_from_orthogonal", "update_norm", "effective_rank")


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
    return _inspect_recipe(load_recipe(source, overrides))


def meta_model(recipe: Recipe) -> Any:
    """The recipe's model without weights, on the meta device."""
    try:
        config = AutoConfig.from_pretrained(
            resolve_model(recipe.model.path), trust_remote_code=recipe.model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model.path '{recipe.model.path}' cannot be read: {reason}") from error
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=recipe.model.trust_remote_code)


def _inspect_folder(source: str, *, base: str | None) -> Inspection:
    opened = open_adapter(source, base=base)
    model, _ = load_adapted(opened)
    recorded, used = model.peft_config["default"].base_model_name_or_path, resolve_model(opened.model.path)
    notes = [f"recorded base {recorded}, opened with {used}"] if recorded and recorded != used else []
    reports = [{**report.to_dict(), "count": 1} for report in inspect_adapter(model)]
    return _inspection(f"adapter {opened.adapter}", model, reports, notes)


def _inspect_recipe(recipe: Recipe) -> Inspection:
    config = method_config(recipe.adapter.method, recipe.adapter.options)
    model = meta_model(recipe)
    names = [name for name, _ in model.named_modules() if name]
    unmatched = unmatched_patterns(config, names)
    for name, pattern in unmatched:
        value = getattr(config, name)
        value.discard(pattern) if isinstance(value, set) else value.pop(pattern, None)
    adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    rows = [
        {"name": name, "count": 1, "rank": layer.r["default"], **_sizes(layer), **dict.fromkeys(STATISTICS)}
        for name, layer in adapted.get_base_model().named_modules()
        if hasattr(layer, "lora_A") and "default" in layer.r
    ]
    return _inspection(f"recipe {recipe.name}, method {recipe.adapter.method}", adapted, rows, [], unmatched)


def _inspection(
    title: str, model: Any, rows: list[dict[str, Any]], notes: list[str], unmatched: list[tuple[str, str]] | None = None
) -> Inspection:
    base = model.get_base_model()
    adapted = {row["name"] for row in rows}
    able = {
        name.removesuffix(".base_layer")
        for name, module in base.named_modules()
        if isinstance(module, (nn.Linear, Conv1D, nn.Conv2d)) and ".lora_" not in name
    }
    left_out = sorted({name.rpartition(".")[2] for name in able - adapted})
    parameters = count_parameters(model)
    config = model.peft_config["default"]
    assert all(hasattr(config, name) or name not in FIELDS for name in ("target_modules",))
    parameters["trainable"] = sum(row["parameters"] for row in rows) if rows else parameters["trainable"]
    return Inspection(title, parameters, len(adapted), len(able), left_out, unmatched or [], rows, notes)


def _sizes(layer: Any) -> dict[str, int]:
    sizes = {name: p.numel() for name, p in layer.named_parameters() if "lora_" in name and ".default" in name}
    mixers = sum(size for name, size in sizes.items() if "lora_mixer" in name) if isinstance(layer, MixerLayer) else 0
    return {"parameters": sum(sizes.values()), "mixer_parameters": mixers}


def _kind(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ranks = sorted({row["rank"] for row in rows})
    medians = {}
    for key in STATISTICS:
        values = [row[key] for row in rows if row[key] is not None]
        medians[key] = median(values) if values else None
    return {
        "name": name,
        "count": len(rows),
        "rank": "-".join(map(str, {ranks[0]: 0, ranks[-1]: 0})),
        "parameters": sum(row["parameters"] for row in rows),
        **medians,
    }
