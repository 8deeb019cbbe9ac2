"""Where the turns of a chat lie in its rendered text.

Each content is found by its marks. What stands between two contents, the end of one turn and the header of the next, is
divided by what the template renders where a chat ends with the first of them: asked for once for messages of one form,
and looked for in the whole text at each of them. So the time is that of the chat's length, not of its square. Only
where that does not tell, the chat up to the turn is rendered.
"""

from collections.abc import Collection, Hashable
from dataclasses import replace
from itertools import takewhile

from moslora.data.marks import Marks
from moslora.data.messages import Chat
from moslora.data.template import ChatTemplate, Span
from moslora.errors import DataError


def turn_spans(
    text: str, chat: Chat, template: ChatTemplate, *, turns: Collection[int], after_prompt: bool, place: str
) -> dict[int, Span]:
    """The characters of some turns of a chat that is rendered as `text`: the first one, and the one after the last.

    `after_prompt` leaves out the header that an answer is generated after, and what follows its end token; the turns
    are then the assistant's. Raises DataError if a turn cannot be told from what stands around it.
    """
    if not turns:
        return {}
    found = _Turns(text, chat, template, place)
    return {turn: found.answer(turn) if after_prompt else found.whole(turn) for turn in sorted(turns)}


class _Turns:
    def __init__(self, text: str, chat: Chat, template: ChatTemplate, place: str) -> None:
        self.text, self.chat, self.template, self.place = text, chat, template, place
        self.marks = Marks(chat, template, text=text, place=place)
        self.tails: dict[Hashable, list[str]] = {}  # what follows the content of messages of one form
        self.headers: dict[Hashable, str] = {}  # what stands between the turns of two forms of messages

    def answer(self, turn: int) -> Span:
        """An answer as the model writes it, to its end token."""
        start, end = self._answer_start(turn), self._end(turn)
        content_end = self.marks.ends.get(turn, start)
        return start, content_end + _upto_end_token(self.text[content_end:end], self.template.special_texts)

    def whole(self, turn: int) -> Span:
        """A turn with its header."""
        return self._end(turn - 1) if turn else 0, self._end(turn)

    def _answer_start(self, turn: int) -> int:
        if turn == 0:
            raise DataError(
                f"{self.place}: message {self.chat.number(turn)}: the assistant opens the chat, so its turn has no"
                " prompt; put a message before it, set data.loss_on to sequence, or leave the chat out"
            )
        before = turn - 1
        place = self._after_content(before, asks=True)
        if place is None:
            place = self._rendered_upto(before, asks=True)
        if place is None:
            raise self._cannot_tell(turn)
        return place

    def _end(self, turn: int) -> int:
        """Where a turn ends, and the header of the next one starts."""
        if turn == len(self.chat.messages) - 1:
            return len(self.text)
        following = self.marks.starts.get(turn + 1)
        forms = self._form(turn), self._form(turn + 1)
        header = self.headers.get(forms)
        if following is not None and header is not None and self.text.endswith(header, 0, following):
            return following - len(header)
        place = self._after_content(turn, asks=False)
        if place is None:
            place = self._rendered_upto(turn, asks=False)
        if place is None:
            place = self._before_header(turn)
        if place is None or (following is not None and place > following):
            raise self._cannot_tell(turn)
        if following is not None:
            self.headers[forms] = self.text[place:following]
        return place

    def _form(self, turn: int) -> Hashable:
        message = self.chat.messages[turn]
        return message["role"], bool(message["content"].strip()), frozenset(message)

    def _after_content(self, turn: int, *, asks: bool) -> int | None:
        """The end of what follows a content, by what follows that of an earlier message of this form, or its own."""
        end = self.marks.ends.get(turn)
        if end is None:
            return None
        known = self.tails.setdefault((self._form(turn), asks), [])
        for tail in known:
            if self.text.startswith(tail, end):
                return end + len(tail)
        tail = self.marks.after(turn, asks=asks)
        if tail is None:
            return None
        found = tail if self.text.startswith(tail, end) else self._shared_tail(turn, tail, asks=asks)
        known += [one for one in dict.fromkeys((tail, found)) if one or not tail]
        known.sort(key=len, reverse=True)
        return end + len(found) if found or not tail else None

    def _shared_tail(self, turn: int, tail: str, *, asks: bool) -> str:
        """What a tail has in common with the text, where one of them goes on otherwise: an answer without the thought
        that a prompt opens, a turn without the end of the whole chat, or with another end token than that."""
        end = self.marks.ends[turn]
        common = _shared_start(tail, self.text[end : end + len(tail)])
        following = self.marks.starts.get(turn + 1)
        if asks and following is not None and end + len(common) >= following:
            return self.text[end:following]
        specials = self.template.special_texts
        edges = [*specials, *(["\n"] if asks else [])]
        upto = max((common.rfind(edge) + len(edge) for edge in edges if edge in common), default=0)
        if upto or asks or not tail.startswith(tuple(specials)):
            return common[:upto]
        return max((special for special in specials if self.text.startswith(special, end)), key=len, default="")

    def _rendered_upto(self, turn: int, *, asks: bool) -> int | None:
        """The length of the chat up to a turn, if the whole one starts so."""
        try:
            upto = self.template.text(
                self.chat.messages[: turn + 1], place=self.place, tools=self.chat.tools, add_generation_prompt=asks
            )
        except DataError:
            return None
        return len(upto) if self.text.startswith(upto) else None

    def _before_header(self, turn: int) -> int | None:
        """Where the header of the next turn starts, as it does after a message of this form that has a text."""
        following = self.marks.starts.get(turn + 1)
        if following is None:
            return None
        messages = [*self.chat.messages[:turn], {**self.chat.messages[turn], "content": "-"}]
        chat = replace(self.chat, messages=[*messages, self.chat.messages[turn + 1]])
        try:
            text = self.template.text(chat.messages, place=self.place, tools=chat.tools)
        except DataError:
            return None
        marks = Marks(chat, self.template, text=text, place=self.place)
        end, start, tail = marks.ends.get(turn), marks.starts.get(turn + 1), marks.after(turn, asks=False)
        if end is None or start is None or tail is None or not text.startswith(tail, end):
            return None
        header = text[end + len(tail) : start]
        return following - len(header) if self.text.endswith(header, 0, following) else None

    def _cannot_tell(self, turn: int) -> DataError:
        return DataError(
            f"{self.place}: message {self.chat.number(turn)}: the chat template renders the turn differently from what"
            " comes before it, so its tokens cannot be told apart; set data.loss_on to sequence, leave the chat out, or"
            " set data.chat_template to a template with {% generation %} tags"
        )


def _shared_start(first: str, second: str) -> str:
    return first[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))]


def _upto_end_token(tail: str, end_tokens: Collection[str]) -> int:
    """How long a turn's end is without the white space that a template puts after its end token."""
    upto = max((tail.rfind(token) + len(token) for token in end_tokens if token in tail), default=0)
    return upto if upto and not tail[upto:].strip() else len(tail)
