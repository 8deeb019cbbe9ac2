"""A tokenizer's chat template: chats rendered to token ids, and the proof that it shows what a chat says."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from moslora.data.calls import CALLS, SHOWING, with_written_arguments
from moslora.data.messages import MEANT, Chat, Message
from moslora.errors import DataError

T = TypeVar("T")
Span = tuple[int, int]  # of characters: the first one, and the one after the last

CHATML_END = "<|im_end|>"  # of a turn, in ChatML

_REFUSALS = (TemplateError, TypeError, ValueError, LookupError)
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\b")


class ChatTemplate:
    """The chat template of a tokenizer that has one; `unshown` collects message fields that it leaves out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.unshown: dict[str, None] = {}
        self._shown: set[tuple[str, str]] = set()  # role and field; a template shows a field of a role, or does not

    @cached_property
    def special_texts(self) -> list[str]:
        """The tokens that stand for no text, such as the one that ends a turn."""
        added: Any = self.tokenizer.added_tokens_decoder
        special = [token.content for token in added.values() if token.special]
        return [*dict.fromkeys([*self.tokenizer.all_special_tokens, *special])]

    def has_generation_tags(self, tools: list[Any] | None) -> bool:
        """Whether the template itself says what the assistant generates."""
        return _GENERATION_TAG.search(self._source(tools)) is not None

    def _source(self, tools: list[Any] | None) -> str:
        return self.tokenizer.get_chat_template(tools=tools)

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

    def generated_spans(self, chat: Chat, *, place: str) -> list[Span]:
        """The characters of the rendered chat within the template's generation tags."""

        special: Any = self.tokenizer.special_tokens_map

        def render(messages: list[Message]) -> list[Span]:
            _, spans = render_jinja_template(
                conversations=[messages],
                tools=chat.tools,
                chat_template=self._source(chat.tools),
                return_assistant_tokens_mask=True,
                **special,
            )
            return [(int(start), int(end)) for start, end in spans[0]]

        return self._taken(chat.messages, render, place=place)

    def fitted(self, chat: Chat, *, place: str) -> Chat:
        """The chat with the arguments of its calls as the template takes them: as objects, or as JSON text.

        Raises DataError where it takes neither.
        """
        if not any("tool_calls" in message for message in chat.messages):
            return chat
        try:
            self.text(chat.messages, place=place, tools=chat.tools)
        except DataError:
            written = replace(chat, messages=[with_written_arguments(message) for message in chat.messages])
            try:
                self.text(written.messages, place=place, tools=chat.tools)
            except DataError:
                pass
            else:
                return written
            raise
        return chat

    def check_shows(self, chat: Chat, *, place: str) -> None:
        """Raise DataError for tools, or a field of a message that matters, which the template does not show.

        A template may drop a field of earlier turns (a model's own thoughts), so a turn is also looked at as the last.
        """
        if chat.tools and not self._knows("", "tools"):
            if self.text(chat.messages, place=place, tools=chat.tools) == self.text(chat.messages, place=place):
                raise DataError(self._left_out("tools", place=place))
            self._shown.add(("", "tools"))
        for turn, message in enumerate(chat.messages):
            self._check_text(chat, turn, place=place)
            for field in [name for name in message if name not in ("role", "content")]:
                self._check_field(chat, turn, field, place=place)
        self._check_thought(chat, place=place)

    def _check_text(self, chat: Chat, turn: int, *, place: str) -> None:
        role, content = chat.messages[turn]["role"], chat.messages[turn]["content"]
        if not content.strip() or self._knows(role, "content"):
            return
        other = {**chat.messages[turn], "content": f"{content.strip()} -"}
        if not self._shows(chat, turn, other, place=place):
            raise DataError(
                f"{place}: message {chat.number(turn)}: the chat template leaves out the text of the role '{role}';"
                " choose one that shows it (data.chat_template), or take the message out"
            )
        self._shown.add((role, "content"))

    def _check_thought(self, chat: Chat, *, place: str) -> None:
        """A thought that the last answer's text opens with; of earlier answers, templates leave it out on purpose."""
        last = chat.messages[-1]
        thought = last["content"].rpartition("</think>")[0].rpartition("<think>")[2].strip()
        if last["role"] != "assistant" or not thought:
            return
        if thought not in self.text(chat.messages, place=place, tools=chat.tools):
            raise DataError(
                f"{place}: message {chat.number(len(chat.messages) - 1)}: the chat template leaves out what comes"
                " before"
                " </think>; choose one that shows it (data.chat_template), or take it out of the message"
            )

    def _check_field(self, chat: Chat, turn: int, field: str, *, place: str) -> None:
        role = chat.messages[turn]["role"]
        is_link = role == "tool" and field in ("name", "tool_call_id")  # which call this is the answer to
        if is_link or self._knows(role, field) or (field in self.unshown and field not in MEANT):
            return
        without = {name: value for name, value in chat.messages[turn].items() if name != field}
        if self._shows(chat, turn, without, place=place):
            self._shown.add((role, field))
        elif field in MEANT:
            says_more = bool(chat.messages[turn]["content"].strip())
            raise DataError(self._left_out(field, place=f"{place}: message {chat.number(turn)}", says_more=says_more))
        else:
            self.unshown[field] = None

    def _knows(self, role: str, field: str) -> bool:
        return (role, field) in self._shown

    def _shows(self, chat: Chat, turn: int, other: Message, *, place: str) -> bool:
        """Whether the chat is rendered otherwise with another message in a turn's place."""
        less = [*chat.messages[:turn], other, *chat.messages[turn + 1 :]]
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
        def render(copies: list[Message]) -> Any:
            return self.tokenizer.apply_chat_template(copies, **options)  # pyright: ignore[reportArgumentType]

        return self._taken(messages, render, place=place)

    def _given(self, message: Message) -> Message:
        """A message of our own as the template takes it."""
        return dict(message)

    def _taken(self, messages: Sequence[Message], render: Callable[[list[Message]], T], *, place: str) -> T:
        """What `render` makes of the messages. Raises DataError with the template's reason for refusing them."""
        copies = [self._given(message) for message in messages]
        try:
            return render(copies)
        except TemplateSyntaxError as error:
            raise DataError(
                f"the chat template is not valid Jinja (line {error.lineno}: {error.message}); correct it, or choose"
                " another (data.chat_template)"
            ) from error
        except _REFUSALS as error:
            reason = " ".join(str(error).split()).rstrip(".!")
            mended = _mended(copies, render, tools=self._shows_tools)
            raise DataError(f"{place}: the chat template refuses it ({reason}); {mended}") from error

    def _left_out(self, field: str, *, place: str, says_more: bool = True) -> str:
        """What to do about a field that the template does not show; a message that `says_more` can do without it."""
        if field in ("tools", *CALLS):
            step = self._shows_tools
        else:
            without = "leave it out (data.ignore)" if says_more else "leave such samples out"
            step = f"choose one that shows it (data.chat_template), or {without}"
        return f"{place}: the chat template leaves out the field '{field}'; {step}"

    @property
    def _shows_tools(self) -> str:
        """How to come by a template that shows tools."""
        step = f"choose one that shows tools: {SHOWING}"
        if CHATML_END in self.special_texts:
            return step
        return f"{step} (but {CHATML_END}, which ends its answers, is not a token of this model), or a Jinja file"


def _mended(messages: list[Message], render: Callable[[list[Message]], Any], *, tools: str) -> str:
    """What to do about a chat that a template refuses; `tools` says how to come by one that shows them."""
    roles = [message["role"] for message in messages]
    if "system" in roles:
        try:
            render([message for message in messages if message["role"] != "system"])
        except _REFUSALS:
            pass
        else:
            return "it takes no system message: put it into the first question, or choose another data.chat_template"
    twice = next((role for role, following in pairwise(roles) if role == following), None)
    if twice is not None:
        return f"two turns of the {twice} in a row: join them, or choose another data.chat_template"
    if "tool" in roles:
        return f"{tools}, or leave the chat out"
    return "correct its roles and fields"
