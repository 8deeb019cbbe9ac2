"""How every plot looks, and how it becomes an inline SVG for a light or dark page, or a PNG or SVG file.

Colours are the light page's; in the page each becomes a CSS variable, so one drawing serves both.
"""

import io
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from moslora.errors import OutputError

WIDTH = 420  # pixels of a plot as drawn: fits a phone almost unscaled
WIDE = 920  # pixels of the same plot as a page on a desk shows it, with letters of the same size
PIXELS_AN_INCH = 72  # so that a point is a pixel
FILE_DPI = 200
FORMATS = ("png", "svg")
PAPER, INK, MUTED, RULE = "#ffffff", "#1c2127", "#5b6470", "#dfe2e6"
SERIES = ("#0b65c2", "#c2410c", "#15803d", "#8b2fc9", "#0e7490", "#be185d", "#8a5a0a", "#4b4fd6")
NEGATIVE, POSITIVE = (0x2B, 0x6C, 0xD4), (0xD9, 0x5F, 0x0E)  # readable on both pages
VARIABLES = {PAPER: "--paper", INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
MARKERS = ("s", "^", "D", "v", "P", "X", "p", "o")
STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "figure.dpi": PIXELS_AN_INCH,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "moslora",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 10.5,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.labelsize": 10.5,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Plot:
    """A drawing with the words that belong to it; `name` is the stem of its files.

    `is_square`: its shape is part of what it says, so that it is not drawn wider for a wide page. `arrange` places what
    depends on the drawing's width.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    is_square: bool = False
    arrange: Callable[[], None] | None = None

    def svg(self) -> Markup:
        """The drawing for the page: once for a narrow one and once for a wide one, which shows one of them."""
        label = f"{self.title}. {self.caption}"
        narrow = inline_svg(self.figure, label=label, name=self.name, shown="square" if self.is_square else "narrow")
        if self.is_square:
            return narrow
        self._widen(WIDE)
        wide = inline_svg(self.figure, label=label, name=f"{self.name}-wide", shown="wide")
        self._widen(WIDTH)
        return narrow + wide

    def _widen(self, width: float) -> None:
        self.figure.set_figwidth(width / PIXELS_AN_INCH)
        if self.arrange:
            with styled():
                self.arrange()


@dataclass(frozen=True)
class Look:
    """How an arm looks in every plot of a page."""

    colour: str
    marker: str
    line: str


@contextmanager
def styled() -> Iterator[None]:
    """Our style, for as long as figures are made; a letter that the font lacks is drawn as a box in silence."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def looks(labels: Sequence[str], *, baselines: Collection[str] = ()) -> dict[str, Look]:
    """A look for every label: grey and dashed for a baseline, another colour, marker and line for each other."""
    found, numbers = {}, count()
    for label in labels:
        if label in baselines:
            found[label] = Look(MUTED, "o", "--")
            continue
        number = next(numbers)
        lines = ("-", "-.", ":")
        found[label] = Look(SERIES[number % 8], MARKERS[number % 8], lines[number // 8 % 3])
    return found


def new_figure(height: float, *, rows: int = 1, columns: int = 1, width: float = WIDTH, **options: Any) -> Any:
    """A figure of so many pixels and its axes; `options` go to `Figure.subplots`."""
    figure = Figure(figsize=(width / PIXELS_AN_INCH, height / PIXELS_AN_INCH), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    """One row a label, the first on top, without lines between them."""
    axes.set_yticks(range(len(labels)), [shortened(label) for label in labels])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def log_scale(axes: Axes, *, axis: str) -> None:
    """A logarithmic axis ("x" or "y") of what is drawn, with plain numbers at 1, 2 and 5, or at 1 over many decades."""
    axes.set(**{f"{axis}scale": "log"})
    own = axes.xaxis if axis == "x" else axes.yaxis
    low, high = own.get_view_interval()
    own.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    own.set_major_formatter(StrMethodFormatter("{x:g}"))
    own.set_minor_formatter(NullFormatter())
    own.set_tick_params(which="minor", size=0)


def whole_steps(axes: Axes, *, axis: str, most: int = 8) -> None:
    """Ticks of an axis ("x" or "y") at whole numbers, in steps that are easy to count on."""
    own = axes.xaxis if axis == "x" else axes.yaxis
    own.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))


def shortened(label: str, *, length: int = 26) -> str:
    """A label that fits beside a plot."""
    return label if len(label) <= length else f"{label[: length - 1]}…"


def image_kind(path: str | Path) -> str:
    """ "png" or "svg" by the name's ending. Raises `OutputError` for another one."""
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise OutputError(f"{path} does not end in .png or .svg; give a name that does")
    return kind


def image_bytes(plot: Plot, kind: str) -> bytes:
    """The drawing with its title as the content of a "png" or "svg" file, on white."""
    stream = io.BytesIO()
    with styled():
        plot.figure.suptitle(plot.title, x=0.01, ha="left", fontsize=13)
        metadata = {"Date": None} if kind == "svg" else {}
        plot.figure.savefig(stream, format=kind, dpi=FILE_DPI, facecolor=PAPER, metadata=metadata)
        plot.figure.suptitle("")
    return stream.getvalue()


def inline_svg(figure: Figure, *, label: str, name: str, shown: str) -> Markup:
    """The drawing as an SVG element that takes its colours and letters from the page; `name` keeps its ids apart.

    `shown` is its class, by which the page says where it is shown.
    """
    stream = io.StringIO()
    with styled(), mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", transparent=False, facecolor="none", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"((?:fill|stroke|stop-color): )(#[0-9a-f]{6})", _variable, text)
    text = re.sub(r'(\bid=")([^"]+")', rf"\g<1>{name}-\2", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size, "matplotlib writes a viewBox"
    head = (
        f'<svg class="{shown}" viewBox="0 0 {size[1]} {size[2]}" width="{size[1]}" role="img"'
        f' aria-label="{escape(label)}"'
    )
    body = text[text.index(">") + 1 :]
    return Markup(f'{head} xmlns:xlink="http://www.w3.org/1999/xlink">{body.strip()}')


def _variable(match: re.Match[str]) -> str:
    name = VARIABLES.get(match[2])
    return f"{match[1]}var({name})" if name else match[0]


def legend_below(figure: Figure, handles: Mapping[str, Any]) -> None:
    """One legend under all axes, at most three labels a line."""
    columns = 1 if max(map(len, handles)) > 18 else 2 if max(map(len, handles)) > 11 else 3
    figure.legend(
        [*handles.values()],
        [shortened(label, length=34) for label in handles],
        loc="outside lower left",
        ncols=columns,
        handlelength=2.4,
    )
