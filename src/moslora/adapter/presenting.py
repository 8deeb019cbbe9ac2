"""Presenting an adapter as plain LoRA for the parts of PEFT that read A and B and know no mixer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from moslora.core.folding import fold_into_a


@contextmanager
def folded_factors(layer: Any, adapters: Iterable[str]) -> Iterator[None]:
    """Within the block, the layer's A holds M·A and its mixer the identity, so the adapter's function is unchanged."""
    saved = []
    for adapter in adapters:
        if adapter not in layer.lora_mixer:
            continue
        a, _ = layer.factors(adapter)
        weight = layer.lora_mixer[adapter].weight
        saved.append((a, a.data, weight, weight.data))
        if a.is_meta:
            continue
        a.data = fold_into_a(a, layer.mixer_matrix(adapter))
        weight.data = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device).expand_as(weight).clone()
    try:
        yield
    finally:
        for a, a_data, weight, weight_data in saved:
            a.data, weight.data = a_data, weight_data
