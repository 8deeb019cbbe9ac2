"""Where the turns of a chat lie among its tokens.

A template is asked for one turn after the chat's start, and not for all that comes before it: the time is that of the
chat's length, not of its square. What it renders so is looked for at its place in the whole chat; where it is not there
(templates that render a turn otherwise among more turns), every turn is told from the tokens of the chat up to it.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping

from moslora.data.messages import Chat, Message
from moslora.data.template import ChatTemplate
from moslora.errors import DataError

Span = tuple[int, int]


def turn_spans(
    ids: list[int], chat: Chat, template: ChatTemplate, *, turns: Collection[int], after_prompt: bool, place: str
) -> Mapping[int, Span]:
    """The tokens of some turns of a chat with these ids: the first one, and the one after the last.

    `after_prompt` leaves out the header that an answer is generated after; the turns are then the assistant's, and none
    of them opens the chat. Raises DataError if a turn's tokens cannot be told from those before it.
    """
    if not turns:
        return {}
    wanted = _Wanted(chat, template, frozenset(turns), after_prompt, place)
    found = wanted.in_tokens(ids)
    return found if found is not None else {turn: wanted.from_the_start(turn, ids) for turn in turns}


class _Wanted:
    def __init__(self, chat: Chat, template: ChatTemplate, turns: frozenset[int], after_prompt: bool, place: str):
        self.chat, self.template, self.turns, self.after_prompt = chat, template, turns, after_prompt
        self.options = {"place": place, "tools": chat.tools}
        self.place = place

    def in_tokens(self, ids: list[int]) -> dict[int, Span] | None:
        """The spans by the characters that each token stands for; None where these do not tell."""
        text = self.template.text(self.chat.messages, **self.options)
        starts = self.template.token_starts(text, ids)
        try:
            spans = self._in_text(text) if starts is not None else None
        except DataError:  # it takes no such part of the chat
            return None
        if spans is None or starts is None:
            return None
        tokens = {edge: bisect_left(starts, edge) for span in spans.values() for edge in span}
        if any(starts[token] != edge for edge, token in tokens.items()):
            return None  # a token reaches over the edge
        return {turn: (tokens[start], tokens[end]) for turn, (start, end) in spans.items()}

    def _in_text(self, text: str) -> dict[int, Span] | None:
        spans: dict[int, Span] = {}
        first: list[Message] = []  # the chat to the end of its first answer
        since: list[Message] = []  # what came after the latest answer
        head, place = "", 0
        for turn, message in enumerate(self.chat.messages):
            is_answer = message["role"] == "assistant"
            before = self._after(head, [*first, *since], asks=self.after_prompt) if turn in self.turns else ""
            since.append(message)
            if turn not in self.turns and not is_answer:
                continue
            upto = self._after(head, [*first, *since])
            if before is None or upto is None or not upto.startswith(before) or not text.startswith(upto, place):
                return None
            if turn in self.turns:
                spans[turn] = (place + len(before), place + len(upto))
            if is_answer:
                place += len(upto)
                first, head = (first, head) if first else (since, upto)
                since = []
        return spans

    def _after(self, head: str, messages: list[Message], *, asks: bool = False) -> str | None:
        """What the template renders after its head, if it starts so."""
        if not messages:
            return ""
        text = self.template.text(messages, **self.options, add_generation_prompt=asks)
        return text[len(head) :] if text.startswith(head) else None

    def from_the_start(self, turn: int, ids: list[int]) -> Span:
        """The span of a turn by the tokens of the chat before it and up to its end. Raises DataError."""
        before, upto = self.chat.messages[:turn], self.chat.messages[: turn + 1]
        start = self.template.ids(before, **self.options, add_generation_prompt=self.after_prompt) if before else []
        end = self.template.ids(upto, **self.options)
        if ids[: len(start)] != start or ids[: len(end)] != end:
            raise DataError(
                f"{self.place}: message {self.chat.number(turn)}: the chat template renders the turn differently from"
                " what comes before it, so its tokens cannot be told apart; set data.loss_on to sequence, leave the"
                " chat out, or give the tokenizer a template with {% generation %} tags"
            )
        return len(start), len(end)
