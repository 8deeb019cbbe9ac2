"""What `moslora generate --chat` does: lines of a person, answers of the model."""

import sys
from typing import TYPE_CHECKING

from moslora.cli.options import remarks
from moslora.errors import DataError

if TYPE_CHECKING:
    from moslora.runs.kinds.conversing import Conversation
    from moslora.runs.kinds.speaking import Speaker

MARK = "> "
GREETING = (
    "chat: one line a turn; Ctrl-C stops an answer; an empty line, or Ctrl-D, ends it\n"
    "/reset starts a new chat, /system TEXT sets the system message (and begins anew)"
)


def hold_chat(speaker: "Speaker", *, system: str | None) -> None:
    """Answer what is typed, line by line, until an empty line or the end of input."""
    from moslora.runs.kinds.conversing import Conversation

    conversation = Conversation(speaker, system=system)
    remarks.print(GREETING, style="dim")
    while line := _next_line():
        try:
            if not _obeyed(line, conversation):
                spoken = conversation.answer(line)
                if spoken.is_cut:
                    remarks.print(f"(cut at {spoken.tokens} tokens)", style="dim")
        except DataError as error:
            remarks.print(f"not answered: {error}", style="yellow")


def _obeyed(line: str, conversation: "Conversation") -> bool:
    """Whether the line was a command, and has been followed."""
    command, _, text = line.partition(" ")
    match command:
        case "/reset":
            conversation.reset()
            remarks.print("the chat begins anew", style="dim")
        case "/system":
            conversation.begin(system=text.strip() or None)
            told = f"system message: {conversation.system}" if conversation.system else "no system message"
            remarks.print(f"{told}; the chat begins anew", style="dim")
        case _ if command.startswith("/"):
            remarks.print(f"no command {command} (there are: /reset, /system TEXT)", style="yellow")
        case _:
            return False
    return True


def _next_line() -> str:
    """What is typed next; empty at the end."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        import readline  # noqa: F401 - lines can be edited and called back

        try:
            return input(MARK).strip()
        except EOFError:
            return ""
    if sys.stdin.isatty():
        remarks.print(MARK, end="")
    return sys.stdin.readline().strip()
