"""Text set in the one font that comes with Pillow, wrapped to a width. Imports no torch.

The font holds Latin letters only; signs that it lacks are drawn as boxes.
"""

from functools import cache

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

from moslora.errors import MissingDependencyError

LEADING = 1.35  # from line to line, as a share of the size
ELLIPSIS = "…"


@cache
def font(size_pixels: float) -> FreeTypeFont:
    """The font in a size in pixels. Raises MissingDependencyError for a Pillow that was built without FreeType."""
    found = ImageFont.load_default(size=size_pixels)
    if not isinstance(found, FreeTypeFont):
        raise MissingDependencyError("this Pillow cannot set text in sizes: pip install --force-reinstall pillow")
    return found


def line_height(size_pixels: float) -> int:
    """From one line to the next, in whole pixels."""
    return round(size_pixels * LEADING)


def text_width(text: str, size_pixels: float) -> float:
    """How wide a text is in one line, in pixels."""
    return font(size_pixels).getlength(text.replace("\n", " "))


def wrapped(text: str, width: float, *, size_pixels: float, most_lines: int | None = None) -> list[str]:
    """The lines of a text that are at most `width` pixels wide, broken between words, or within one that is wider.

    What is beyond `most_lines` is left out, which an ellipsis at the end shows.
    """
    letters = font(size_pixels)
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
