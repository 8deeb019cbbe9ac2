"""What a page is made of: chapters of sections, sections of texts, tables, plots and folds; the template draws them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moslora.evaluation.examples import Example
from moslora.reports.drawing import Plot


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind = "text"


@dataclass(frozen=True)
class Points:
    """A list of short remarks."""

    points: Sequence[str]
    kind = "points"


@dataclass(frozen=True)
class Code:
    """Settings as they are written in a file."""

    label: str
    text: str
    kind = "code"


@dataclass(frozen=True)
class Cell:
    """A value of a table, and a smaller remark under it."""

    text: str
    remark: str = ""
    span: int = 1
    share: float | None = None  # of its row, 0 to 1: tints it


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row; `words` are the other columns that hold words, not numbers.

    `is_prose`: the rows' names are sentences, which need room. `is_dense`: many columns of short numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: Sequence[str] = ()
    is_prose: bool = False
    is_dense: bool = False
    kind = "table"


@dataclass(frozen=True)
class Plots:
    """Drawings beside one another where there is room."""

    plots: Sequence[Plot]
    kind = "plots"

    @property
    def caption(self) -> str:
        """What all of several drawings have for a caption, said once."""
        captions = {plot.caption for plot in self.plots}
        return captions.pop() if len(captions) == 1 < len(self.plots) else ""


@dataclass(frozen=True)
class Examples:
    """Questions with their pictures and what was answered."""

    caption: str
    examples: Sequence[Example]
    kind = "examples"


@dataclass(frozen=True)
class Shown:
    """One method's answer as judges saw it: a picture whose content is in `uri`, or a text."""

    method: str
    uri: str = ""
    width: int = 0
    height: int = 0
    text: str = ""


@dataclass(frozen=True)
class Votes:
    """How many judges preferred the first answer, neither, the second, on one question."""

    question: str
    first: int
    ties: int
    second: int


@dataclass(frozen=True)
class JudgedPair:
    """Two answers that judges compared."""

    title: str
    facts: str
    answers: tuple[Shown, Shown]
    votes: Sequence[Votes]


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs beside one another where there is room."""

    caption: str
    pairs: Sequence[JudgedPair]
    kind = "pairs"


@dataclass(frozen=True)
class Picture:
    """One picture as wide as there is room for, `width` CSS pixels at most; `uri` holds its content."""

    caption: str
    uri: str
    width: int
    height: int
    kind = "picture"


@dataclass(frozen=True)
class Fold:
    """A part that opens and closes under its title."""

    title: str
    parts: Sequence["Part"]
    is_open: bool = False
    kind = "fold"


Part = Text | Points | Code | Table | Plots | Examples | JudgedPairs | Picture | Fold


@dataclass(frozen=True)
class Section:
    """A titled part of a chapter; `name` is unique in the page."""

    name: str
    title: str
    parts: Sequence[Part]
    intro: str = ""
    is_folded: bool = False


@dataclass(frozen=True)
class Chapter:
    """One comparison, or all runs given: a summary that begins with the number that matters, and its sections."""

    name: str
    title: str
    summary: str
    facts: str
    number: str = ""
    sections: list[Section] = field(default_factory=list)

    def add(self, name: str, title: str, *parts: Part | None, intro: str = "", is_folded: bool = True) -> None:
        """Append a section of the parts that there are; none at all, no section."""
        found = [part for part in parts if part is not None and not (isinstance(part, Plots) and not part.plots)]
        if found:
            self.sections.append(Section(f"{self.name}-{name}", title, found, intro, is_folded))


def plots_of(parts: Sequence[Part]) -> list[Plot]:
    """Every drawing in the parts, those in folds included."""
    found: list[Plot] = []
    for part in parts:
        if isinstance(part, Plots):
            found += part.plots
        elif isinstance(part, Fold):
            found += plots_of(part.parts)
    return found
