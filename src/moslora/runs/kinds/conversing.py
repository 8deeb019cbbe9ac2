"""A chat with a language model: its history, its system message, and answers that can be stopped."""

from moslora.data.asked import Asked
from moslora.data.fields import check_text
from moslora.data.messages import Message
from moslora.errors import DataError
from moslora.runs.kinds.interrupting import StopAfterToken
from moslora.runs.kinds.speaking import Speaker, Spoken, chat_ids


class Conversation:
    """The turns so far, and the `system` message before them (None: the chat template's own, if it has one).

    Raises DataError for a system message that the template does not take.
    """

    def __init__(self, speaker: Speaker, *, system: str | None = None) -> None:
        self.speaker = speaker
        self.turns: list[Message] = []
        self.system: str | None = None
        self.begin(system=system)

    def reset(self) -> None:
        """Forget the turns; the system message stays."""
        self.turns = []

    def begin(self, *, system: str | None) -> None:
        """Forget the turns, and set the system message. Raises DataError, changing nothing, where none is taken."""
        if system:
            check_text({"content": system}, place="the system message")
            opening: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": "?"}]
            chat_ids(Asked("?", {}, opening), self.speaker.tokenizer)
        self.turns, self.system = [], system

    def answer(self, text: str) -> Spoken:
        """Answer the next turn on stdout, as the answer is written. Ctrl-C ends it, and what was said is kept.

        Raises DataError, and forgets the turn, where the template refuses it or the model has no room for an answer.
        """
        check_text({"content": text}, place="the turn")
        opening = [{"role": "system", "content": self.system}] if self.system else []
        asked: list[Message] = [*self.turns, {"role": "user", "content": text}]
        ids = chat_ids(Asked(text, {}, [*opening, *asked]), self.speaker.tokenizer)
        self.speaker.vocabulary.check_row(ids, place="the chat")
        room = self.speaker.room(ids)
        if room < 1:
            raise DataError(
                f"the chat has {len(ids)} tokens, which leaves the model no room to answer; /reset starts a new chat"
            )
        with StopAfterToken() as stop:
            spoken = self.speaker.stream(ids, max_new_tokens=room, stop=stop)
        self.turns = [*asked, {"role": "assistant", "content": spoken.text}]
        return spoken
