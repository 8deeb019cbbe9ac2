"""Instruction samples (`instruction`, `input`, `output`, also `system` and `history`) to training examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.fields import FIELDS, refuse_unread
from moslora.data.prompts import prompt_ids, read_request, response_ids
from moslora.data.tasks import text_field
from moslora.data.tokens import IGNORED, Example, check_loss_on, end_token_id
from moslora.errors import DataError

SAMPLE_FIELDS = FIELDS["instruction"]


def instruction_examples(
    samples: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt_style: str,
    loss_on: str,
    source: str,
) -> list[Example]:
    """Prompt, response and end token of each sample, at their whole length.

    Prompt and response are tokenised apart and joined, so evaluation, which knows only the prompt, sees the same ids.
    `loss_on` is `sequence` (the paper) or `response` (prompt tokens carry no label).

    Raises DataError naming `source`, the sample (counted from 1) and the field that is missing or not text.
    """
    check_loss_on(loss_on)
    for number, sample in enumerate(samples, start=1):
        _check_fields(sample, source=source, number=number)
    end = end_token_id(tokenizer)
    prompts = prompt_ids(samples, tokenizer, style=prompt_style)
    responses = response_ids([sample["output"] for sample in samples], tokenizer)
    examples: list[Example] = []
    for prompt, response in zip(prompts, responses, strict=True):
        learned = [*response, end]
        ignored = [IGNORED] * len(prompt) if loss_on == "response" else prompt
        examples.append({"input_ids": prompt + learned, "labels": ignored + learned})
    return examples


def _check_fields(sample: Mapping[str, Any], *, source: str, number: int) -> None:
    place = f"{source}: sample {number}"
    for field in ("instruction", "output"):
        text_field(sample, field, source=source, number=number)
    refuse_unread(sample, read=SAMPLE_FIELDS, place=place)
    try:
        read_request(sample)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
