"""Asking a model about pictures: the texts it answers with, one a question, chosen greedily."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from moslora.adapter.twin import base_of
from moslora.evaluation.generating import new_ids
from moslora.evaluation.inference import input_device

See = Callable[[list[Image.Image], torch.Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """A question as token ids, in which its pictures have their places, and what opens the pictures."""

    ids: list[int]
    open_pictures: Callable[[], list[Image.Image]]


def answers(
    model: torch.nn.Module,
    processor: Any,
    prompts: Sequence[Prompt],
    *,
    see: See,
    max_new_tokens: int,
    batch_size: int,
    progress: bool,
) -> list[str]:
    """The text that the model answers each prompt with, at most `max_new_tokens` long; its mode is restored.

    `see` turns the pictures of a batch, in the order of its rows, and its padded token ids into what the model reads
    beside these ids. Nothing is sampled, and the model's own generation settings are set aside.
    """
    device, dtype = input_device(model), base_of(model).dtype

    def seen(questions: list[int], padded: torch.Tensor) -> dict[str, Any]:
        found = see([picture for question in questions for picture in prompts[question].open_pictures()], padded)
        return {name: _placed(value, device, dtype) for name, value in found.items()}

    ids = new_ids(
        model,
        processor.tokenizer,
        [prompt.ids for prompt in prompts],
        settings=GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False),
        batch_size=batch_size,
        progress=progress,
        beside=seen,
    )
    return [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)] if ids else []


def _placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A tensor where the model is, pixels in the dtype it computes in."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)
