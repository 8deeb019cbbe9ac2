"""Several short examples in one row, none of which sees another.

Position ids restart at each document; transformers (5.23, `masking_utils`) derives a block-causal mask from them if it
is given no attention mask and no cache. `check_packing` proves that the model at hand does so.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import torch

from moslora.data.tokens import IGNORED, Example, collate
from moslora.errors import ConfigError, DataError

PROBE_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


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
                f"example {index + 1} has {length} tokens, a packed row takes {max_length_tokens}; "
                "set max_length_tokens higher, or cut the examples first"
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


@torch.no_grad()
def check_packing(model: torch.nn.Module) -> None:
    """Check on a probe that the model keeps packed documents apart: their logits equal those of each alone.

    Raises ConfigError if they differ (models with a recurrent state, attention that needs other inputs), naming the
    attention implementation.
    """
    embedding = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    device, vocabulary = embedding.weight.device, embedding.weight.shape[0]
    first, second = ([token % vocabulary for token in tokens] for tokens in ((5, 7, 11, 13, 17), (19, 23, 29, 31)))
    examples = [{"input_ids": ids, "labels": ids} for ids in (first, second)]
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        packed, padded = (
            model(**{k: v.to(device) if torch.is_tensor(v) else v for k, v in collate(rows, pad_token_id=0).items()})
            for rows in ([_joined(examples), _joined(examples[:1])], examples)
        )
    finally:
        for module, training in was_training.items():
            module.training = training
    expected = torch.cat([padded.logits[0, : len(first)], padded.logits[1, : len(second)]]).double()
    difference = (packed.logits[0, : len(expected)].double() - expected).abs().max().item()
    scale = max(expected.abs().max().item(), 1.0)
    tolerance = PROBE_TOLERANCE.get(packed.logits.dtype, 1e-1)
    if not difference <= tolerance * scale:
        implementation = getattr(getattr(model, "config", None), "_attn_implementation", "unknown")
        raise ConfigError(
            f"packing: this model with attention '{implementation}' does not keep packed samples apart "
            f"(logits differ by {difference:.2g}, allowed {tolerance * scale:.2g}); "
            "set data.packing to false, or try model.attn_implementation sdpa or eager"
        )
