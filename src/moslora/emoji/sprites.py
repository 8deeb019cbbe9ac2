"""The sprites: emoji by the artists of Noto and Twemoji, cut from one sheet a style.

`concepts.tsv` lists the concepts (name, code point, class word); `CREDITS.md` says who drew them, and their licences.
Eight concepts are the subjects: the shipped pipeline was trained without them.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from moslora.errors import ConfigError

FOLDER = Path(__file__).with_name("atlas")
STYLES = ("noto", "twemoji")
# Pixels: the side of one square cell of a sheet, and the cells in one row of it.
CELL = 72
COLUMNS = 16
SUBJECTS = ("fox", "flamingo", "pineapple", "hamburger", "rocket", "sunflower", "guitar", "castle")


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn: its English name, its Unicode code points in hexadecimal, its class word."""

    name: str
    code: str
    class_word: str


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """All concepts, subjects included, in the order of the sheets."""
    lines = (FOLDER / "concepts.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(Concept(*line.split("\t")) for line in lines)


def concept(name: str) -> Concept:
    """The concept of that name; an unknown name is an error."""
    return concepts()[_index(name)]


def sprite(name: str, style: str) -> Image.Image:
    """The drawing of a concept as RGBA, trimmed to what is drawn, its longer side `CELL` pixels."""
    if style not in STYLES:
        raise ConfigError(f"style is {style!r}; choose one of {', '.join(STYLES)}")
    index = _index(name)
    left, top = index % COLUMNS * CELL, index // COLUMNS * CELL
    cell = _sheet(style).crop((left, top, left + CELL, top + CELL))
    return cell.crop(cell.getchannel("A").getbbox())


@functools.cache
def _sheet(style: str) -> Image.Image:
    with Image.open(FOLDER / f"{style}.webp") as sheet:
        return sheet.convert("RGBA")


@functools.cache
def _places() -> dict[str, int]:
    return {each.name: index for index, each in enumerate(concepts())}


def _index(name: str) -> int:
    if name not in _places():
        raise ConfigError(f"concept is {name!r}; moslora.emoji.sprites.concepts() lists the {len(_places())} known")
    return _places()[name]
