"""How samples name their pictures, and where in their text these stand.

A sample has pictures beside its messages (`image`, `images`: a path, bytes, or the `{bytes, path}` of `datasets`) or
within them (parts of a message's content, as in OpenAI's and transformers' chats). Either way the text then holds one
`<image>` for each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moslora.data.fields import is_given
from moslora.data.images import Picture, decoded
from moslora.errors import DataError

MARKER = "<image>"
IMAGE_FIELDS = ("image", "images")

_CONTENTS = {"messages": "content", "conversations": "value"}
_TEXT, _IMAGES = "text", ("image", "image_url")  # the types of a content's parts
_NAMING = ("image", "image_url", "path", "url", "base64")  # the fields of a part that name its picture
_NOT_READ = ("video", "videos", "audio", "audios")


def with_markers(sample: Mapping[str, Any], *, place: str) -> tuple[dict[str, Any], list[Any]]:
    """The sample as text, with MARKER where pictures stand in parts, and its pictures in order, as it names them.

    Raises DataError for a part that is neither text nor a picture, and for pictures named in two places.
    """
    for name in _NOT_READ:
        if is_given(sample.get(name)):
            raise DataError(
                f"{place}: field '{name}' is not read, only pictures and text are (to leave it out: data.ignore)"
            )
    beside = _beside(sample, place=place)
    within: list[Any] = []
    text = {name: value for name, value in sample.items() if name not in IMAGE_FIELDS}
    for name, content in _CONTENTS.items():
        if isinstance(text.get(name), list):
            rows = enumerate(text[name], start=1)
            text[name] = [_flat(row, content, within, place=f"{place}: message {number}") for number, row in rows]
    if beside and within:
        raise DataError(
            f"{place}: {len(within)} pictures in its messages and {len(beside)} beside them; name each picture once"
        )
    return text, within or beside


def picture(reference: Any, *, folder: Path | None, place: str) -> Picture:
    """The path or the bytes of a picture as a sample names it; a path is taken from `folder`, if it is relative.

    Raises DataError for an address of the web, a relative path without a folder, and anything that names no picture.
    """
    if isinstance(reference, Mapping) and {"bytes", "path"} & set(reference):
        reference = reference.get("bytes") or reference.get("path")
    if isinstance(reference, bytes):
        return reference
    if not isinstance(reference, str) or not reference:
        raise DataError(
            f"{place}: a picture is {type(reference).__name__}, expected a path, bytes or {{'bytes', 'path'}}; "
            "correct the sample (a column of datasets: cast it to Image(decode=False))"
        )
    if reference.startswith("data:"):
        return decoded(reference.partition(",")[2], place=place)
    if reference.startswith(("http://", "https://")):
        raise DataError(f"{place}: the picture '{reference}' is on the web; download it and give its path")
    path = Path(reference).expanduser()
    if folder is None and not path.is_absolute():
        raise DataError(f"{place}: the picture '{reference}' is a relative path; set data.image_folder")
    return str(path if folder is None else folder / path)


def _beside(sample: Mapping[str, Any], *, place: str) -> list[Any]:
    given = [name for name in IMAGE_FIELDS if is_given(sample.get(name)) and sample[name] != b""]
    if len(given) > 1:
        raise DataError(f"{place} has both 'image' and 'images'; keep one (to leave one out: data.ignore)")
    if not given:
        return []
    value = sample[given[0]]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _flat(row: Any, content: str, within: list[Any], *, place: str) -> Any:
    """A message whose content is text; what is none is left to the reader of chats."""
    if not isinstance(row, Mapping) or not isinstance(row.get(content), list):
        return row
    return {**row, content: _joined(row[content], within, place=place)}


def _joined(parts: Sequence[Any], within: list[Any], *, place: str) -> str:
    lines = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == _TEXT and isinstance(part.get(_TEXT), str):
            lines.append(part[_TEXT])
        elif kind in _IMAGES:
            lines.append(MARKER)
            within += _named(part)
        else:
            shown = repr(kind) if kind else repr(part)
            raise DataError(f"{place}: a part is {shown}, allowed: 'text' with its text, 'image'; correct the sample")
    return "\n".join(lines)


def _named(part: Mapping[str, Any]) -> list[Any]:
    """The picture that a part names, if it does: it may stand beside the messages instead."""
    for name in _NAMING:
        value = part.get(name)
        if not is_given(value):
            continue
        if name == "image_url" and isinstance(value, Mapping):
            return [value.get("url")]
        return [f"data:;base64,{value}" if name == "base64" else value]
    return []
