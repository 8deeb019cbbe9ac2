"""Running a model on rows of tokens: evaluation mode, left padding, batches of like length with a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import GenerationConfig, PreTrainedTokenizerBase

from moslora.adapter.head import contiguous_head_input
from moslora.adapter.twin import accepts, base_of
from moslora.data.tokens import end_token_id
from moslora.errors import ConfigError
from moslora.launch import own_share

RowT = TypeVar("RowT")


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout and gradients off inside; afterwards every module is in the mode it had.

    It uses no_grad, not inference_mode: what a module keeps from such a forward pass becomes an inference tensor,
    which no later training step may use (bitsandbytes 0.50 keeps repacked 4-bit weights on the CPU).
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), contiguous_head_input(model):
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


@dataclass(frozen=True)
class LeftPadded:
    """Rows that end at the same column: `input_ids` of shape (rows, longest row), int64.

    `attention_mask` has the same shape, with the columns of a shared prefix before it.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor

    def as_arguments(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The arguments of the model's forward pass; positions count from each row's first token."""
        arguments = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if accepts(model, "position_ids"):
            positions = (self.attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -self.input_ids.shape[1] :]
        return arguments


def left_padded(rows: Sequence[Sequence[int]], *, pad: int, device: torch.device, prefix_length: int = 0) -> LeftPadded:
    """The rows as tensors, filled up with `pad` on the left and masked there.

    `prefix_length` counts the tokens before the padding whose keys and values the model is given.
    """
    width = max(len(row) for row in rows)
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[1] * prefix_length + [0] * (width - len(row)) + [1] * len(row) for row in rows]
    return LeftPadded(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def length_batches(
    rows: Sequence[RowT],
    batch_size: int,
    *,
    length: Callable[[RowT], int],
    progress: bool,
    most_tokens: int | None = None,
    is_padded: bool = True,
    title: str = "evaluating",
) -> Iterator[list[RowT]]:
    """Batches of rows of like length, the longest first so that running out of memory shows at once.

    Of several processes each gets batches of other rows, as many and as long as the others': what it finds for them is
    to be shared (`moslora.launch.gathered`).
    `most_tokens` makes batches smaller whose padded rows have more, down to one row. Without `is_padded` the rows of a
    batch are of one length, for models that see padding. `progress` shows a bar on stderr, with a title.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: give a whole number of at least 1")
    ordered = own_share(sorted(rows, key=length, reverse=True))
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        counter = bar.add_task(title, total=len(ordered))
        start = 0
        while start < len(ordered):
            size = min(batch_size, max(1, most_tokens // length(ordered[start]))) if most_tokens else batch_size
            batch = ordered[start : start + size]
            if not is_padded:
                batch = [row for row in batch if length(row) == length(batch[0])]
            yield batch
            bar.advance(counter, len(batch))
            start += len(batch)


def input_device(model: torch.nn.Module) -> torch.device:
    """Where the model wants its token ids: the device of its input embeddings (the CPU if they are offloaded)."""
    embeddings: Any = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    device = embeddings.weight.device
    return torch.device("cpu") if device.type == "meta" else device


def end_token_ids(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What ends an answer: the tokenizer's end token, and the model's own ones (a chat model has several)."""
    own = getattr(base_of(model).generation_config, "eos_token_id", None)
    return sorted({end_token_id(tokenizer), *(own if isinstance(own, list) else [] if own is None else [own])})


@contextmanager
def generation_defaults(model: torch.nn.Module) -> Iterator[None]:
    """The model's own generation settings set aside inside: transformers fills every setting not given with them."""
    inner = base_of(model)
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own
