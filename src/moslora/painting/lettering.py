"""Text set in fonts that are there for certain, wrapped to a width. Imports no torch.

Pillow's own font has few letters beside those of English. A text with others is set in DejaVu Sans, which comes with
matplotlib and has those of most alphabets; what that lacks, such as Chinese, is drawn as boxes.
"""

from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

from moslora.errors import MissingDependencyError

LEADING = 1.35  # from line to line, as a share of the size
ELLIPSIS = "…"

_NOWHERE = "\U0010ffff"  # no font has it: what it looks like is what a missing sign looks like
_PROBE_PIXELS = 24


def font_for(text: str, size_pixels: float) -> FreeTypeFont:
    """The font that has all signs of a text, in a size in pixels.

    Raises MissingDependencyError for a Pillow that was built without FreeType.
    """
    is_plain = all(_has(sign) for sign in set(text) if not sign.isspace())
    return _own(size_pixels) if is_plain else _wide(size_pixels)


def line_height(size_pixels: float) -> int:
    """From one line to the next, in whole pixels."""
    return round(size_pixels * LEADING)


def text_width(text: str, size_pixels: float) -> float:
    """How wide a text is in one line, in pixels."""
    return font_for(text, size_pixels).getlength(" ".join(text.split()))


def wrapped(text: str, width: float, *, size_pixels: float, most_lines: int | None = None) -> list[str]:
    """The lines of a text that are at most `width` pixels wide, broken between words, or within one that is wider.

    What is beyond `most_lines` is left out, which an ellipsis at the end shows.
    """
    letters = font_for(text, size_pixels)
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            for piece in _pieces(word, width, letters):
                longer = f"{line} {piece}".lstrip()
                if line and letters.getlength(longer) > width:
                    lines.append(line)
                    longer = piece
                line = longer
        lines.append(line)
    if most_lines is None or len(lines) <= most_lines:
        return lines
    kept = lines[: max(1, most_lines)]
    while kept[-1] and letters.getlength(kept[-1] + ELLIPSIS) > width:
        kept[-1] = kept[-1][:-1]
    return [*kept[:-1], kept[-1].rstrip(" ,.;") + ELLIPSIS]


def _pieces(word: str, width: float, letters: FreeTypeFont) -> list[str]:
    """A word in parts that fit; each has at least one letter."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and letters.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


@cache
def _own(size_pixels: float) -> FreeTypeFont:
    found = ImageFont.load_default(size=size_pixels)
    if not isinstance(found, FreeTypeFont):
        raise MissingDependencyError("this Pillow cannot set text in sizes: pip install --force-reinstall pillow")
    return found


@cache
def _wide(size_pixels: float) -> FreeTypeFont:
    import matplotlib  # only here: it is slow to import

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_pixels)


@cache
def _has(sign: str) -> bool:
    """Whether Pillow's own font has a sign."""
    shape, missing = (_shape(one) for one in (sign, _NOWHERE))
    return shape != missing


def _shape(sign: str) -> bytes:
    mask: Any = _own(_PROBE_PIXELS).getmask(sign)
    return bytes(mask)
