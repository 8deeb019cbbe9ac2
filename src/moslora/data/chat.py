"""Chats (lists of messages) to training examples through the tokenizer's own chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.messages import Chat, read_chat
from moslora.data.template import ChatTemplate
from moslora.data.tokens import IGNORED, Example, check_loss_on
from moslora.data.turns import turn_spans
from moslora.errors import DataError


def chat_examples(
    samples: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    loss_on: str,
    source: str,
    unshown: list[str] | None = None,
) -> list[Example]:
    """The rendered chats as token ids, at their whole length.

    A sample is `{"messages": [{"role", "content"}, …]}` or `{"conversations": [{"from", "value"}, …]}`, with `system`
    and `tools` beside it if there are any. With `loss_on` `response` only the assistant's turns carry labels, each to
    its end token inclusive; with `sequence` every token. A turn marked with `weight: 0` or `train: false` carries none.
    Fields of messages that the template leaves out, and that do not change the meaning, are added to `unshown`.

    Raises DataError naming `source`, the sample (counted from 1), the message and the field at fault; if the tokenizer
    has no chat template, one whose assistant turns cannot be told from the rest, or one that leaves out what is said.
    """
    check_loss_on(loss_on)
    if not tokenizer.chat_template:
        raise DataError(
            f"{source}: the tokenizer has no chat template; set data.format to instruction, or use a model that has one"
        )
    template = ChatTemplate(tokenizer)
    examples: list[Example] = []
    for number, sample in enumerate(samples, start=1):
        place = f"{source}: sample {number}"
        chat = read_chat(sample, place=place)
        template.check_shows(chat, place=place)
        examples.append(chat_example(chat, template, loss_on=loss_on, place=place))
    if unshown is not None:
        unshown += template.unshown
    return examples


def chat_example(chat: Chat, template: ChatTemplate, *, loss_on: str, place: str) -> Example:
    """One chat, as `chat_examples` makes them."""
    is_response = loss_on == "response"
    if is_response:
        _refuse_other_roles(chat, place=place)
    if is_response and template.has_generation_tags:
        ids, mask = template.masked_ids(chat, place=place)
        labels = [token if own else IGNORED for token, own in zip(ids, mask, strict=True)]
    else:
        ids = template.ids(chat.messages, place=place, tools=chat.tools)
        if is_response:
            return {"input_ids": ids, "labels": _assistant_labels(ids, chat, template, place=place)}
        labels = list(ids)
    left_out = [turn for turn, is_learned in chat.marked.items() if not is_learned]
    for start, end in turn_spans(ids, chat, template, turns=left_out, after_prompt=False, place=place).values():
        labels[start:end] = [IGNORED] * (end - start)
    return {"input_ids": ids, "labels": labels}


def _refuse_other_roles(chat: Chat, *, place: str) -> None:
    for turn, is_learned in chat.marked.items():
        if is_learned and chat.messages[turn]["role"] != "assistant":
            raise DataError(
                f"{place}: message {chat.number(turn)} is marked to be learned, and data.loss_on response learns only "
                "the assistant's; take the mark away, or set data.loss_on to sequence"
            )


def _assistant_labels(ids: list[int], chat: Chat, template: ChatTemplate, *, place: str) -> list[int]:
    """Labels on the assistant's turns: what each turn adds to the rendered messages before it and its header."""
    answers = [turn for turn, message in enumerate(chat.messages) if message["role"] == "assistant"]
    learned = [turn for turn in answers if chat.marked.get(turn) is not False]
    if 0 in learned:
        raise DataError(
            f"{place}: message 1: the assistant opens the chat, so its turn has no prompt; "
            "put a message before it, set data.loss_on to sequence, or leave the chat out"
        )
    labels = [IGNORED] * len(ids)
    for start, upto in turn_spans(ids, chat, template, turns=learned, after_prompt=True, place=place).values():
        end = _after_end_token(ids, start, upto, template.tokenizer)
        labels[start:end] = ids[start:end]
    return labels


def _after_end_token(ids: list[int], start: int, end: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Where a turn stops being the model's own words: after its last end token; what follows is the template's."""
    for place in range(end - 1, start - 1, -1):
        if ids[place] == tokenizer.eos_token_id:
            return place + 1
    return end
