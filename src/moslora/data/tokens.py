"""What training examples are: token ids with labels, cut to a length, and padded into batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from moslora.errors import DataError, unknown_name

Example = dict[str, list[int]]  # input_ids, labels; packed ones also position_ids
LossOn = Literal["sequence", "response"]

LOSS_ON = ("sequence", "response")
NOTHING_LEARNED = "has no token to learn from; set data.loss_on to sequence, or take it out"
IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Examples:
    """Tokenised examples, which of those given each is made of, and how many of these were too long to stay whole."""

    examples: list[Example]
    kept: list[int]
    truncated: int


def cut_examples(
    full: Sequence[Example],
    *,
    max_length_tokens: int,
    source: str,
    longer: str = "cut",
    places: Sequence[str] | None = None,
) -> Examples:
    """The examples, each of at most `max_length_tokens` tokens; `places` say where they stand in the source.

    `longer` says what becomes of a longer one: `cut` to its first tokens, `leave_out`, or `stop`. Raises DataError for
    that, if the set is empty or none is left, or if an example is without any token to learn from.
    """
    if not full:
        raise DataError(f"{source}: no samples; give at least one")
    named = places or [f"{source}: sample {number}" for number in range(1, len(full) + 1)]
    lengths = [len(example["input_ids"]) for example in full]
    over = [index for index, length in enumerate(lengths) if length > max_length_tokens]
    if longer == "stop" and over:
        raise DataError(
            f"{named[over[0]]} has {lengths[over[0]]} tokens, more than data.max_length_tokens {max_length_tokens}"
            f" ({_samples(len(over))} longer, the longest has {max(lengths)}); set it to {max(lengths)}, or data.longer"
            " to cut or leave_out"
        )
    kept = [index for index, length in enumerate(lengths) if length <= max_length_tokens or longer != "leave_out"]
    if not kept:
        raise DataError(
            f"{source}: data.longer leave_out leaves no samples: none has {max_length_tokens} tokens or fewer; "
            f"set data.max_length_tokens to {min(lengths)} or more"
        )
    cut = {index: {name: values[:max_length_tokens] for name, values in full[index].items()} for index in kept}
    lost = [index for index, example in cut.items() if not is_learned(example)]
    if lost:
        longest = max(lengths[index] for index in lost)
        if longest <= max_length_tokens:
            raise DataError(f"{named[lost[0]]} {NOTHING_LEARNED}")
        without = ", or data.longer to leave_out" if len(over) < len(full) else ""
        raise DataError(
            f"{named[lost[0]]} has {lengths[lost[0]]} tokens and none to learn from among "
            f"its first {max_length_tokens} ({_samples(len(lost))} like that, the longest has {longest}); "
            f"set data.max_length_tokens to {longest}{without}"
        )
    return Examples([*cut.values()], kept, truncated=len({*over} & {*kept}))


def divide_examples(full: Sequence[Example], *, max_length_tokens: int) -> Examples:
    """The examples, longer ones in pieces of at most `max_length_tokens` tokens.

    A piece starts with the last token of the one before, which it only reads: so every token but the very first is
    learned once, as in the whole.
    """
    step = max_length_tokens - 1
    starts = [range(0, max(1, len(example["input_ids"]) - 1), step) for example in full]
    pieces = [
        {name: values[start : start + max_length_tokens] for name, values in example.items()}
        for example, own in zip(full, starts, strict=True)
        for start in own
    ]
    kept = [index for index, own in enumerate(starts) for _ in own]
    return Examples(pieces, kept, truncated=sum(len(own) > 1 for own in starts))


def is_learned(example: Example) -> bool:
    """Whether any token carries loss; the first has no predecessor, so the model never learns it."""
    return any(label != IGNORED for label in example["labels"][1:])


def collate(
    examples: Sequence[Example], *, pad_token_id: int, pad_to_multiple_of: int | None = None, at_end: bool = False
) -> dict[str, Any]:
    """A batch of int64 tensors of shape (examples, longest example), padded on the right; padding has no label.

    Plain examples get an `attention_mask`. Packed ones get `position_ids` instead, whose restarts tell the model where
    a document starts (padding is a document of its own), and `use_cache=False`, without which transformers overlooks
    the restarts.

    With `at_end`, plain examples whose labels all lie near their ends are padded on the left, and the model is asked
    for the logits there only (`logits_to_keep`), which is the same loss for less work.
    """
    if not examples:
        raise ValueError("a batch has at least one example")
    longest = max(len(example["input_ids"]) for example in examples)
    step = pad_to_multiple_of or 1
    width = -(-longest // step) * step
    is_packed = "position_ids" in examples[0]
    kept = width if is_packed or not at_end else max(_needed_logits(example) for example in examples)
    is_left = kept < width

    def padded(name: str, fill: int) -> torch.Tensor:
        rows = [(example[name], [fill] * (width - len(example[name]))) for example in examples]
        return torch.tensor([padding + row if is_left else row + padding for row, padding in rows])

    batch: dict[str, Any] = {"input_ids": padded("input_ids", pad_token_id), "labels": padded("labels", IGNORED)}
    if is_packed:
        rows = [example["position_ids"] for example in examples]
        batch["position_ids"] = torch.tensor([row + list(range(width - len(row))) for row in rows])
        batch["use_cache"] = False
        return batch
    lengths = torch.tensor([[len(example["input_ids"])] for example in examples])
    positions = torch.arange(width)
    batch["attention_mask"] = (positions >= width - lengths if is_left else positions < lengths).long()
    if is_left:
        batch["position_ids"] = (positions - (width - lengths)).clamp(min=0)
        batch["labels"], batch["logits_to_keep"] = batch["labels"][:, -kept:], kept
    return batch


def _needed_logits(example: Example) -> int:
    """How many positions from the end on predict something: those from the one before the first label."""
    labels = example["labels"]
    first = next((index for index, label in enumerate(labels) if index and label != IGNORED), len(labels))
    return len(labels) - first + 1


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills up a batch: the tokenizer's padding token, else its end token (masked either way)."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    return end_token_id(tokenizer)


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a text.

    Raises DataError if the tokenizer has none: a model trained without it would never stop.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise DataError("the tokenizer has no end token; set its eos_token, or use a tokenizer that has one")
    return int(end)  # pyright: ignore[reportArgumentType]


def check_loss_on(loss_on: str) -> None:
    """Raises ConfigError if `loss_on` is neither `sequence` nor `response`."""
    if loss_on not in LOSS_ON:
        raise unknown_name("loss_on", loss_on, LOSS_ON)


def _samples(count: int) -> str:
    return "1 sample is" if count == 1 else f"{count} samples are"
