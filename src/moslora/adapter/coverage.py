"""Which layers carry an adapter of any PEFT method, and how large it is there."""

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from moslora.adapter.twin import base_of


def covered_layers(model: nn.Module, adapter_name: str = "default") -> list[dict[str, Any]]:
    """Name, rank, `parameters` and `mixer_parameters` of each adapted layer, in the order of the model."""
    rows = []
    adapted = {name: part for name, part in base_of(model).named_modules() if isinstance(part, BaseTunerLayer)}
    layer: Any
    for name, layer in adapted.items():
        ranks = getattr(layer, "r", {})
        if adapter_name not in ranks:
            continue
        own = {key: part.numel() for key, part in layer.named_parameters() if f".{adapter_name}" in key}
        mixers = sum(size for key, size in own.items() if "lora_mixer" in key)
        sizes = {"parameters": sum(own.values()), "mixer_parameters": mixers}
        rows.append({"name": name, "rank": ranks[adapter_name], **sizes})
    return rows
