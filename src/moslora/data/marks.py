"""Where the contents of a chat's messages lie in its rendered text, found by rendering them once more with marks.

A mark stands before and after each content, within the white space that templates trim. Taken out again, the marks must
leave the text as it was: else the template looks at what its contents start or end with, and fewer marks are tried.
"""

import re
from collections.abc import Sequence
from itertools import islice

from moslora.data.messages import Chat, Message
from moslora.data.template import ChatTemplate
from moslora.errors import DataError

_PRIVATE_USE = range(0xE000, 0xF900)  # characters that no text means anything by
_BOTH, _ENDS = (True, True), (False, True)


class Marks:
    """The places of a chat's contents in its `text`, by turn: `starts` and `ends`, where they can be told.

    A content that the template leaves out, shows twice or shows in part has no start, no end, or neither.
    """

    def __init__(self, chat: Chat, template: ChatTemplate, *, text: str, place: str) -> None:
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.messages: Sequence[Message] = chat.messages
        self._options = {"place": place, "tools": chat.tools}
        self._template = template
        before, after = islice((chr(code) for code in _PRIVATE_USE if chr(code) not in text), 2)
        self._after = after
        self._mark = re.compile(f"(?:{before}(\\d+){before}|{after}(\\d+){after})")
        for wanted in (_BOTH, _ENDS):
            messages = [_marked(row, turn, before, after, wanted) for turn, row in enumerate(chat.messages)]
            if self._found(messages, text):
                self.messages = messages
                return

    def after(self, turn: int, *, asks: bool) -> str | None:
        """What follows the content of a turn where the chat ends with it; with `asks` up to where an answer starts.

        None where the template does not take such a part of the chat, or does not show the content's end.
        """
        try:
            text = self._template.text(self.messages[: turn + 1], **self._options, add_generation_prompt=asks)
        except DataError:
            return None
        _, mark, rest = text.rpartition(f"{self._after}{turn}{self._after}")
        return self._mark.sub("", rest) if mark else None

    def _found(self, messages: Sequence[Message], text: str) -> bool:
        """Note the marks of a chat rendered with them; whether it is the text without them."""
        try:
            marked = self._template.text(messages, **self._options)
        except DataError:
            return False
        if self._mark.sub("", marked) != text:
            return False
        removed, seen = 0, {True: dict[int, list[int]](), False: dict[int, list[int]]()}
        for found in self._mark.finditer(marked):
            is_start = found[1] is not None
            seen[is_start].setdefault(int(found[1] or found[2]), []).append(found.start() - removed)
            removed += len(found[0])
        self.starts, self.ends = ({t: at[0] for t, at in seen[k].items() if len(at) == 1} for k in (True, False))
        return True


def _marked(message: Message, turn: int, before: str, after: str, wanted: tuple[bool, bool]) -> Message:
    content = message["content"]
    core = content.strip()
    if not core:  # a template may ask whether there is any
        return message
    start = content.index(core)
    first, last = (f"{sign}{turn}{sign}" * is_wanted for sign, is_wanted in zip((before, after), wanted, strict=True))
    return {**message, "content": content[:start] + first + core + last + content[start + len(core) :]}
