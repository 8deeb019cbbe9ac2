"""Pictures as PNG files that say how they were made, and that are read back with it. Imports no torch.

A file holds the settings twice: as JSON under `moslora`, which is read back, and as the line of text under `parameters`
that image viewers and web interfaces for diffusion models show.
"""

import io
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from moslora.errors import DataError
from moslora.files import write_atomically
from moslora.painting.requests import Request

KEY, READABLE_KEY = "moslora", "parameters"
SLUG_LENGTH = 40

_NAME = re.compile(r"(\d{4,})-seed(\d+)(?:-[a-z0-9-]+)?\.png")
_READABLE = {"steps": "Steps", "guidance": "CFG scale", "seed": "Seed"}


@dataclass(frozen=True)
class Painted:
    """A picture's file, what was asked for, and what else was noted about how it was made.

    `is_withheld` says that a safety checker replaced the picture by a black one.
    """

    path: Path
    request: Request
    settings: dict[str, Any]
    is_withheld: bool = False

    @property
    def image(self) -> Image.Image:
        """The picture in RGB, read anew. Raises DataError if the file is broken."""
        try:
            with Image.open(self.path) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise DataError(f"{self.path}: broken or cut off ({error}); draw it again") from error


def picture_name(request: Request) -> str:
    """The name of a picture's file: `0007-seed3-a-cat-in-the-snow.png` for prompt number 7 and seed 3."""
    plain = unicodedata.normalize("NFKD", request.prompt).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain))
    if len(slug) > SLUG_LENGTH:  # whole words, if there are several
        slug = slug[: SLUG_LENGTH + 1].rpartition("-")[0] or slug[:SLUG_LENGTH]
    return f"{request.number:04d}-seed{request.seed}" + (f"-{slug}" if slug else "") + ".png"


def write_picture(
    folder: str | Path,
    image: Image.Image,
    *,
    request: Request,
    settings: Mapping[str, Any] | None = None,
    is_withheld: bool = False,
) -> Path:
    """Write a picture atomically into a folder that exists, under its `picture_name`; the path of the file.

    `settings` are further JSON values, such as the model and the adapter. Raises OutputError if it cannot be written.
    """
    whole = replace(request, width=image.width, height=image.height)
    info = PngInfo()
    told = {"request": asdict(whole), "settings": dict(settings or {}), "is_withheld": is_withheld}
    info.add_text(KEY, json.dumps(told))
    info.add_text(READABLE_KEY, readable(whole, settings or {}))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    path = Path(folder) / picture_name(request)
    write_atomically(path, stream.getvalue())
    return path


def readable(request: Request, settings: Mapping[str, Any]) -> str:
    """The settings as the text that is usual in such files: the prompt, what to avoid, and a line of names and values.

    Further settings stand at the end, by their names with a capital, unless they are lists or mappings.
    """
    values = {shown: getattr(request, name) for name, shown in _READABLE.items()}
    values["Size"] = f"{request.width}x{request.height}"
    values |= {
        name.replace("_", " ").capitalize(): value
        for name, value in settings.items()
        if isinstance(value, str | int | float)
    }
    lines = [request.prompt, f"Negative prompt: {request.negative_prompt}" if request.negative_prompt else ""]
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in values.items()))
    return "\n".join(line for line in lines if line)


def read_picture(path: str | Path) -> Painted:
    """What a picture's file says of itself; its pixels are not decoded.

    Raises DataError for a file that is missing, no PNG, or was not written by `write_picture`.
    """
    path = Path(path)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = json.loads(image.info[KEY])  # chunks before the pixels
        return Painted(path, Request(**found["request"]), dict(found["settings"]), bool(found["is_withheld"]))
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}; correct the path") from error
    except OSError as error:
        raise DataError(f"{path}: no PNG file that can be read ({error}); draw it again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: does not say how it was made (no text '{KEY}' that can be read); draw it with moslora generate"
        ) from error


def read_pictures(folder: str | Path) -> list[Painted]:
    """The pictures in a folder by prompt number and seed; files of other names are passed over.

    Raises DataError as `read_picture` does, for two files of one number and seed, and for a folder without pictures.
    """
    found: dict[tuple[int, int], Painted] = {}
    for path in sorted(Path(folder).glob("*.png")):
        name = _NAME.fullmatch(path.name)
        if name is None:
            continue
        place = int(name[1]), int(name[2])
        if place in found:
            raise DataError(
                f"{folder}: {found[place].path.name} and {path.name} are both prompt {place[0]} with seed {place[1]};"
                " remove the one that is out of date"
            )
        found[place] = read_picture(path)
    if not found:
        raise DataError(f"{folder}: has no pictures of moslora generate; name the folder that it wrote")
    return [found[place] for place in sorted(found)]


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value
