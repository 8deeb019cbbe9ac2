"""InternLM2's layout against Llama's: other names, and one fused matrix of queries, keys and values."""

import re

import torch

from moslora.errors import CheckpointError

FUSED, PARTS = "attention.wqkv", ("q_proj", "k_proj", "v_proj")
LAYER = re.compile(r"^model\.layers\.(?P<number>\d+)\.(?P<name>.+)$")
LAYER_NAMES = {  # InternLM2's: Llama's
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def llama_names(module: str) -> list[str]:
    """The modules of Llama's layout for one within InternLM2's layers: one, or the three of `PARTS`; else none."""
    match = LAYER.match(module)
    if match is None:
        return []
    place = f"model.layers.{match['number']}"
    if match["name"] == FUSED:
        return [f"{place}.self_attn.{part}" for part in PARTS]
    return [f"{place}.{LAYER_NAMES[match['name']]}"] if match["name"] in LAYER_NAMES else []


def split_rows(fused: torch.Tensor, *, heads: int, groups: int, size: int, name: str) -> dict[str, torch.Tensor]:
    """The rows of each of `PARTS` out of fused ones ((heads + 2 x groups) x size, ...).

    The rows go by group of query heads that share a key head: the group's queries, its key, its value; `size` is that
    of one head. Raises CheckpointError where the number of rows is another.
    """
    queries = heads // groups
    if len(fused) != groups * (queries + 2) * size:
        raise CheckpointError(
            f"{name} has {len(fused)} rows and {heads} heads in {groups} groups of head size {size} need"
            f" {groups * (queries + 2) * size}: get a fresh copy of the model"
        )
    by_head = fused.unflatten(0, (groups, queries + 2, size)).split([queries, 1, 1], dim=1)
    return {part: rows.flatten(0, 2).contiguous() for part, rows in zip(PARTS, by_head, strict=True)}
