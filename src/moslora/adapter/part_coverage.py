"""What is trained in each part of a model, and how: ranks, mixers, parameters, and what is quantised."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from moslora.adapter.config import MosloraConfig
from moslora.adapter.coverage import LAYERS, covered_layers
from moslora.adapter.merging import is_quantised
from moslora.adapter.part_layers import names_in, part_of
from moslora.adapter.patterns import NO_MIXER, value_at
from moslora.adapter.twin import base_of


@dataclass(frozen=True)
class PartCoverage:
    """What an adapter does in one part of a model.

    `layers` counts the part's linear layers, convolutions and embeddings, `adapted` those that carry the adapter,
    `quantised` those whose weight is quantised. `ranks`, `alphas`, `dropouts` and `mixers` list each value in use once.
    `parameters` are all numbers of the adapter, `mixer_parameters` the mixers' among them; `whole_parameters` are those
    of modules, biases and weights trained themselves, as a projector's; `trained_parameters` are those of either kind
    that are set to be trained.
    """

    part: str
    layers: int
    adapted: int
    quantised: int
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    dropouts: tuple[float, ...]
    mixers: tuple[str, ...]
    parameters: int
    mixer_parameters: int
    whole_parameters: int
    trained_parameters: int

    @property
    def is_trained_whole(self) -> bool:
        """Whether the part trains without an adapter."""
        return self.whole_parameters > 0 and self.adapted == 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {key: [*value] if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def coverage_by_part(model: nn.Module, parts: Mapping[str, str], adapter_name: str = "default") -> list[PartCoverage]:
    """A row for each part, in their order, of a model with an adapter or one whose parameters are marked to train."""
    base = base_of(model)
    adapted = {row["name"]: row for row in covered_layers(model, adapter_name)}
    whole = _whole_parameters(base, adapted, adapter_name)
    config: Any = getattr(model, "peft_config", {}).get(adapter_name)
    return [_row(base, part, parts, adapted, whole, adapter_name=adapter_name, config=config) for part in parts]


def _row(
    base: nn.Module,
    part: str,
    parts: Mapping[str, str],
    adapted: Mapping[str, Any],
    whole: Mapping[str, int],
    *,
    adapter_name: str,
    config: Any,
) -> PartCoverage:
    own = {name: base.get_submodule(name) for name in adapted if part_of(name, parts) == part}
    names = [name for name in names_in(base, parts, part) if ".modules_to_save." not in name]  # the adapter's copies
    modules = [_wrapped(base.get_submodule(name)) for name in names]
    layers = [module for module in modules if isinstance(module, LAYERS)]
    parameters = {name: p for name, p in base.named_parameters() if part_of(name, parts) == part}
    return PartCoverage(
        part=part,
        layers=len(layers),
        adapted=len(own),
        quantised=sum(map(is_quantised, layers)),
        ranks=_once(adapted[name]["rank"] for name in own),
        alphas=_once(_alpha(layer, adapter_name) for layer in own.values()),
        dropouts=_once(_dropout(layer, adapter_name) for layer in own.values()),
        mixers=_once(_mixer(config, name) for name in own),
        parameters=sum(adapted[name]["parameters"] for name in own),
        mixer_parameters=sum(adapted[name]["mixer_parameters"] for name in own),
        whole_parameters=sum(size for name, size in whole.items() if name in parameters),
        trained_parameters=sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad),
    )


def _whole_parameters(base: nn.Module, adapted: Mapping[str, Any], adapter_name: str) -> dict[str, int]:
    """The sizes of parameters trained themselves: copies in saved modules, and what of the base is not frozen."""
    prefixes = tuple(f"{name}." for name in adapted)
    return {
        name: parameter.numel()
        for name, parameter in base.named_parameters()
        if f".modules_to_save.{adapter_name}." in f".{name}"
        or (parameter.requires_grad and (not name.startswith(prefixes) or ".base_layer." in name))
    }


def _wrapped(module: Any) -> nn.Module:
    """The base's own layer beneath what adapters put around it."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _once(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted({value for value in values if value is not None}))


def _alpha(layer: Any, adapter_name: str) -> float | None:
    alphas = getattr(layer, "lora_alpha", None) or getattr(layer, "alpha", None) or {}
    return alphas.get(adapter_name)


def _dropout(layer: Any, adapter_name: str) -> float | None:
    dropouts = getattr(layer, "lora_dropout", {})
    return getattr(dropouts[adapter_name], "p", 0.0) if adapter_name in dropouts else None


def _mixer(config: Any, name: str) -> str | None:
    """The kind of mixer a layer has; None for plain LoRA."""
    if not isinstance(config, MosloraConfig):
        return None
    kind = value_at(config.mixer_pattern or {}, name, config.mixer)
    return None if kind == NO_MIXER else kind
