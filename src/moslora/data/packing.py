"""Several short examples in one row, none of which sees another.

Position ids restart at each document; transformers (5.23, `masking_utils`) derives a block-causal mask from them if it
is given no attention mask and no cache. `check_packing` proves that the model at hand does so.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import torch

from moslora.adapter.twin import accepts
from moslora.data.probing import computing_in, find_leak, is_castable, left_padded_inputs, logits, probing
from moslora.data.tokens import IGNORED, Example, collate
from moslora.errors import ConfigError, DataError

PLAIN = ("eager", "sdpa")  # attention that is given its mask by transformers
DOCUMENTS = ([5, 7, 11, 13, 17], [19, 23, 29, 31])  # of the probe; token ids, modulo the vocabulary


def pack(examples: Sequence[Example], *, max_length_tokens: int) -> list[Example]:
    """The examples joined into rows of at most `max_length_tokens` tokens, with `position_ids` restarting at each.

    Longest first, each into the fullest row that still takes it; the order is a function of the lengths alone. The
    first token of each example carries no label: nothing before it in the row predicts it.

    Raises DataError if an example is longer than a row.
    """
    rows: dict[int, list[list[int]]] = {}  # free tokens -> rows (lists of example numbers) with that much room
    free_sizes: list[int] = []  # the keys of `rows`, sorted
    for index in sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"])):
        length = len(examples[index]["input_ids"])
        if length > max_length_tokens:
            raise DataError(
                f"example {index + 1} has {length} tokens, a packed row holds {max_length_tokens}; "
                "raise data.max_length_tokens, or shorten the examples"
            )
        place = bisect_left(free_sizes, length)
        free = free_sizes[place] if place < len(free_sizes) else max_length_tokens
        row = _taken(rows, free_sizes, free) if place < len(free_sizes) else []
        row.append(index)
        _put(rows, free_sizes, row, free=free - length)
    return [_joined([examples[i] for i in row]) for free in free_sizes for row in rows[free]]


def _taken(rows: dict[int, list[list[int]]], free_sizes: list[int], free: int) -> list[int]:
    row = rows[free].pop()
    if not rows[free]:
        del rows[free]
        free_sizes.remove(free)
    return row


def _put(rows: dict[int, list[list[int]]], free_sizes: list[int], row: list[int], *, free: int) -> None:
    if free not in rows:
        rows[free] = []
        insort(free_sizes, free)
    rows[free].append(row)


def _joined(examples: Sequence[Example]) -> Example:
    packed: Example = {"input_ids": [], "labels": [], "position_ids": []}
    for example in examples:
        packed["input_ids"] += example["input_ids"]
        packed["labels"] += [IGNORED, *example["labels"][1:]]
        packed["position_ids"] += range(len(example["input_ids"]))
    return packed


def check_packing(model: torch.nn.Module) -> None:
    """Check on a probe that the model keeps packed documents apart.

    In float32 (in the weights' own dtype where they cannot be cast), a change of one document must leave every bit of
    the other's logits, and each must have the logits that it has alone, to rounding. Raises ConfigError if not (models
    with a recurrent state or without position ids, attention that needs other inputs), naming the attention.
    """
    if not accepts(model, "position_ids"):
        raise _not_apart(model, "it takes no position ids, which would tell them apart")
    with probing(model):
        for changed, kept in ((slice(0, 5), slice(5, 9)), (slice(5, 9), slice(0, 5))):
            if leak := find_leak(model, _probe(), _probe(changed=changed), at=kept, dtype=torch.float32):
                raise _not_apart(model, f"a change in one changes another's logits by {leak:.2g}")
        with computing_in(model, torch.float32):
            packed = logits(model, _probe())[5:].double()
            alone = logits(model, left_padded_inputs(model, DOCUMENTS[1], padding=[])).double()
    difference, largest = (packed - alone).abs().max().item(), max(1.0, alone.abs().max().item())
    if not difference <= largest * (1e-3 if is_castable(model) else 1e-1):
        raise _not_apart(model, f"logits differ from those of a sample alone by {difference:.2g}")


def _probe(*, changed: slice | None = None) -> dict[str, Any]:
    """Two documents packed into a row, with other tokens at the changed places."""
    inputs = collate([_joined([{"input_ids": ids, "labels": ids} for ids in DOCUMENTS])], pad_token_id=0)
    del inputs["labels"]
    if changed is not None:
        inputs["input_ids"][:, changed] += 1
    return inputs


def _not_apart(model: torch.nn.Module, reason: str) -> ConfigError:
    implementation = getattr(getattr(model, "config", None), "_attn_implementation", "unknown")
    or_try = "" if implementation in PLAIN else ", or try model.attn_implementation sdpa"
    return ConfigError(
        f"packing: this model with attention '{implementation}' does not keep packed samples apart ({reason});"
        f" set data.packing to false{or_try}"
    )
