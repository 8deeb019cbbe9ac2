"""Accuracy by kind of question around a circle (the paper's Figure 5), and the same numbers as a table."""

from collections.abc import Mapping, Sequence
from math import cos, pi, sin
from textwrap import fill

from moslora.reports.accuracy import Accuracy, slug
from moslora.reports.drawing import INK, MUTED, Look, Plot, legend_below, new_figure
from moslora.reports.parts import Cell, Part, Plots, Table
from moslora.reports.wording import NONE, estimate, kind_name

FEWEST, MOST = 3, 16  # kinds that make a readable circle
LABEL = 14  # letters of a line of a kind's name
HEIGHT = 390  # pixels
INTERVAL = "95 % interval"
Series = Mapping[str, Mapping[str, Accuracy]]  # by what is compared, the accuracy of each kind


def radar(series: Series, *, task: str, looks: Mapping[str, Look], prefix: str, below: str = INTERVAL) -> list[Part]:
    """The drawing and its table; nothing for fewer than three kinds. `below` says what stands under a number."""
    kinds = sorted({kind for found in series.values() for kind in found})
    if len(kinds) < FEWEST:
        return []
    table = Table(f"{task}: accuracy by kind of question, %; {below} below", ["kind", *series], _rows(series, kinds))
    return [*([Plots([_plot(series, kinds, task, looks, prefix)])] if len(kinds) <= MOST else []), table]


def _rows(series: Series, kinds: Sequence[str]) -> list[list[Cell | str]]:
    found = [[of.get(kind) for of in series.values()] for kind in kinds]
    return [
        [kind_name(kind), *(estimate(one.mean, one.low, one.high) if one else NONE for one in row)]
        for kind, row in zip(kinds, found, strict=True)
    ]


def _plot(series: Series, kinds: Sequence[str], task: str, looks: Mapping[str, Look], prefix: str) -> Plot:
    figure, axes = new_figure(HEIGHT, subplot_kw={"projection": "polar"})
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    angles = [2 * pi * number / len(kinds) for number in range(len(kinds))]
    handles = {}
    for label, found in series.items():
        values = [100 * found[kind].mean if kind in found else float("nan") for kind in kinds]
        look = looks[label]
        (handles[label],) = axes.plot(
            [*angles, angles[0]], [*values, values[0]], look.line, color=look.colour, marker=look.marker, ms=4.5
        )
    axes.set_ylim(0, 100)
    axes.set_yticks([25, 50, 75, 100], ["25", "50", "75", "100 %"], fontsize=9)
    axes.set_rlabel_position(180 / len(kinds))
    axes.set_xticks(angles, [fill(kind_name(kind), LABEL) for kind in kinds])
    for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
        label.set_horizontalalignment(_side(sin(angle), "left", "right"))
        label.set_verticalalignment(_side(cos(angle), "bottom", "top"))
    axes.tick_params(axis="x", pad=2, labelcolor=INK)
    axes.spines["polar"].set_color(MUTED)
    legend_below(figure, handles)
    caption = "The middle is 0 %, the outer circle 100 %. The table has the same numbers."
    return Plot(f"{prefix}-kinds-{slug(task)}", f"{task} by kind of question", caption, figure, is_square=True)


def _side(place: float, positive: str, negative: str) -> str:
    """Where a label is held so that it lies outside of the circle."""
    return "center" if abs(place) < 0.1 else positive if place > 0 else negative
