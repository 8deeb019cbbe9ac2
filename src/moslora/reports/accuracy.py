"""Accuracy with intervals, paired differences, accuracy against cost, and accuracy along an axis of the plan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log10

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

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
)

ROW, MARGIN = 24, 62  # pixels of a row, and of what stands around the rows


@dataclass(frozen=True)
class Estimate:
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
    estimates: Sequence[Estimate], *, task: str, looks: Mapping[str, Look], prefix: str, interval: str
) -> Plot:
    """A dot for each arm, whiskers for its interval, small dots for its seeds; `interval` says of what."""
    figure, axes = new_figure(MARGIN + ROW * len(estimates))
    for row, found in enumerate(estimates):
        look = looks[found.label]
        seeds = [100 * value for value in found.values] if len(found.values) > 1 else []
        axes.plot(seeds, [row + 0.28] * len(seeds), ".", color=look.colour, ms=4, alpha=0.8)
        _whisker(axes, row, (found.mean, found.low, found.high), colour=look.colour, is_filled=True)
    rows_axis(axes, [found.label for found in estimates])
    axes.set_xlabel("accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    has_values = any(len(found.values) > 1 for found in estimates)
    caption = f"Whiskers: 95 % interval {interval}." + (" Small dots below: the seeds." if has_values else "")
    return Plot(f"{prefix}-accuracy-{slug(task)}", task, caption, figure)


def forest_plot(differences: Sequence[Difference], *, task: str, prefix: str) -> Plot:
    """Each arm minus its baseline with the interval; filled where Holm's correction leaves the difference shown."""
    figure, axes = new_figure(MARGIN + ROW * len(differences))
    axes.axvline(0, color=MUTED, lw=1)
    for row, found in enumerate(differences):
        _whisker(axes, row, (found.mean, found.low, found.high), colour=INK, is_filled=bool(claim(found)))
    rows_axis(axes, [found.arm for found in differences])
    baselines = {found.baseline for found in differences}
    axes.set_xlabel(f"percentage points above {shortened(baselines.pop()) if len(baselines) == 1 else 'its baseline'}")
    caption = (
        "Whiskers: 95 % interval, paired by seed, not corrected for the number of arms. Filled: a difference is shown"
        " after that correction (Holm)."
    )
    return Plot(f"{prefix}-difference-{slug(task)}", task, caption, figure)


def cost_plot(points: Sequence[Point], *, unit: str, title: str, looks: Mapping[str, Look], prefix: str) -> Plot:
    """Accuracy against a cost; the arms that no other beats in both are filled and joined."""
    figure, axes = new_figure(270)
    front = {point.label for point in pareto(points)}
    steps = pareto(points)
    axes.plot([p.cost for p in steps], [100 * p.accuracy for p in steps], color=RULE, lw=3, drawstyle="steps-post")
    for point in points:
        look = looks[point.label]
        face = look.colour if point.label in front else PAPER
        axes.plot(point.cost, 100 * point.accuracy, look.marker, color=look.colour, mfc=face, ms=7)
    costs = [point.cost for point in points]
    if min(costs) > 0 and log10(max(costs) / min(costs)) > 1:
        log_scale(axes, axis="x")
    axes.margins(x=0.12, y=0.12)
    _label_points(axes, points)
    axes.set_xlabel(unit)
    axes.set_ylabel("average accuracy, %")
    caption = "Filled and joined: no other arm is both cheaper and better (in the means; see the intervals above)."
    return Plot(f"{prefix}-cost-{slug(title)}", title, caption, figure)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in cost and accuracy, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def axis_plot(
    lines: Mapping[str, Sequence[tuple[float, Estimate]]],
    *,
    axis: str,
    task: str,
    looks: Mapping[str, Look],
    prefix: str,
    show: Callable[[float], str],
) -> Plot:
    """Accuracy along an axis of the plan, one line a method; `show` writes a value of the axis."""
    figure, axes = new_figure(280)
    handles = {}
    for label, points in lines.items():
        look = looks[label]
        places, means = [place for place, _ in points], [100 * found.mean for _, found in points]
        (handles[label],) = axes.plot(places, means, look.line, color=look.colour, marker=look.marker, ms=5)
        for place, found in points:
            if found.low is not None and found.high is not None:
                axes.plot([place] * 2, [100 * found.low, 100 * found.high], color=look.colour, lw=1.2, alpha=0.7)
    values = sorted({place for points in lines.values() for place, _ in points})
    axes.set_xticks(values, [show(value) for value in values])
    axes.set_xlabel(axis)
    axes.set_ylabel("accuracy, %")
    legend_below(figure, handles)
    return Plot(f"{prefix}-{slug(axis)}-{slug(task)}", task, "Whiskers: 95 % interval over seeds.", figure)


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split()) or "x"


def _whisker(
    axes: Axes, row: int, found: tuple[float, float | None, float | None], *, colour: str, is_filled: bool
) -> None:
    mean, low, high = found
    if low is not None and high is not None:
        axes.plot([100 * low, 100 * high], [row, row], color=colour, lw=1.8, solid_capstyle="butt")
    axes.plot(100 * mean, row, "o", color=colour, mfc=colour if is_filled else PAPER, ms=7)


def _label_points(axes: Axes, points: Sequence[Point]) -> None:
    """Names above and beside the points, moved up where they would touch, to the left near the right edge."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes of a figure"
    figure.draw_without_rendering()
    taken: list[tuple[float, float, float]] = []  # left, right, height of a label's middle, in pixels
    for point in sorted(points, key=lambda point: point.accuracy):
        x, y = axes.transData.transform((point.cost, 100 * point.accuracy))
        text = shortened(point.label, length=22)
        width, is_left = 6.2 * len(text), x > axes.bbox.x0 + 0.62 * axes.bbox.width
        left = x - 5 - width if is_left else x + 5
        height = y + 11
        while any(left < end and start < left + width and abs(height - at) < 13 for start, end, at in taken):
            height += 3
        taken.append((left, left + width, height))
        axes.annotate(
            text,
            (point.cost, 100 * point.accuracy),
            xytext=(-5 if is_left else 5, height - y),
            textcoords="offset points",
            va="center",
            ha="right" if is_left else "left",
            fontsize=10,
        )
