"""Accuracy with intervals, paired differences, accuracy against cost, and accuracy along an axis of the plan."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import dist, log10

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from moslora.comparison.verdict import claim
from moslora.records import Difference
from moslora.reports.drawing import (
    INK,
    MUTED,
    PAPER,
    RULE,
    Look,
    Plot,
    legend_below,
    log_scale,
    new_figure,
    rows_axis,
    shortened,
    whole_steps,
)
from moslora.reports.wording import guessed

ROW, MARGIN = 24, 76  # pixels of a row, and of what stands around the rows
LETTER = 6.2  # pixels of a letter of a label
LABEL_PLACES = [(right, up) for up in (0, 9, -9) for right in (True, False)]  # beside a point, by preference
INTERVAL = "for new seeds and new {}"  # what a comparison's intervals are of; questions, or what else is scored
DODGE = 0.012  # of an axis, between the marks of two lines at the same value


@dataclass(frozen=True)
class Accuracy:
    """An accuracy (0 to 1), its 95 % interval where there is one, and the values it was drawn from."""

    label: str
    mean: float
    low: float | None = None
    high: float | None = None
    values: Sequence[float] = ()


@dataclass(frozen=True)
class Point:
    """An arm's cost in some unit and its accuracy (0 to 1)."""

    label: str
    cost: float
    accuracy: float


def accuracy_plot(
    estimates: Sequence[Accuracy],
    *,
    task: str,
    looks: Mapping[str, Look],
    prefix: str,
    interval: str,
    chance: float | None = None,
) -> Plot:
    """A dot for each arm, whiskers for its interval, small dots for its seeds; `interval` says of what.

    A dotted line stands at what guessing would get, if that is given.
    """
    figure, axes = new_figure(MARGIN + ROW * len(estimates))
    if chance is not None:
        axes.axvline(100 * chance, color=MUTED, lw=1, ls=":")
        place = {"xy": (100 * chance, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate("guessing", **place, xytext=(0, 2), ha="center", va="bottom", fontsize=10, color=MUTED)
    for row, found in enumerate(estimates):
        look = looks[found.label]
        seeds = [100 * value for value in found.values] if len(found.values) > 1 else []
        axes.plot(seeds, [row + 0.28] * len(seeds), ".", color=look.colour, ms=4, alpha=0.8)
        whisker(axes, row, (found.mean, found.low, found.high), colour=look.colour, is_filled=True)
    rows_axis(axes, [found.label for found in estimates])
    axes.set_xlabel("accuracy, %")
    _say_whiskers(figure, interval, estimates)
    whole_steps(axes, axis="x")
    axes.margins(x=0.06)
    has_values = any(len(found.values) > 1 for found in estimates)
    caption = f"Whiskers: 95 % interval {interval}." + (" Small dots below: the seeds." if has_values else "")
    caption += f" Dotted: guessing ({guessed(chance)})." if chance is not None else ""
    return Plot(f"{prefix}-accuracy-{slug(task)}", task, caption, figure)


def forest_plot(differences: Sequence[Difference], *, task: str, prefix: str, interval: str) -> Plot:
    """Each arm minus its baseline with the interval; filled where Holm's correction leaves the difference shown."""
    figure, axes = new_figure(MARGIN + ROW * len(differences))
    axes.axvline(0, color=MUTED, lw=1)
    for row, found in enumerate(differences):
        whisker(axes, row, (found.mean, found.low, found.high), colour=INK, is_filled=bool(claim(found)))
    rows_axis(axes, [found.arm for found in differences])
    baselines = {found.baseline for found in differences}
    against = shortened(baselines.pop()) if len(baselines) == 1 else "its baseline"
    axes.set_xlabel(f"percentage points above {against}")
    _say_whiskers(figure, interval, differences)
    caption = (
        f"Whiskers: 95 % interval {interval}, not corrected for the number of arms. Filled: a difference is shown after"
        " that correction (Holm)."
    )
    return Plot(f"{prefix}-difference-{slug(task)}", task, caption, figure)


def cost_plot(
    points: Sequence[Point],
    *,
    unit: str,
    title: str,
    looks: Mapping[str, Look],
    prefix: str,
    chance: float | None = None,
) -> Plot:
    """Accuracy against a cost; the arms that no other beats in both are filled and joined."""
    figure, axes = new_figure(270)
    steps = pareto(points)
    front = {point.label for point in steps}
    axes.plot([p.cost for p in steps], [100 * p.accuracy for p in steps], color=RULE, lw=3, drawstyle="steps-post")
    for point in points:
        look = looks[point.label]
        face = look.colour if point.label in front else PAPER
        axes.plot(point.cost, 100 * point.accuracy, look.marker, color=look.colour, mfc=face, ms=7)
    costs = [point.cost for point in points]
    if min(costs) > 0 and log10(max(costs) / min(costs)) > 1:
        log_scale(axes, axis="x")
    axes.margins(x=0.12, y=0.12)
    also = _guessing(axes, chance, [point.accuracy for point in points])
    whole_steps(axes, axis="y", most=6)
    axes.set_xlabel(unit)
    axes.set_ylabel("average accuracy, %")
    name_them = partial(_label_points, axes, points, front=front)
    name_them()
    caption = (
        "Filled and joined: no other arm is both cheaper and better (in the means; see the intervals above). Points"
        f" without room for a name: see the table.{also}"
    )
    return Plot(f"{prefix}-cost-{slug(title)}", title, caption, figure, arrange=name_them)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in cost and accuracy, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def axis_plot(
    lines: Mapping[str, Sequence[tuple[float, Accuracy]]],
    *,
    axis: str,
    task: str,
    looks: Mapping[str, Look],
    prefix: str,
    interval: str,
    show: Callable[[float], str],
    chance: float | None = None,
) -> Plot:
    """Accuracy along an axis of the plan, one line a method; `show` writes a value of the axis."""
    figure, axes = new_figure(280)
    handles = {}
    values = sorted({place for points in lines.values() for place, _ in points})
    for number, (label, points) in enumerate(lines.items()):
        look = looks[label]
        aside = (number - (len(lines) - 1) / 2) * DODGE * (values[-1] - values[0])
        places, means = [place + aside for place, _ in points], [100 * found.mean for _, found in points]
        (handles[label],) = axes.plot(places, means, look.line, color=look.colour, marker=look.marker, ms=5)
        for place, (_, found) in zip(places, points, strict=True):
            if found.low is not None and found.high is not None:
                axes.plot([place] * 2, [100 * found.low, 100 * found.high], color=look.colour, lw=1.2, alpha=0.7)
    also = _guessing(axes, chance, [found.mean for points in lines.values() for _, found in points])
    whole_steps(axes, axis="y", most=6)
    axes.set_xticks(values, [show(value) for value in values])
    axes.set_ylabel("accuracy, %")
    has_whiskers = any(found.low is not None for points in lines.values() for _, found in points)
    axes.set_xlabel(f"{axis}\nwhiskers: 95 % interval {interval}" if has_whiskers else axis)
    legend_below(figure, handles)
    return Plot(f"{prefix}-{slug(axis)}-{slug(task)}", task, f"Whiskers: 95 % interval {interval}.{also}", figure)


def _guessing(axes: Axes, chance: float | None, values: Sequence[float]) -> str:
    """A dotted line at what guessing gets, unless it lies so far off that it would flatten the rest; the caption."""
    if chance is None:
        return ""
    if min(values) - chance > (max(values) - min(values)) / 2:
        return f" Guessing gets {guessed(chance)}, which is below this chart."
    axes.axhline(100 * chance, color=MUTED, lw=1, ls=":")
    return f" Dotted: guessing ({guessed(chance)})."


def _step(one: Iterable[float], other: Iterable[float]) -> list[Bbox]:
    """The two lines that join neighbours of the front, first to the side and then up."""
    x, y, to_x, to_y = (*one, *other)
    return [Bbox.from_extents(x, y - 2, to_x, y + 2), Bbox.from_extents(to_x - 2, y, to_x + 2, to_y)]


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split()) or "x"


def _say_whiskers(figure: Figure, interval: str, found: Sequence[Accuracy] | Sequence[Difference]) -> None:
    """Write what the whiskers are into the drawing, which is often seen without its caption."""
    if any(one.low is not None for one in found):
        figure.supxlabel(f"whiskers: 95 % interval {interval}", fontsize=10, color=MUTED)


def whisker(
    axes: Axes, row: int, found: tuple[float, float | None, float | None], *, colour: str, is_filled: bool
) -> None:
    """A dot at a mean and its interval (shares, drawn as percent), in a row of a plot."""
    mean, low, high = found
    if low is not None and high is not None:
        axes.plot([100 * low, 100 * high], [row, row], color=colour, lw=1.8, solid_capstyle="butt")
    axes.plot(100 * mean, row, "o", color=colour, mfc=colour if is_filled else PAPER, ms=7)


def _label_points(axes: Axes, points: Sequence[Point], *, front: set[str]) -> None:
    """A name beside each point that has room for it, those of the front first; near another point it would mislead."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes of a figure"
    for former in [*axes.texts]:
        former.remove()
    figure.draw_without_rendering()
    places = {p.label: axes.transData.transform((p.cost, 100 * p.accuracy)) for p in points}

    def nearest(place: tuple[float, float]) -> str:
        return min(places, key=lambda label: dist(places[label], place))

    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in places.values()]
    taken += [box for one, other in pairwise(places[p.label] for p in pareto(points)) for box in _step(one, other)]
    for point in sorted(points, key=lambda point: (point.label not in front, -point.accuracy)):
        text = shortened(point.label, length=22)
        x, y = places[point.label]
        for right, up in LABEL_PLACES:
            aside, width = 7 if right else -7, LETTER * len(text)
            near = (x + aside, y + up)
            box = Bbox.from_bounds(near[0] if right else near[0] - width, near[1] - 6, width, 12)
            is_inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 8
            if not is_inside or box.count_overlaps(taken) or nearest(near) != point.label:
                continue
            taken.append(box)
            axes.annotate(
                text,
                (point.cost, 100 * point.accuracy),
                xytext=(aside, up),
                textcoords="offset points",
                va="center",
                ha="left" if right else "right",
                fontsize=10,
            )
            break
