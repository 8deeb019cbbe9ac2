"""Asking a model about pictures: the texts it answers with, one a question, chosen greedily."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from moslora.adapter.twin import base_of
from moslora.data.probing import sees_left_padding
from moslora.data.tokens import pad_token_id
from moslora.evaluation.inference import (
    end_token_ids,
    evaluation_mode,
    generation_defaults,
    input_device,
    left_padded,
    length_batches,
)
from moslora.launch import gathered

Pixels = Callable[[list[Image.Image]], dict[str, Any]]


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
    pixels: Pixels,
    max_new_tokens: int,
    batch_size: int,
    progress: bool,
) -> list[str]:
    """The text that the model answers each prompt with, at most `max_new_tokens` long; its mode is restored.

    `pixels` turns the pictures of a batch, in the order of its rows, into what the model reads of them. Nothing is
    sampled, and the model's own generation settings are set aside.
    """
    tokenizer, base = processor.tokenizer, base_of(model)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=end_token_ids(model, tokenizer),
        pad_token_id=pad_token_id(tokenizer),
    )
    found: list[tuple[int, str]] = []
    device, dtype = input_device(model), base.dtype
    with evaluation_mode(model), generation_defaults(model):
        is_padded = not sees_left_padding(model)
        for batch in length_batches(
            list(enumerate(prompts)),
            batch_size,
            length=lambda row: len(row[1].ids),
            progress=progress,
            is_padded=is_padded,
        ):
            inputs = left_padded([row.ids for _, row in batch], pad=pad_token_id(tokenizer), device=device)
            seen = pixels([picture for _, row in batch for picture in row.open_pictures()])
            output: Any = base.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                generation_config=settings,
                **{name: _placed(value, device, dtype) for name, value in seen.items()},
            )
            new_ids = output[:, inputs.input_ids.shape[1] :]
            texts = tokenizer.batch_decode(new_ids, skip_special_tokens=True)
            found += [(index, text.strip()) for (index, _), text in zip(batch, texts, strict=True)]
    return [text for _, text in sorted(gathered(found))]


def _placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A tensor where the model is, pixels in the dtype it computes in."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)
