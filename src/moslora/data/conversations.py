"""Conversations with pictures: LLaVA's JSON and chat messages, read into one form that holds the literal `<image>`.

The rules are those of the reference's loader (XTuner): turns of the model that open a conversation are dropped, and the
`<image>` of a turn moves to its front. Where that loader goes on with less than the sample says, this one refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moslora.data.files import folder_hint
from moslora.data.images import MAX_PIXELS, ImageHeader, Picture, check_image
from moslora.data.messages import Chat, Message, read_chat
from moslora.data.references import MARKER, picture, with_markers
from moslora.errors import DataError

FORMS = ("conversations", "messages")  # the field that holds a sample's turns
MOST_LEFT_OUT = 0.5  # a larger share of bad samples says that the folder or the format is wrong

DROPPED = "the model's opening turn is dropped"
MOVED = f"{MARKER} is moved to the front of its turn"
PLACED = f"pictures without {MARKER} stand at the front of the only question"

# Which roles may come before a role; None is the start.
_BEFORE: dict[str, tuple[str | None, ...]] = {
    "system": (None,),
    "user": (None, "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


@dataclass(frozen=True)
class Conversation:
    """A chat whose users' turns hold `<image>` as often as there are `images`, which come in the same order.

    `headers` are the pictures' sizes, if they were looked at. `remarks` say what was changed.
    """

    chat: Chat
    images: list[Picture]
    place: str
    headers: tuple[ImageHeader, ...] = ()
    kind: str | None = None
    group: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The chat's messages, each with `role` and `content`."""
        return self.chat.messages


@dataclass(frozen=True)
class Read:
    """The conversations of a set, the samples left out (their place, and why), and what was changed in how many."""

    conversations: list[Conversation]
    left_out: list[tuple[str, str]]
    remarks: list[str]


def read_conversations(
    samples: Sequence[Mapping[str, Any]],
    *,
    source: str,
    image_folder: str | Path | None = None,
    skip_bad: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Read:
    """The samples as conversations, the header of each of their pictures looked at once.

    A sample is `{"conversations": [{"from", "value"}, …]}` or `{"messages": [{"role", "content"}, …]}`, with `image` or
    `images` beside it or in the content's parts, or without pictures. With `skip_bad` samples at fault are left out, as
    long as they are not more than MOST_LEFT_OUT of all.

    Raises DataError naming `source`, the sample (counted from 1), and what is wrong: the sample's form, the order of
    its roles, a missing answer, other counts of pictures and markers, or a picture (`check_image`); and, whatever
    `skip_bad` says, for an image folder that is missing.
    """
    if not samples:
        raise DataError(f"{source}: no samples; give at least one")
    folder = None if image_folder is None else _existing(Path(image_folder).expanduser(), source)
    conversations: list[Conversation] = []
    left_out: list[tuple[str, str]] = []
    seen: dict[str, ImageHeader] = {}
    for number, sample in enumerate(samples, start=1):
        place = f"{source}: sample {number}"
        try:
            found = read_conversation(sample, place=place, folder=folder)
            headers = tuple(_header(image, seen, place=place, max_pixels=max_pixels) for image in found.images)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error} (to leave such samples out: data.skip_bad)") from error
            left_out.append((place, str(error).removeprefix(place).removeprefix(":").strip()))
        else:
            conversations.append(replace(found, headers=headers))
    if len(left_out) > MOST_LEFT_OUT * len(samples):
        raise DataError(
            f"{source}: {len(left_out)} of {len(samples)} samples cannot be read, more than {MOST_LEFT_OUT:.0%}; "
            f"the first: {': '.join(left_out[0])} (check data.train and data.image_folder)"
        )
    return Read(conversations, left_out, _counted(conversations))


def read_conversation(sample: Mapping[str, Any], *, place: str, folder: Path | None) -> Conversation:
    """One sample as a conversation; relative paths of pictures are taken from `folder`. No picture is opened.

    Raises DataError as `read_conversations` does.
    """
    if all(sample.get(name) is None for name in FORMS):
        has = ", ".join(map(str, sample)) or "none"
        raise DataError(f"{place}: has neither {' nor '.join(FORMS)} (it has: {has}); correct the sample")
    text, references = with_markers(sample, place=place)
    images = [picture(reference, folder=folder, place=place) for reference in references]
    chat = read_chat(text, place=place)
    kept = _without_opening(chat)
    remarks = [DROPPED] if kept is not chat else []
    _check_turns(kept, place=place)
    placed = _with_markers(kept, len(images), place=place)
    remarks += [PLACED] if placed is not kept else []
    messages = [_marker_first(message) for message in placed.messages]
    moved = zip(placed.messages, messages, strict=True)
    remarks += [MOVED] if any(a["content"].find(MARKER) != b["content"].find(MARKER) for a, b in moved) else []
    kind, group = (None if sample.get(name) is None else str(sample[name]) for name in ("kind", "group"))
    return Conversation(
        replace(placed, messages=messages), images, place, kind=kind, group=group, remarks=tuple(remarks)
    )


def _without_opening(chat: Chat) -> Chat:
    """The chat without the model's turns that come before all of the user's, as the reference's loader has it."""
    start = int(chat.messages[0]["role"] == "system")
    end = start
    while end < len(chat.messages) and chat.messages[end]["role"] == "assistant":
        end += 1
    if end == start:
        return chat
    dropped = end - start
    marked = {turn - dropped * (turn >= end): mark for turn, mark in chat.marked.items() if not start <= turn < end}
    messages = chat.messages[:start] + chat.messages[end:]
    return replace(chat, messages=messages, marked=marked, added=chat.added - dropped)


def _check_turns(chat: Chat, *, place: str) -> None:
    before: str | None = None
    for turn, message in enumerate(chat.messages):
        role = message["role"]
        if before not in _BEFORE[role]:
            raise DataError(
                f"{place}: message {chat.number(turn)} is the {role}'s after {before or 'nothing'}, allowed there: "
                f"{', '.join(name or 'nothing' for name in _BEFORE[role])}; correct the order"
            )
        if MARKER in message["content"] and role != "user":
            raise DataError(
                f"{place}: message {chat.number(turn)}: {MARKER} in a turn of the {role}, allowed: user; move it there"
            )
        before = role
    answers = [message for message in chat.messages if message["role"] == "assistant"]
    if not any(message["content"].strip() or "tool_calls" in message for message in answers):
        raise DataError(f"{place}: no answer of the assistant with any text, so nothing to learn; leave the sample out")
    if before != "assistant":
        last = chat.number(len(chat.messages) - 1)
        raise DataError(f"{place}: message {last}, the last one, has no answer; take it out, or answer it")


def _with_markers(chat: Chat, pictures: int, *, place: str) -> Chat:
    """The chat with as many markers as pictures; without any, the pictures belong to the only question."""
    markers = sum(message["content"].count(MARKER) for message in chat.messages)
    if markers == pictures:
        return chat
    questions = [turn for turn, message in enumerate(chat.messages) if message["role"] == "user"]
    if markers or len(questions) != 1:
        raise DataError(
            f"{place}: {markers} {MARKER} in its text and {_pictures(pictures)}; write one {MARKER} for each picture, "
            "where it stands"
        )
    turn = questions[0]
    question = chat.messages[turn]
    placed = {**question, "content": f"{MARKER}\n" * pictures + question["content"]}
    return replace(chat, messages=[*chat.messages[:turn], placed, *chat.messages[turn + 1 :]])


def _marker_first(message: Message) -> Message:
    """The turn with its `<image>` at the front; several stay where they are, since their places have a meaning."""
    content = message["content"]
    if content.count(MARKER) != 1:
        return message
    return {**message, "content": f"{MARKER}\n{content.replace(MARKER, '').strip()}".strip()}


def _header(image: Picture, seen: dict[str, ImageHeader], *, place: str, max_pixels: int) -> ImageHeader:
    if isinstance(image, bytes):
        return check_image(image, place=place, max_pixels=max_pixels)
    if image not in seen:
        seen[image] = check_image(image, place=place, max_pixels=max_pixels)
    return seen[image]


def _existing(folder: Path, source: str) -> Path:
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{source}: the image folder '{folder}' is a file; set data.image_folder to a folder")
    missing = folder
    while not missing.parent.is_dir():
        missing = missing.parent
    raise DataError(
        f"{source}: no image folder '{folder}': {missing.parent} has no '{missing.name}'"
        f"{folder_hint(missing.name, missing.parent)}; correct data.image_folder"
    )


def _counted(conversations: Sequence[Conversation]) -> list[str]:
    lines = []
    for remark in (DROPPED, PLACED, MOVED):
        places = [found.place for found in conversations if remark in found.remarks]
        if places:
            lines.append(f"{remark} in {len(places)} sample{'s' * (len(places) > 1)} (first: {places[0]})")
    return lines


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count or 'no'} pictures"
