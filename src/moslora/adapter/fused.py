"""InternLM2's fused matrix of queries, keys and values, taken apart into the three that Llama's layout has."""

import torch

from moslora.errors import CheckpointError

PARTS = ("q_proj", "k_proj", "v_proj")


def split_rows(fused: torch.Tensor, *, heads: int, groups: int, size: int, name: str) -> dict[str, torch.Tensor]:
    """The rows of each of `PARTS` out of fused ones ((heads + 2 x groups) x size, ...).

    The rows go by group of query heads that share a key head: the group's queries, its key, its value; `size` is that
    of one head. Raises CheckpointError where the number of rows is another.
    """
    queries = heads // groups
    if len(fused) != groups * (queries + 2) * size:
        raise CheckpointError(
            f"{name} has {len(fused)} rows and {heads} heads in {groups} groups of head size {size} need"
            f" {groups * (queries + 2) * size}: get the model again"
        )
    by_head = fused.unflatten(0, (groups, queries + 2, size)).split([queries, 1, 1], dim=1)
    return {part: rows.flatten(0, 2).contiguous() for part, rows in zip(PARTS, by_head, strict=True)}
