"""Whether an adapter has its tensors yet: one that was added to be loaded computes nothing before they are there.

Until then another variant stands in each of its layers, and refuses. Afterwards nothing is left of it: no hook, no
check in the forward pass.
"""

from typing import Any, NoReturn

from peft.tuners.lora.layer import LoraVariant
from torch import nn

from moslora.adapter.layers import MixerLayer
from moslora.errors import CheckpointError


class Unfilled(LoraVariant):
    """Stands in a layer for an adapter's own variant and refuses to compute."""

    def __init__(self, variant: LoraVariant) -> None:
        self.variant = variant

    def supports_lora_conversion(self) -> bool:
        """As the adapter's own variant."""
        return self.variant.supports_lora_conversion()

    def _refuse(self, _layer: Any, active_adapter: str, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise CheckpointError(
            f"adapter '{active_adapter}' was added to be loaded from a file, and its tensors are missing: load its"
            " file, delete it, or, to start afresh from a saved configuration, set that configuration's"
            " base_model_config to None"
        )

    forward = merge_safe = merge_unsafe = unmerge = _refuse  # pyright: ignore[reportAssignmentType]


def mark_unfilled(model: nn.Module, adapter_name: str) -> None:
    """Make the adapter refuse to compute until `mark_filled`."""
    for variants in _variants(model, adapter_name):
        if not isinstance(variants[adapter_name], Unfilled):
            variants[adapter_name] = Unfilled(variants[adapter_name])


def mark_filled(model: nn.Module, adapter_name: str) -> None:
    """Let the adapter compute."""
    for variants in _variants(model, adapter_name):
        variant = variants[adapter_name]
        if isinstance(variant, Unfilled):
            variants[adapter_name] = variant.variant


def require_filled(model: nn.Module, adapter_name: str) -> None:
    """Raise CheckpointError for an adapter that has not its tensors yet."""
    for variants in _variants(model, adapter_name):
        variant = variants[adapter_name]
        if isinstance(variant, Unfilled):
            variant._refuse(None, adapter_name)


def _variants(model: nn.Module, adapter_name: str) -> list[dict[str, LoraVariant]]:
    layers = [module for module in model.modules() if isinstance(module, MixerLayer)]
    return [layer.lora_variant for layer in layers if adapter_name in layer.lora_variant]
