"""A few pictures of a subject or a style, each with its caption: what subject-driven tuning learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moslora.data.images import ENDINGS, ImageHeader, Picture, check_image
from moslora.errors import DataError, suggestion

PROMPT, FILES, NAMES = "prompt", "files", "names"
CAPTIONS = (PROMPT, FILES, NAMES)


@dataclass(frozen=True)
class Photo:
    """A picture, its caption, what messages call it, and its size in pixels as a person sees it."""

    picture: Picture
    caption: str
    name: str
    header: ImageHeader


def read_photos(folder: str | Path, *, captions: str | None = None, prompt: str | None = None) -> list[Photo]:
    """The pictures of a folder in the order of their names, each checked by its header.

    Captions are one `prompt` for all, the `files` of the pictures' names with the ending .txt, or the `names`
    themselves (words parted by _ or -, without a number at the end). By default the prompt if there is one, else text
    files if there are any, else the names. Raises DataError naming the folder or the file.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        beside = [str(path) for path in place.parent.glob("*") if path.is_dir()] if place.parent.is_dir() else []
        raise DataError(f"data.train: no folder {place}{suggestion(str(place), beside)}; name a folder of pictures")
    paths = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise DataError(f"{place} holds no picture (endings: {', '.join(ENDINGS)}); name the folder that does")
    chosen = captions or _by_default(paths, prompt)
    return [
        Photo(str(path), _caption(path, chosen, prompt), path.name, check_image(str(path), place=str(place)))
        for path in paths
    ]


def _by_default(paths: Sequence[Path], prompt: str | None) -> str:
    if prompt is not None:
        return PROMPT
    return FILES if any(path.with_suffix(".txt").is_file() for path in paths) else NAMES


def _caption(path: Path, captions: str, prompt: str | None) -> str:
    if captions == PROMPT:
        if prompt is None:
            raise DataError("data.captions: prompt needs data.prompt, such as 'a photo of sks dog'")
        return prompt
    if captions == FILES:
        return _from_file(path.with_suffix(".txt"))
    found = " ".join(path.stem.replace("_", " ").replace("-", " ").split()).rstrip("0123456789() ")
    if not found:
        raise DataError(
            f"{path}: its name is not a caption; rename it, write {path.stem}.txt beside it, or give data.prompt"
        )
    return found


def _from_file(path: Path) -> str:
    try:
        found = " ".join(path.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError as error:
        raise DataError(f"no caption {path}; write it, or give data.prompt for all pictures") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the caption {path} ({error}); save it as UTF-8") from error
    if not found:
        raise DataError(f"the caption {path} is empty; write what the picture shows")
    return found
