"""What `moslora inspect` shows: an adapter's coverage and mixers, or a recipe's coverage without weights."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from moslora.adapter.coverage import Coverage, coverage, covered_layers, kinds
from moslora.adapter.inspection import count_parameters, inspect_adapter
from moslora.adapter.methods import METHODS, method_config
from moslora.adapter.part_layers import dead_modules, is_within, part_of
from moslora.adapter.parts import ONLY, projector_choice
from moslora.adapter.targets import unmatched_patterns
from moslora.adapter.twin import base_of
from moslora.errors import ConfigError
from moslora.records import PartRecord
from moslora.runs.active import Reporter
from moslora.runs.adapters import FULL, PROJECTOR_ONLY, adapted_on_meta, load_adapted
from moslora.runs.covering import part_records, replaced_notes
from moslora.runs.folder import check_there
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.models import layers_to_quantise, meta_model, resolve_model
from moslora.runs.recipe import load_recipe
from moslora.runs.shipped import SUFFIXES
from moslora.runs.unfinished import open_reached

STATISTICS = ("mixer_condition", "mixer_from_identity", "mixer_from_orthogonal", "update_norm", "effective_rank")

NO_ADAPTER = "full fine-tuning: all weights are trained, no layer carries an adapter"
NO_ADAPTER_BESIDE = "the projector alone is trained, no layer carries an adapter"


@dataclass(frozen=True)
class Inspection:
    """Coverage, parameters and, for a trained adapter, statistics of its mixers.

    Of the `layers_able` to carry an adapter, `adapted` have one, and `adapted_weights` of all `weights`, which count
    bare parameters such as experts too. `not_adapted` and `bare_not_adapted` name the kinds of the rest.
    """

    title: str
    parameters: dict[str, int]
    adapted: int
    layers_able: int
    adapted_weights: int
    weights: int
    not_adapted: list[str]
    bare_not_adapted: list[str]
    unmatched: list[tuple[str, str]]
    layers: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)  # of a model made of parts, as a run's record has them

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def kinds(self) -> list[dict[str, Any]]:
        """One row a module name within its part: sums, and medians over its layers."""
        alike: dict[tuple[str | None, str], list[dict[str, Any]]] = {}
        for row in self.layers:
            alike.setdefault((row.get("part"), _kind_name(row)), []).append(row)
        return [_kind(name, rows) | ({"part": part} if part else {}) for (part, name), rows in alike.items()]


def inspect_source(
    source: str,
    overrides: Sequence[str] = (),
    *,
    base: str | None = None,
    report: Reporter = lambda _line: None,
) -> Inspection:
    """Inspect a run's or adapter's folder, or a recipe by name or file. Raises the errors of what it opens."""
    if Path(source).is_dir():
        if overrides:
            raise ConfigError(f"--set changes a recipe, and {source} is a folder")
        return _inspect_folder(source, base=base, report=report)
    if "/" in source and not source.endswith(SUFFIXES):
        check_there(source)
    if base is not None:
        raise ConfigError(
            f"--base goes with an adapter, and {source} is a recipe: use --set {shlex.quote(f'model.path={base}')}"
        )
    return _inspect_recipe(load_recipe(source, overrides))


def _inspect_folder(source: str, *, base: str | None, report: Reporter) -> Inspection:
    opened = open_reached(source, base=base, report=report)
    model, _ = load_adapted(opened, is_trainable=True)  # so that what was trained can be told from what was not
    parts = kind_of(opened.model.kind).parts(model)
    covered = opened.run.record().coverage if opened.run else None
    dead = {part.part: part.dead for part in (covered.parts if covered else None) or () if part.dead is not None}
    records = part_records(model, parts, dead=dead)
    if opened.peft_type in (FULL, PROJECTOR_ONLY):
        note = NO_ADAPTER if opened.peft_type == FULL else NO_ADAPTER_BESIDE
        return _inspection(f"model {opened.adapter}", model, [], notes=[note], parts=records, prefixes=parts)
    recorded, used = model.peft_config["default"].base_model_name_or_path, resolve_model(opened.model.path)
    notes = [f"recorded base {recorded}, opened with {used}"] if recorded and recorded != used else []
    reports = {report.name: {**report.to_dict(), "count": 1} for report in inspect_adapter(model)}
    rows = [reports.get(row["name"], row) for row in _rows(model)]
    notes += replaced_notes(model, coverage(model))
    return _inspection(
        f"adapter {opened.adapter}", model, _with_part(rows, parts), notes=notes, parts=records, prefixes=parts
    )


def _inspect_recipe(recipe: Recipe) -> Inspection:
    title = f"recipe {recipe.name}, method {recipe.adapter.method}"
    method, options, bare = recipe.adapter.method, dict(recipe.adapter.options), meta_model(recipe.model)
    if parts := kind_of(recipe.kind).parts(bare):
        return _inspect_parts(recipe, title, bare, parts)
    config: Any = method_config(method, options)
    if config is None:
        return _inspection(title, bare.requires_grad_(True), [], notes=[NO_ADAPTER])
    unmatched = unmatched_patterns(config, [name for name, _ in bare.named_modules() if name])
    for option in {option for option, _ in unmatched}:
        patterns = {one for field, one in unmatched if field == option}
        options[option] = _without(getattr(config, option), patterns)
    if not options.get("target_modules", True):
        return _inspection(title, bare.requires_grad_(False), [], unmatched=unmatched)
    model = adapted_on_meta(recipe.model, method, {name: value for name, value in options.items() if value is not None})
    return _inspection(title, model, _rows(model), unmatched=unmatched, notes=replaced_notes(model, coverage(model)))


def _inspect_parts(recipe: Recipe, title: str, bare: Any, parts: Mapping[str, str]) -> Inspection:
    """A recipe for a model made of parts, whose patterns all match, or are refused."""
    quantised = Counter(part_of(name, parts) for name in layers_to_quantise(recipe.model, bare))
    method, options = recipe.adapter.method, recipe.adapter.options
    is_only, is_full = projector_choice(options) == ONLY, METHODS[method].config_class is None
    model = adapted_on_meta(recipe.model, method, options)
    if is_full:
        model.requires_grad_(True)
    records = [part.model_copy(update={"quantised": quantised[part.part]}) for part in part_records(model, parts) or ()]
    notes = [NO_ADAPTER_BESIDE] if is_only else [NO_ADAPTER] if is_full else []
    return _inspection(title, model, _with_part(_rows(model), parts), notes=notes, parts=records, prefixes=parts)


def _with_part(rows: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{**row, "part": part_of(row["name"], parts)} if parts else row for row in rows]


def _inspection(
    title: str,
    model: Any,
    rows: list[dict[str, Any]],
    *,
    unmatched: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    parts: Sequence[PartRecord] | None = None,
    prefixes: Mapping[str, str] = MappingProxyType({}),
) -> Inspection:
    found = coverage(model)
    dead = dead_modules(base_of(model), prefixes)
    adapted = {row["name"] for row in rows} & {layer.layer for layer in found.layers}
    return Inspection(
        title=title,
        parameters=count_parameters(model),
        adapted=len(adapted),
        layers_able=len(found.layers),
        adapted_weights=found.adapted_numbers,
        weights=found.numbers,
        not_adapted=_left_out(found, dead, prefixes),
        bare_not_adapted=kinds(found.bare_left_out),
        unmatched=[*unmatched],
        layers=rows,
        notes=[*notes, *(f"never trained, since nothing reads it: {name}" for name in dead)],
        parts=[part.model_dump() for part in parts or ()],
    )


def _left_out(found: Coverage, dead: Sequence[str], prefixes: Mapping[str, str]) -> list[str]:
    """The kinds of layers that could carry the adapter and do not; of a model made of parts, with the part."""
    layers = [layer for layer in found.layers if not layer.is_adapted]
    if not prefixes:
        return kinds(layers)
    alive = [layer for layer in layers if not any(is_within(layer.layer, name) for name in dead)]
    return sorted({f"{part_of(layer.layer, prefixes)} {layer.kind}" for layer in alive})


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


def _kind_name(row: dict[str, Any]) -> str:
    """The last name of a layer; of a bare parameter called `weight`, a router's, the last two."""
    module, _, leaf = row["name"].rpartition(".")
    return leaf if leaf != "weight" else f"{module.rpartition('.')[2]}.{leaf}"


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
