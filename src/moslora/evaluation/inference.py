"""Running a model on rows of tokens: evaluation mode, left padding, batches of like length with a progress bar."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import GenerationConfig

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
        with torch.no_grad():
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


@dataclass(frozen=True)
class LeftPadded:
    """Rows that end at the same column: `input_ids` and `attention_mask` of shape (rows, longest row), int64."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor

    def as_arguments(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The arguments of the model's forward pass; positions count from each row's first token."""
        arguments = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if accepts(model, "position_ids"):
            arguments["position_ids"] = (self.attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        return arguments


def left_padded(rows: Sequence[Sequence[int]], *, pad: int, device: torch.device) -> LeftPadded:
    """The rows as tensors, filled up with `pad` on the left and masked there."""
    width = max(len(row) for row in rows)
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return LeftPadded(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def length_batches(
    rows: Sequence[RowT], batch_size: int, *, length: Callable[[RowT], int], progress: bool
) -> Iterator[list[RowT]]:
    """Batches of rows of like length, the longest first so that running out of memory shows at once.

    `progress` shows a bar on stderr.
    """
    assert batch_size > 0, f"batch size {batch_size}"
    ordered = sorted(rows, key=length, reverse=True)
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        counter = bar.add_task("evaluating", total=len(ordered))
        for start in range(0, len(ordered), batch_size):
            batch = ordered[start : start + batch_size]
            yield batch
            bar.advance(counter, len(batch))


def input_device(model: torch.nn.Module) -> torch.device:
    """Where the model wants its token ids: the device of its input embeddings (the CPU if they are offloaded)."""
    embeddings: Any = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    device = embeddings.weight.device
    return torch.device("cpu") if device.type == "meta" else device


def accepts(model: torch.nn.Module, argument: str) -> bool:
    """Whether the model's forward pass, beneath an adapter if there is one, names this argument."""
    return argument in inspect.signature(base_model(model).forward).parameters


def base_model(model: torch.nn.Module) -> Any:
    """The transformers model beneath PEFT's wrapper, adapter layers included, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]


@contextmanager
def generation_defaults(model: torch.nn.Module) -> Iterator[None]:
    """The model's own generation settings set aside inside: transformers fills every setting not given with them."""
    inner = base_model(model)
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own
