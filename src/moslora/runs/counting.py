"""How many parameters each method trains on a recipe's model, counted without loading a weight."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moslora.adapter.inspection import count_parameters
from moslora.adapter.methods import METHODS, known_options, method_config
from moslora.errors import ConfigError, MissingDependencyError, UnsupportedLayerError
from moslora.runs.adapters import adapted_on_meta
from moslora.runs.recipe import ModelSettings, Recipe

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

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def count_methods(recipe: Recipe) -> list[MethodCount]:
    """Every method on the recipe's model. Raises ConfigError for a model that cannot be found."""
    counted = {name: _count(recipe, name) for name in METHODS}
    baseline = counted[BASELINE][0]
    return [
        MethodCount(
            name=name,
            summary=METHODS[name].summary,
            limits=METHODS[name].limits,
            source=METHODS[name].source,
            trainable=trainable,
            relative=trainable / baseline if trainable is not None and baseline else None,
            reason=reason,
        )
        for name, (trainable, reason) in counted.items()
    ]


def trainable_parameters(model: ModelSettings, method: str, options: Mapping[str, Any]) -> int:
    """What a method with these options trains on a model, counted on the meta device.

    Raises ConfigError, UnsupportedLayerError, or MissingDependencyError where the model is not installed.
    """
    return count_parameters(adapted_on_meta(model, method_config(method, options)))["trainable"]


def _count(recipe: Recipe, method: str) -> tuple[int | None, str]:
    try:
        options = known_options(method, recipe.adapter.options)
        return trainable_parameters(recipe.model, method, options), ""
    except MissingDependencyError as error:
        return None, str(error)
    except (ConfigError, UnsupportedLayerError) as error:
        if method == BASELINE:
            raise
        return None, str(error)
