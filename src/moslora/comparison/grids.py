"""A table of a comparison before it takes a form."""

from typing import NamedTuple

NOTHING = "–"


class Cell(NamedTuple):
    """What stands in a cell, and whether it stands out: the highest mean, or a difference that is shown."""

    text: str
    is_bold: bool = False


class Grid(NamedTuple):
    """A table before it takes a form."""

    head: list[str]
    rows: list[list[Cell]]
