"""A tokenizer's chat template: chats rendered to token ids, and the proof that it shows what a chat says."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from moslora.data.messages import MEANT, Chat, Message
from moslora.errors import DataError

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\b")


class ChatTemplate:
    """The chat template of a tokenizer that has one; `unshown` collects message fields that it leaves out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.unshown: dict[str, None] = {}
        self._shown: set[tuple[str, str]] = set()  # role and field; a template shows a field of a role, or does not

    @property
    def has_generation_tags(self) -> bool:
        """Whether the template itself says which tokens are the assistant's."""
        template = self.tokenizer.chat_template
        return isinstance(template, str) and _GENERATION_TAG.search(template) is not None

    def ids(
        self,
        messages: Sequence[Message],
        *,
        place: str,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[int]:
        """The token ids of the rendered messages. Raises DataError where the template refuses them."""
        options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
        return self._rendered(messages, place=place, return_dict=True, **options)["input_ids"]

    def text(
        self,
        messages: Sequence[Message],
        *,
        place: str,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The rendered messages. Raises DataError where the template refuses them."""
        options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
        return self._rendered(messages, place=place, tokenize=False, **options)

    def token_starts(self, text: str, ids: list[int]) -> list[int] | None:
        """Where in the rendered text each of its tokens starts, and its end; None from a tokenizer that cannot tell."""
        if not self.tokenizer.is_fast:
            return None
        found: Any = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in found["offset_mapping"]]
        return [*starts, len(text)] if found["input_ids"] == ids and starts == sorted(starts) else None

    def masked_ids(self, chat: Chat, *, place: str) -> tuple[list[int], list[int]]:
        """The token ids of the rendered chat, and 1 for each of them within the template's generation tags."""
        options = {"tools": chat.tools, "return_dict": True, "return_assistant_tokens_mask": True}
        found = self._rendered(chat.messages, place=place, **options)
        return found["input_ids"], found["assistant_masks"]

    def check_shows(self, chat: Chat, *, place: str) -> None:
        """Raise DataError for tools, or a field of a message that matters, which the template does not show.

        A template may drop a field of earlier turns (a model's own thoughts), so a turn is also looked at as the last.
        """
        if chat.tools and not self._knows("", "tools"):
            if self.text(chat.messages, place=place, tools=chat.tools) == self.text(chat.messages, place=place):
                raise DataError(_left_out(f"{place}: field 'tools'"))
            self._shown.add(("", "tools"))
        for turn, message in enumerate(chat.messages):
            for field in [name for name in message if name not in ("role", "content")]:
                self._check_field(chat, turn, field, place=f"{place}: message {chat.number(turn)}")

    def _check_field(self, chat: Chat, turn: int, field: str, *, place: str) -> None:
        role = chat.messages[turn]["role"]
        is_link = role == "tool" and field in ("name", "tool_call_id")  # which call this is the answer to
        if is_link or self._knows(role, field) or (field in self.unshown and field not in MEANT):
            return
        if self._shows(chat, turn, field, place=place):
            self._shown.add((role, field))
        elif field in MEANT:
            raise DataError(_left_out(f"{place}: field '{field}'"))
        else:
            self.unshown[field] = None

    def _knows(self, role: str, field: str) -> bool:
        return (role, field) in self._shown

    def _shows(self, chat: Chat, turn: int, field: str, *, place: str) -> bool:
        message = {name: value for name, value in chat.messages[turn].items() if name != field}
        less = [*chat.messages[:turn], message, *chat.messages[turn + 1 :]]
        for count in dict.fromkeys((len(less), turn + 1)):
            try:
                shown = self.text(chat.messages[:count], place=place, tools=chat.tools)
            except DataError:
                if count == len(less):
                    raise
                return False  # it cannot end there
            try:
                if shown != self.text(less[:count], place=place, tools=chat.tools):
                    return True
            except DataError:
                return True  # it cannot do without
        return False

    def _rendered(self, messages: Sequence[Message], *, place: str, **options: Any) -> Any:
        copies: list[Mapping[str, Any]] = [dict(message) for message in messages]
        try:
            return self.tokenizer.apply_chat_template(copies, **options)  # pyright: ignore
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise DataError(f"{place}: the chat template refuses it ({error}); correct its roles and fields") from error


def _left_out(what: str) -> str:
    return (
        f"{what} is left out by the chat template; give the tokenizer a template that shows it"
        " (to go without it: data.ignore)"
    )
