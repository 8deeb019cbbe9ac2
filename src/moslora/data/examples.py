"""Samples that are not chats to training examples: instructions, prompts with completions, and plain text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.fields import FIELDS, NEEDED, fitting_format, is_given, refuse_unread
from moslora.data.prompts import NONE, as_chat, prompt_ids, read_request, response_ids
from moslora.data.reading import Reading
from moslora.data.tasks import text_field
from moslora.data.tokens import IGNORED, Example, check_loss_on, end_token_id
from moslora.errors import DataError

Sample = Mapping[str, Any]


def instruction_examples(
    samples: Sequence[Sample],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt_style: str,
    loss_on: str,
    source: str,
    reading: Reading | None = None,
) -> list[Example]:
    """Prompt, response and end token of each sample, at their whole length.

    Prompt and response are tokenised apart and joined, so evaluation, which knows only the prompt, sees the same ids.
    `loss_on` is `sequence` (the paper) or `response` (prompt tokens carry no label). `reading` says where the samples
    stand; those that it left out have no example.

    Raises DataError naming the place of the sample and the field that is missing or not text.
    """
    check_loss_on(loss_on)
    kept = _checked(samples, _check_instruction, reading or Reading.of(source, len(samples)))
    return _joined(kept, tokenizer, prompt_style=prompt_style, loss_on=loss_on)


def instruction_chats(samples: Sequence[Sample], *, reading: Reading) -> list[dict[str, Any]]:
    """The samples as chats that end with their output: the assistant's earlier turns are read, not learned.

    Those that `reading` left out are empty. Raises DataError as `instruction_examples`.
    """
    kept = _checked(samples, _check_instruction, reading)
    chats: list[dict[str, Any]] = [{} for _ in samples]
    for index, sample in zip(reading.kept(), kept, strict=True):
        turns = as_chat(read_request(sample))
        asked = [turn | {"train": False} if turn["role"] == "assistant" else turn for turn in turns]
        chats[index] = {"messages": [*asked, {"role": "assistant", "content": sample["output"]}]}
    return chats


def completion_examples(
    samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, *, loss_on: str, reading: Reading
) -> list[Example]:
    """As `instruction_examples`, of samples with `prompt` (it may be empty) and `completion`, both as they are."""
    check_loss_on(loss_on)
    kept = _checked(samples, _check_completion, reading)
    as_asked = [{"instruction": sample.get("prompt") or "", "output": sample["completion"]} for sample in kept]
    return _joined(as_asked, tokenizer, prompt_style=NONE, loss_on=loss_on)


def text_examples(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, *, reading: Reading) -> list[Example]:
    """Documents with `text`, each with its end token, at their whole length; every token is learned."""
    kept = _checked(samples, _check_document, reading)
    end = end_token_id(tokenizer)
    all_ids = prompt_ids([{"instruction": sample["text"]} for sample in kept], tokenizer, style=NONE)
    return [{"input_ids": [*ids, end], "labels": [*ids, end]} for ids in all_ids]


def _checked(samples: Sequence[Sample], check: Callable[[Sample, str], None], reading: Reading) -> list[Sample]:
    for index in reading.kept():
        with reading.checking(index) as place:
            check(samples[index], place)
    return [samples[index] for index in reading.kept()]


def _joined(
    samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, *, prompt_style: str, loss_on: str
) -> list[Example]:
    end = end_token_id(tokenizer)
    prompts = prompt_ids(samples, tokenizer, style=prompt_style)
    responses = response_ids([sample["output"] for sample in samples], tokenizer)
    examples: list[Example] = []
    for prompt, ids in zip(prompts, responses, strict=True):
        learned = [*ids, end]
        ignored = [IGNORED] * len(prompt) if loss_on == "response" else prompt
        examples.append({"input_ids": prompt + learned, "labels": ignored + learned})
    return examples


def _check_instruction(sample: Sample, place: str) -> None:
    _check_fields(sample, "instruction", place)
    try:
        read_request(sample)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _check_completion(sample: Sample, place: str) -> None:
    prompt = sample.get("prompt")
    if isinstance(prompt, list):
        raise DataError(f"{place}: field 'prompt' is a list; write chats as 'messages', and set data.format to chat")
    if prompt is not None and not isinstance(prompt, str):
        raise DataError(f"{place}: field 'prompt' is {prompt!r}, expected text; correct the sample")
    _check_fields(sample, "completion", place, may_be_empty="prompt")


def _check_document(sample: Sample, place: str) -> None:
    _check_fields(sample, "text", place)


def _check_fields(sample: Sample, format_name: str, place: str, *, may_be_empty: str | None = None) -> None:
    for field in ("system", "history"):
        if field not in FIELDS[format_name] and is_given(sample.get(field)):
            raise DataError(
                f"{place}: field '{field}' has no place in data.format {format_name}; write it into the text"
                " (to leave it out: data.ignore)"
            )
    refuse_unread(sample, read=FIELDS[format_name], place=place)
    other = fitting_format(sample)
    advice = "add it, or name its column in data.columns"
    if other is not None:
        advice = f"set data.format to {other}, which it fits, or {advice}"
    for field in NEEDED[format_name]:
        if field not in sample or field != may_be_empty:
            text_field(sample, field, place=place, advice=advice)
