"""The texts that a language model answers prompts with, without sampling, and the checks that go before."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from moslora.adapter.twin import base_of
from moslora.data.probing import sees_left_padding
from moslora.data.tokens import pad_token_id
from moslora.data.vocabulary import Vocabulary
from moslora.errors import DataError
from moslora.evaluation.inference import (
    end_token_ids,
    evaluation_mode,
    generation_defaults,
    input_device,
    left_padded,
    length_batches,
)
from moslora.launch import gathered


def generated_texts(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    num_beams: int,
    max_new_tokens: int,
    batch_size: int,
    progress: bool,
) -> list[str]:
    """The new text after each prompt, by beam search, or greedily with one beam; in the prompts' order.

    The model's own generation settings (penalties, sampling) are left out. Its mode is restored.

    Raises DataError for a prompt that is longer than the model's positions, or has tokens that it lacks.
    """
    settings = GenerationConfig(num_beams=num_beams, max_new_tokens=max_new_tokens, do_sample=False)
    ids = generated_ids(model, tokenizer, prompts, settings=settings, batch_size=batch_size, progress=progress)
    return tokenizer.batch_decode(ids, skip_special_tokens=True) if ids else []


def generated_ids(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    settings: GenerationConfig,
    batch_size: int,
    progress: bool,
    title: str = "evaluating",
) -> list[list[int]]:
    """The new tokens after each prompt, up to and with the one that ends the answer; in the prompts' order.

    `settings` say how tokens are chosen; the model's own settings are left out. `title` stands beside the progress.
    Otherwise as `generated_texts`.
    """
    check_tokens(model, tokenizer, prompts)
    lengths = [len(ids) + int(settings.max_new_tokens or 0) for ids in prompts]
    check_positions(model, lengths, range(len(prompts)))
    return new_ids(model, tokenizer, prompts, settings=settings, batch_size=batch_size, progress=progress, title=title)


def new_ids(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    settings: GenerationConfig,
    batch_size: int,
    progress: bool,
    title: str = "evaluating",
    beside: Callable[[list[int], torch.Tensor], Mapping[str, Any]] | None = None,
) -> list[list[int]]:
    """As `generated_ids`, without its checks.

    `beside` gives what the model reads beside the prompts of these numbers, such as their pictures, and their padded
    token ids.
    """
    ends, pad = end_token_ids(model, tokenizer), pad_token_id(tokenizer)
    settings.eos_token_id, settings.pad_token_id = ends, pad
    found: list[tuple[int, list[int]]] = []
    with evaluation_mode(model), generation_defaults(model):
        for batch in length_batches(
            list(enumerate(prompts)),
            batch_size,
            length=lambda row: len(row[1]),
            progress=progress,
            is_padded=len(prompts) > 1 and not sees_left_padding(model),
            title=title,
        ):
            inputs = left_padded([ids for _, ids in batch], pad=pad, device=input_device(model))
            output: Any = base_of(model).generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                generation_config=settings,
                **(beside([index for index, _ in batch], inputs.input_ids) if beside else {}),
            )
            for (index, _), row in zip(batch, output[:, inputs.input_ids.shape[1] :].tolist(), strict=True):
                end = next((place for place, token in enumerate(row) if token in ends), len(row))
                found.append((index, row[: end + 1]))
    return [row for _, row in sorted(gathered(found))]


def check_tokens(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse prompts with tokens that the model lacks. Raises DataError."""
    vocabulary = Vocabulary.of(tokenizer, model)
    vocabulary.check_padding()
    vocabulary.check(prompts, place="question")


def check_positions(model: torch.nn.Module, lengths: Sequence[int], questions: Sequence[int]) -> None:
    """Refuse questions, by their numbers from 0, that need more tokens than the model has positions.

    Raises DataError.
    """
    limit = positions_of(model)
    if limit is None:
        return
    for length, question in zip(lengths, questions, strict=True):
        if length > limit:
            raise DataError(
                f"question {question + 1} needs {length} tokens with its answer, the model has {limit} positions; "
                "leave it out or use a model with more"
            )


def positions_of(model: torch.nn.Module) -> int | None:
    """How many tokens a text of the model has at most, where it says so."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None
