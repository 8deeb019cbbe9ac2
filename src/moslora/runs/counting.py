"""How many parameters each method trains on a recipe's model, counted without loading a weight."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from moslora.adapter.coverage import Coverage, coverage, kinds
from moslora.adapter.inspection import count_parameters
from moslora.adapter.methods import METHODS
from moslora.adapter.parts import options_for
from moslora.errors import ConfigError, MissingDependencyError, MosloraError, UnsupportedLayerError
from moslora.runs.adapters import adapted_on_meta
from moslora.runs.groups import ModelSettings, Recipe

BASELINE = "lora"


@dataclass(frozen=True)
class MethodCount:
    """A method, and the parameters it trains with the recipe's options that it has; None where `reason` says why."""

    name: str
    summary: str
    limits: str
    source: str
    trainable: int | None
    relative: float | None  # to plain LoRA
    reason: str = ""
    left_out: list[str] = field(default_factory=list)  # weights that plain LoRA adapts and this method does not

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def count_methods(recipe: Recipe) -> list[MethodCount]:
    """Every method on the recipe's model.

    Raises ConfigError or UnsupportedLayerError, as plain LoRA does, where no adapter can be had.
    """
    found = {name: _count(recipe, name) for name in METHODS}
    counted = {name: one for name, one in found.items() if not isinstance(one, MosloraError)}
    error = found[BASELINE]
    if isinstance(error, (ConfigError, UnsupportedLayerError)) and not any(
        METHODS[name].config_class for name in counted
    ):
        raise error
    return [_row(name, one, baseline=counted.get(BASELINE)) for name, one in found.items()]


def trainable_parameters(model: ModelSettings, method: str, options: Mapping[str, Any]) -> int:
    """What a method with these options trains on a model, counted on the meta device.

    Raises ConfigError, UnsupportedLayerError, or MissingDependencyError where the model is not installed.
    """
    return count_parameters(adapted_on_meta(model, method, options))["trainable"]


class _Counted(NamedTuple):
    trainable: int
    covered: Coverage


def _count(recipe: Recipe, method: str) -> _Counted | MosloraError:
    try:
        adapted = adapted_on_meta(recipe.model, method, options_for(method, recipe.adapter.options))
    except (MissingDependencyError, ConfigError, UnsupportedLayerError) as error:
        return error
    return _Counted(count_parameters(adapted)["trainable"], coverage(adapted))


def _row(name: str, one: _Counted | MosloraError, *, baseline: _Counted | None) -> MethodCount:
    trainable, covered = (None, None) if isinstance(one, MosloraError) else one
    left_out: list[str] = []
    if covered and baseline:
        left_out = kinds(weight for weight in baseline.covered.adapted if weight.name not in covered.changed)
    return MethodCount(
        name=name,
        summary=METHODS[name].summary,
        limits=METHODS[name].limits,
        source=METHODS[name].source,
        trainable=trainable,
        relative=trainable / baseline.trainable if trainable is not None and baseline else None,
        reason=str(one) if isinstance(one, MosloraError) else "",
        left_out=left_out,
    )
