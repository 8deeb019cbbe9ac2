"""Which weights of the base an adapter of any PEFT method changes, and which it leaves as they are.

Counted are weights, not only layers: the routed experts of a mixture are bare parameters of one module, most of the
model, and in no list of layers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from moslora.adapter.twin import base_of

LAYERS = (nn.Linear, Conv1D, _ConvNd, nn.Embedding)


@dataclass(frozen=True)
class Weight:
    """A matrix, kernel or stack of matrices of the base, and the `numbers` it holds (0 at a tied one's second name).

    `is_bare`: held by a module that is no layer, as experts and routers are; only LoRA's target_parameters reach it.
    `is_expert`: a bare stack of matrices, or named after experts.
    """

    name: str
    numbers: int
    is_adapted: bool
    is_bare: bool
    is_expert: bool

    @property
    def layer(self) -> str:
        """The module's name; of a bare parameter its own."""
        return self.name if self.is_bare else self.name.rpartition(".")[0]

    @property
    def kind(self) -> str:
        """What a person calls it: the layer's last name, or the last two of a bare parameter."""
        words = [word for word in self.layer.split(".") if not word.isdigit()]
        return ".".join(words[-2:] if self.is_bare else words[-1:])


@dataclass(frozen=True)
class Coverage:
    """The base's weights, and the names of all parameters of it that an adapter changes: biases and tokens too."""

    weights: list[Weight]
    changed: frozenset[str]

    @property
    def adapted(self) -> list[Weight]:
        """The weights that the adapter changes."""
        return [weight for weight in self.weights if weight.is_adapted]

    @property
    def adapted_numbers(self) -> int:
        """How many numbers they hold."""
        return sum(weight.numbers for weight in self.adapted)

    @property
    def numbers(self) -> int:
        """How many numbers all weights hold."""
        return sum(weight.numbers for weight in self.weights)

    @property
    def layers(self) -> list[Weight]:
        """The weights that are layers of their own."""
        return [weight for weight in self.weights if not weight.is_bare]

    @property
    def bare_left_out(self) -> list[Weight]:
        """The bare parameters that are not adapted."""
        return [weight for weight in self.weights if weight.is_bare and not weight.is_adapted]

    @property
    def experts_left_out(self) -> list[Weight]:
        """The experts among them."""
        return [weight for weight in self.bare_left_out if weight.is_expert]


def kinds(weights: Iterable[Weight]) -> list[str]:
    """What weights are called, each name once, in alphabetical order."""
    return sorted({weight.kind for weight in weights})


def coverage(model: nn.Module, adapter_name: str = "default") -> Coverage:
    """What an adapter changes of the model it is on; of a model without one, what is set to be trained.

    A tied weight counts once, and as adapted where one of its layers is.
    """
    base = base_of(model)
    found = list(_base_parameters(base, "", adapter_name, is_changed=False))
    changed = {name for name, _, parameter, is_changed in found if is_changed or parameter.requires_grad}
    weights: dict[str, Weight] = {}
    seen: set[int] = set()
    for name, module, parameter, _ in sorted(found, key=lambda row: row[0] not in changed):
        if parameter.dim() < 2 or name.endswith("bias"):
            continue
        is_bare = not isinstance(module, LAYERS)
        is_stack = parameter.dim() == 3 and len(parameter) > 1
        numbers = 0 if id(parameter) in seen else _numbers(module, parameter)
        seen.add(id(parameter))
        weights[name] = Weight(name, numbers, name in changed, is_bare, is_bare and (is_stack or "expert" in name))
    tokens = {
        f"{name}.weight (some tokens)" for name, module in base.named_modules() if _has_tokens(module, adapter_name)
    }
    return Coverage([weights[name] for name, *_ in found if name in weights], frozenset(changed | tokens))


def covered_layers(model: nn.Module, adapter_name: str = "default") -> list[dict[str, Any]]:
    """Name, rank, `parameters` and `mixer_parameters` of each adapted layer, in the order of the model."""
    rows = []
    adapted = {name: part for name, part in base_of(model).named_modules() if isinstance(part, BaseTunerLayer)}
    layer: Any
    for name, layer in adapted.items():
        ranks = getattr(layer, "r", {})
        if adapter_name not in ranks:
            continue
        parts = {key: part for key, part in layer.named_parameters() if not key.startswith("base_layer.")}
        own = {key: part.numel() for key, part in parts.items() if f".{adapter_name}" in key}
        mixers = sum(size for key, size in own.items() if "lora_mixer" in key)
        sizes = {"parameters": sum(own.values()), "mixer_parameters": mixers}
        bare = f".{layer.parameter_name}" if isinstance(layer, ParamWrapper) else ""
        rows.append({"name": name.replace(".base_layer", "") + bare, "rank": ranks[adapter_name], **sizes})
    return rows


def _base_parameters(
    module: nn.Module, name: str, adapter: str, *, is_changed: bool
) -> Iterator[tuple[str, nn.Module, nn.Parameter, bool]]:
    """Each parameter of the base: its name there, the base's module that holds it, and whether the adapter changes it.

    Descends through the adapter's layers to what they wrap, and never into their own parts.
    """
    if isinstance(module, AuxiliaryTrainingWrapper):
        is_ours = isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save
        yield from _base_parameters(_wrapped(module), name, adapter, is_changed=is_changed or is_ours)
    elif isinstance(module, BaseTunerLayer):
        target = _target(module) if _carries(module, adapter) else None
        base: Any = module.base_layer
        for found, holder, parameter, is_below in _base_parameters(base, name, adapter, is_changed=is_changed):
            yield found, holder, parameter, is_below or found == f"{name}.{target}"
    else:
        for key, parameter in module.named_parameters(recurse=False):
            yield (f"{name}.{key}" if name else key), module, parameter, is_changed
        for key, child in module.named_children():
            yield from _base_parameters(child, f"{name}.{key}" if name else key, adapter, is_changed=is_changed)


def _wrapped(module: Any) -> nn.Module:
    return module.original_module


def _has_tokens(module: Any, adapter: str) -> bool:
    return isinstance(module, TrainableTokensWrapper) and adapter in module.token_adapter.trainable_tokens_delta


def _carries(layer: Any, adapter: str) -> bool:
    return any(adapter in getattr(layer, part, ()) for part in layer.adapter_layer_names)


def _target(layer: nn.Module) -> str:
    return layer.parameter_name if isinstance(layer, ParamWrapper) else "weight"


def _numbers(module: Any, parameter: torch.Tensor) -> int:
    """The numbers of a weight as they are before quantisation packs them."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return parameter.numel()
