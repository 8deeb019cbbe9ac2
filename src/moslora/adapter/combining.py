"""Merging in place and combining adapters: what is refused, and what PEFT leaves behind."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from moslora.adapter.layers import groups_of, mixer_layers, refuse_groups
from moslora.errors import CheckpointError, ConfigError

UNCOMBINED = {
    "use_dora": "uses DoRA, whose magnitudes cannot be combined; merge it instead",
    "use_tucker": "has convolution cores, which cannot be combined; fold it first",
    "lora_bias": "has biases (lora_bias), which would be lost; merge it instead",
    "trainable_token_indices": "has trained tokens, which would be lost; merge it instead",
}


def check_mergeable(model: nn.Module, adapters: Sequence[str]) -> None:
    """Raise, before anything is changed, where merging these adapters in place cannot be right.

    UnsupportedLayerError for a grouped convolution; CheckpointError where another layer has the base weight too.
    """
    adapted = {name: layer for name, layer in mixer_layers(model).items() if not layer.r.keys().isdisjoint(adapters)}
    for name, layer in adapted.items():
        refuse_groups(layer, name=name)
    owners = {layer.base_layer._parameters.get("weight"): f"{name}.base_layer" for name, layer in adapted.items()}
    for name, module in model.named_modules(remove_duplicate=False):  # a module may stand in two places
        weight = module._parameters.get("weight")
        owner = name if weight is None else owners.get(weight, name)
        if owner != name:
            raise CheckpointError(
                f"{owner.removesuffix('.base_layer')} shares its weight with {name.removesuffix('.base_layer')}, so"
                " merging in place would change both; merge with moslora.save_merged, which separates them"
            )


def check_combinable(model: nn.Module, configs: Mapping[str, Any]) -> None:
    """Raise ConfigError for adapters with something that a weighted combination would lose."""
    is_saving = [bool(getattr(config, "modules_to_save", None)) for config in configs.values()]
    if any(is_saving) and not is_saving[0]:
        owner = list(configs)[is_saving.index(True)]
        raise ConfigError(f"adapter '{owner}' has modules_to_save, which would be lost: name this adapter first")
    for adapter, config in configs.items():
        for option, reason in UNCOMBINED.items():
            if getattr(config, option, None):
                raise ConfigError(f"adapter '{adapter}' {reason}")
    for name, layer in mixer_layers(model).items():
        if groups_of(layer) > 1 and not layer.r.keys().isdisjoint(configs):
            raise ConfigError(
                f"{name} is a convolution with groups={groups_of(layer)}, whose factors cannot be combined: each group"
                " of B reads its own rows of A; fold the adapters one by one"
            )


def carry_saved_modules(model: nn.Module, adapters: Sequence[str], combined: str) -> None:
    """Give the combined adapter the `modules_to_save` of the one adapter that has them; PEFT copies the base's."""
    for wrapper in model.modules():
        if isinstance(wrapper, ModulesToSaveWrapper) and combined in wrapper.modules_to_save:
            for owner in adapters:
                if owner in wrapper.modules_to_save:
                    wrapper.modules_to_save[combined].load_state_dict(wrapper.modules_to_save[owner].state_dict())


def pad_to_rank(model: nn.Module, combined: str) -> None:
    """Fill the combined adapter's factors with zeros to its rank: an SVD gives no more than the layer's size."""
    for layer in mixer_layers(model).values():
        if combined in layer.r:
            a, b = layer.factors(combined)
            missing = layer.r[combined] - a.shape[0]
            a.data = torch.cat([a.data, a.new_zeros(missing, *a.shape[1:])])
            b.data = torch.cat([b.data, b.new_zeros(b.shape[0], missing, *b.shape[2:])], dim=1)
