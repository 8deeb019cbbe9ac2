"""Chats (lists of messages) to training examples through the tokenizer's own chat template."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from moslora.data.tokens import IGNORED, Example, check_loss_on
from moslora.errors import DataError

Message = dict[str, str]

ROLES = ("system", "user", "assistant", "tool")
_FROM_ROLES = {"human": "user", "gpt": "assistant"}  # the names that `conversations` data use
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\b")


def chat_examples(
    samples: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    loss_on: str,
    source: str,
) -> list[Example]:
    """The rendered chats as token ids, at their whole length.

    A sample is `{"messages": [{"role", "content"}, …]}` or `{"conversations": [{"from", "value"}, …]}`. With `loss_on`
    `response` only the assistant's turns carry labels, each to its end token inclusive; with `sequence` every token.

    Raises DataError naming `source`, the sample (counted from 1), the message and the field at fault; if the tokenizer
    has no chat template, or one whose assistant turns cannot be told from the rest.
    """
    check_loss_on(loss_on)
    if not tokenizer.chat_template:
        raise DataError(
            f"{source}: the tokenizer has no chat template; set data.format to instruction, or use a model that has one"
        )
    examples: list[Example] = []
    for number, sample in enumerate(samples, start=1):
        place = f"{source}: sample {number}"
        examples.append(_chat_example(_messages(sample, place), tokenizer, loss_on=loss_on, place=place))
    return examples


def _messages(sample: Mapping[str, Any], place: str) -> list[Message]:
    if "messages" in sample:
        field, role_key, text_key = "messages", "role", "content"
    elif "conversations" in sample:
        field, role_key, text_key = "conversations", "from", "value"
    else:
        has = ", ".join(map(str, sample)) or "none"
        raise DataError(f"{place}: field 'messages' is missing (it has: {has}); add it, or set data.format otherwise")
    rows = sample[field]
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{place}: field '{field}' is {rows!r}, expected a list of messages; correct the sample")
    keys = (role_key, text_key)
    messages = [_message(row, keys, place=f"{place}: message {number}") for number, row in enumerate(rows, start=1)]
    if all(message["role"] != "assistant" for message in messages):
        raise DataError(f"{place}: no message of the assistant, so nothing to learn; leave the sample out")
    return messages


def _message(row: Any, keys: tuple[str, str], *, place: str) -> Message:
    if not isinstance(row, Mapping):
        raise DataError(f"{place} is {row!r}, expected an object with '{keys[0]}' and '{keys[1]}'; correct the sample")
    for key in keys:
        if key not in row:
            has = ", ".join(map(str, row)) or "none"
            raise DataError(f"{place}: field '{key}' is missing (it has: {has}); correct the sample")
        if not isinstance(row[key], str):
            raise DataError(f"{place}: field '{key}' is {row[key]!r}, expected text; correct the sample")
    role = _FROM_ROLES.get(row[keys[0]], row[keys[0]])
    if role not in ROLES:
        allowed = ", ".join([*ROLES, *_FROM_ROLES])
        raise DataError(f"{place}: field '{keys[0]}' is '{role}' (allowed: {allowed}); correct the sample")
    return {"role": role, "content": row[keys[1]]}


def _chat_example(messages: list[Message], tokenizer: PreTrainedTokenizerBase, *, loss_on: str, place: str) -> Example:
    ids = _rendered(messages, tokenizer, place=place)["input_ids"]
    if loss_on == "sequence":
        return {"input_ids": ids, "labels": list(ids)}
    if isinstance(tokenizer.chat_template, str) and _GENERATION_TAG.search(tokenizer.chat_template):
        mask = _rendered(messages, tokenizer, place=place, return_assistant_tokens_mask=True)["assistant_masks"]
        return {"input_ids": ids, "labels": [token if own else IGNORED for token, own in zip(ids, mask, strict=True)]}
    return {"input_ids": ids, "labels": _assistant_labels(ids, messages, tokenizer, place=place)}


def _assistant_labels(
    ids: list[int], messages: list[Message], tokenizer: PreTrainedTokenizerBase, *, place: str
) -> list[int]:
    """Labels on the assistant's turns: what each turn adds to the rendered messages before it and its header."""
    labels = [IGNORED] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if not turn:
            raise DataError(
                f"{place}: message 1: the assistant opens the chat, so its turn has no prompt; "
                "put a message before it, set data.loss_on to sequence, or leave the chat out"
            )
        before = _rendered(messages[:turn], tokenizer, place=place, add_generation_prompt=True)["input_ids"]
        upto = _rendered(messages[: turn + 1], tokenizer, place=place)["input_ids"]
        if ids[: len(before)] != before or ids[: len(upto)] != upto:
            raise DataError(
                f"{place}: message {turn + 1}: the chat template renders the assistant's turn differently from its "
                "prompt, so its tokens cannot be told apart; set data.loss_on to sequence, leave the chat out, or give "
                "the tokenizer a template with {% generation %} tags"
            )
        end = _after_end_token(ids, len(before), len(upto), tokenizer)
        labels[len(before) : end] = ids[len(before) : end]
    return labels


def _after_end_token(ids: list[int], start: int, end: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Where a turn stops being the model's own words: after its last end token; what follows is the template's."""
    for place in range(end - 1, start - 1, -1):
        if ids[place] == tokenizer.eos_token_id:
            return place + 1
    return end


def _rendered(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, *, place: str, **options: bool
) -> Mapping[str, list[int]]:
    try:
        return tokenizer.apply_chat_template(messages, return_dict=True, **options)  # pyright: ignore
    except TemplateError as error:
        raise DataError(f"{place}: the chat template refuses it ({error}); correct the order of its roles") from error
