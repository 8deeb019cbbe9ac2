"""Chats (lists of messages) to training examples through the tokenizer's own chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.messages import Chat, read_chat
from moslora.data.reading import Reading
from moslora.data.spans import labelled
from moslora.data.template import ChatTemplate, Span
from moslora.data.template_choice import known_templates
from moslora.data.tokens import Example, check_loss_on
from moslora.data.turns import turn_spans
from moslora.errors import DataError


def chat_examples(
    samples: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    loss_on: str,
    source: str,
    unshown: list[str] | None = None,
    reading: Reading | None = None,
) -> list[Example]:
    """The rendered chats as token ids, at their whole length.

    A sample is `{"messages": [{"role", "content"}, …]}` or `{"conversations": [{"from", "value"}, …]}`, with `system`
    and `tools` beside it if there are any. With `loss_on` `response` only the assistant's turns carry labels, each to
    its end token inclusive; with `sequence` every token. A turn marked with `weight: 0` or `train: false` carries none.
    Fields of messages that the template leaves out, and that do not change the meaning, are added to `unshown`.
    `reading` says where the samples stand; those that it left out have no example.

    Raises DataError naming `source`, the sample (counted from 1), the message and the field at fault; if the tokenizer
    has no chat template, one whose assistant turns cannot be told from the rest, or one that leaves out what is said.
    """
    check_loss_on(loss_on)
    if not tokenizer.chat_template:
        raise DataError(
            f"{source}: the tokenizer has no chat template; set data.chat_template to {', '.join(known_templates())}"
            " (plain suits any base model), or to a Jinja file"
        )
    template = ChatTemplate(tokenizer)
    examples: list[Example] = []
    reading = reading or Reading.of(source, len(samples))
    for index in reading.kept():
        with reading.checking(index) as place:
            chat = template.fitted(read_chat(samples[index], place=place), place=place)
            template.check_shows(chat, place=place)
            examples.append(chat_example(chat, template, loss_on=loss_on, place=place))
    if unshown is not None:
        unshown += template.unshown
    return examples


def chat_example(chat: Chat, template: ChatTemplate, *, loss_on: str, place: str) -> Example:
    """One chat, as `chat_examples` makes them."""
    text = template.text(chat.messages, place=place, tools=chat.tools)
    if loss_on == "response":
        _refuse_other_roles(chat, place=place)
    if loss_on == "response" and not template.has_generation_tags(chat.tools):
        answers = [turn for turn, message in enumerate(chat.messages) if message["role"] == "assistant"]
        learned = [turn for turn in answers if chat.marked.get(turn) is not False]
        spans = turn_spans(text, chat, template, turns=learned, after_prompt=True, place=place)
        return labelled(text, [*spans.values()], template.tokenizer, place=place)
    whole = template.generated_spans(chat, place=place) if loss_on == "response" else [(0, len(text))]
    left_out = [turn for turn, is_learned in chat.marked.items() if not is_learned]
    holes = turn_spans(text, chat, template, turns=left_out, after_prompt=False, place=place)
    return labelled(text, _without(whole, [*holes.values()]), template.tokenizer, place=place)


def _without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """Spans without holes in them, both in order."""
    left = list(spans)
    for first, upto in holes:
        parts = [((start, min(end, first)), (max(start, upto), end)) for start, end in left]
        left = [(start, end) for both in parts for start, end in both if start < end]
    return left


def _refuse_other_roles(chat: Chat, *, place: str) -> None:
    for turn, is_learned in chat.marked.items():
        if is_learned and chat.messages[turn]["role"] != "assistant":
            raise DataError(
                f"{place}: message {chat.number(turn)} is marked to be learned, and data.loss_on response learns only "
                "the assistant's; take the mark away, or set data.loss_on to sequence"
            )
