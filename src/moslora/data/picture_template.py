"""A chat template for texts with pictures: each `<image>` of a content becomes what the model reads there.

Templates name a picture by a token of the model's, which its processor then puts the picture's text in the place of;
so it is done here, without the picture. Most of them want a content in parts, text and pictures apart.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from moslora.data.messages import Chat, Message
from moslora.data.references import MARKER
from moslora.data.template import ChatTemplate, Span
from moslora.errors import DataError

_WORD = "lighthouse"  # of which a template says nothing itself


class PictureTemplate(ChatTemplate):
    """The chat template of a tokenizer, in which `token` stands for a picture."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, token: str) -> None:
        super().__init__(tokenizer)
        self.token = token
        self.pictures: tuple[str, ...] = ()

    def showing(self, pictures: Sequence[str]) -> Self:
        """The template for a chat with these pictures' texts, in the order in which they stand in it."""
        one = copy.copy(self)  # what was found out about the template is kept for all chats
        one.pictures = tuple(pictures)
        return one

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the template shows a content that is given in parts."""
        content: Any = [{"type": "image"}, {"type": "text", "text": _WORD}]
        try:
            shown: Any = self.tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        except (TemplateError, TypeError, ValueError, LookupError):
            return False
        return shown.count(self.token) == 1 and shown.count(_WORD) == 1

    def ids(
        self,
        messages: Sequence[Message],
        *,
        place: str,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[int]:
        """The token ids of the rendered messages. Raises DataError where the template refuses them."""
        text = self.text(messages, place=place, tools=tools, add_generation_prompt=add_generation_prompt)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]

    def text(
        self,
        messages: Sequence[Message],
        *,
        place: str,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The rendered messages, pictures included. Raises DataError where the template refuses them."""
        shown = super().text(messages, place=place, tools=tools, add_generation_prompt=add_generation_prompt)
        return "".join(self._divided(shown, place=place))

    def generated_spans(self, chat: Chat, *, place: str) -> list[Span]:
        """The characters of the rendered chat within the template's generation tags."""
        spans = super().generated_spans(chat, place=place)
        if not spans or not self.pictures:
            return spans
        shown = super().text(chat.messages, place=place, tools=chat.tools)
        parts = self._divided(shown, place=place)
        before = [*accumulate((len(part) for part in shown.split(self.token)), initial=0)]
        ends = [place + number * len(self.token) for number, place in enumerate(before[1:-1], start=1)]
        longer = [*accumulate((len(picture) - len(self.token) for picture in parts[1::2]), initial=0)]

        def moved(character: int) -> int:
            return character + longer[sum(end <= character for end in ends)]

        return [(moved(start), moved(end)) for start, end in spans]

    def _given(self, message: Message) -> Message:
        """The message with its content as the template takes it."""
        content = message["content"]
        if not self.takes_parts:
            return {**message, "content": content.replace(MARKER, self.token)}
        parts: list[dict[str, str]] = []
        texts = content.split(MARKER)
        for number, text in enumerate(texts):
            if number:
                parts.append({"type": "image"})
                text = text.removeprefix("\n")  # which only held text and picture apart
            if number < len(texts) - 1:
                text = text.removesuffix("\n")
            if text or len(texts) == 1:
                parts.append({"type": "text", "text": text})
        return {**message, "content": parts}

    def _divided(self, shown: str, *, place: str) -> list[str]:
        """What the template shows, the pictures' texts in the places of their tokens: at every second place."""
        texts = shown.split(self.token)
        count = len(texts) - 1
        if count > len(self.pictures):
            raise DataError(
                f"{place}: {self.token} stands {count} times in its text, for {len(self.pictures)} pictures: take it"
                " out of the text"
            )
        parts = texts[:1]
        for picture, text in zip(self.pictures[:count], texts[1:], strict=True):
            parts += [picture, text]
        return parts
