"""The tokens that all prompts start with, such as a template's header: run once, their keys and values lent to batches.

Causal attention makes the keys and values of a prefix the same whatever follows it, so this saves work and changes
nothing but the rounding.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from moslora.adapter.twin import accepts
from moslora.evaluation.inference import input_device

SHORTEST = 8  # tokens; sharing fewer saves less than a further forward pass costs


@dataclass(frozen=True)
class SharedPrefix:
    """The first `length` tokens of every prompt as a cache of one row; no cache and length 0 if nothing is shared."""

    length: int = 0
    cache: DynamicCache | None = None

    def as_arguments(self, model: torch.nn.Module, *, rows: int) -> dict[str, Any]:
        """The arguments of a forward pass over what follows the prefix in so many rows."""
        if self.cache is None:
            return {"use_cache": False} if accepts(model, "use_cache") else {}
        own = copy.deepcopy(self.cache)  # the forward pass appends to it
        own.batch_repeat_interleave(rows)
        return {"past_key_values": own, "use_cache": True}


def shared_prefix(model: torch.nn.Module, prompts: Sequence[list[int]]) -> SharedPrefix:
    """What the prompts share, at most all of a prompt but its last token, run through the model (call without grad).

    Nothing is shared by a single prompt, below `SHORTEST` tokens, or by a model whose layers do not all keep the keys
    and values of every token (sliding windows, recurrent states, caches of its own).
    """
    first, last = min(prompts), max(prompts)  # in dictionary order, so all the others lie between
    pairs = zip(first[:-1], last[:-1], strict=False)
    length = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)) - 1)
    has_cache = accepts(model, "past_key_values") and accepts(model, "use_cache")
    if len(prompts) < 2 or length < SHORTEST or not has_cache:
        return SharedPrefix()
    options = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
    ids = torch.tensor([first[:length]], device=input_device(model))
    cache = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **options).past_key_values
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return SharedPrefix()
    return SharedPrefix(length, cache)
