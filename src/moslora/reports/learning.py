"""Loss against step: the mean of an arm's seeds, and the band from the lowest to the highest of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from moslora.reports.drawing import SERIES, Look, Plot, legend_below, log_scale, new_figure, shortened, whole_steps
from moslora.reports.reading import Metrics

TOGETHER = 4  # arms in one panel; more get a panel each
POINTS = 120  # along a curve; neighbours are averaged above that
MARKED = 12  # points up to which each is marked
VALUES = {"loss": "Training loss", "eval_loss": "Validation loss"}
Curve = list[tuple[float, float, float, float]]  # step, mean, lowest, highest


def learning_curves(
    runs: Mapping[str, Sequence[Metrics]],
    *,
    looks: Mapping[str, Look],
    prefix: str,
    baselines: Mapping[str, str] | None = None,
) -> list[Plot]:
    """A plot of the training loss and, where it was measured, of the validation loss; `runs` holds each arm's seeds.

    A single arm has both in one. `baselines` names the arm that another is drawn beside, where there are too many for
    one panel.
    """
    found = {value: {arm: curve for arm, seeds in runs.items() if (curve := _curve(seeds, value))} for value in VALUES}
    if len(runs) == 1:
        own = {VALUES[value]: curve for value, curves in found.items() for curve in curves.values()}
        look = looks[next(iter(runs))]
        both = {VALUES["loss"]: look, VALUES["eval_loss"]: Look(SERIES[1], "s", "--")}
        return [_plot(own, both, {}, title="Loss", name=f"{prefix}-loss")] if own else []
    return [
        _plot(curves, looks, baselines or {}, title=VALUES[value], name=f"{prefix}-{value.replace('_', '-')}")
        for value, curves in found.items()
        if curves
    ]


def _curve(seeds: Sequence[Metrics], value: str) -> Curve:
    at: defaultdict[int, list[float]] = defaultdict(list)
    for lines in seeds:
        for line in lines:
            found = line.get(value)
            if isinstance(found, int | float) and isfinite(found) and "step" in line:
                at[line["step"]].append(float(found))
    most = max(map(len, at.values()), default=0)
    # An interrupted run logs a step of its own, where it stopped.
    steps = sorted(step for step, losses in at.items() if 2 * len(losses) > most)
    size = ceil(len(steps) / POINTS) or 1
    chunks = [steps[start : start + size] for start in range(0, len(steps), size)]
    return [
        (
            _mean(chunk),
            _mean([_mean(at[step]) for step in chunk]),
            _mean([min(at[step]) for step in chunk]),
            _mean([max(at[step]) for step in chunk]),
        )
        for chunk in chunks
    ]


def _plot(
    curves: Mapping[str, Curve],
    looks: Mapping[str, Look],
    baselines: Mapping[str, str],
    *,
    title: str,
    name: str,
) -> Plot:
    pairs = [[baselines.get(own, own), own] for own in curves if own not in baselines.values()]
    is_split = len(curves) > TOGETHER and bool(pairs)
    panels = [[arm for arm in dict.fromkeys(pair) if arm in curves] for pair in pairs] if is_split else [[*curves]]
    rows = ceil(len(panels) / 2) if is_split else 1
    figure, grid = new_figure(
        (150 * rows if is_split else 250) + 30,
        rows=rows,
        columns=2 if is_split else 1,
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    values = [point[1] for curve in curves.values() for point in curve]
    is_log = min(values) > 0 and max(values) > 10 * min(values)
    for axes, arms in zip(grid.flat, panels, strict=False):
        for arm in arms:
            _draw(axes, curves[arm], _style(curves[arm], looks[arm], is_small=is_split))
        if is_split:
            axes.set_title(shortened(arms[-1], length=24))
        if is_log:
            log_scale(axes, axis="y")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("step")
        whole_steps(axes, axis="x", most=4 if is_split else 8)
    if not is_split:
        grid[0, 0].set_ylabel("loss")
    lines = {arm: Line2D([], [], **_style(curve, looks[arm], is_small=is_split)) for arm, curve in curves.items()}
    drawn = [arm for arm in curves if arm in baselines.values()]
    if is_split:
        lines = {drawn[0] if len(drawn) == 1 else "its baseline": lines[drawn[0]]} if drawn else {}
    if lines:
        legend_below(figure, lines)
    caption = _caption(curves, is_log=is_log, has_baselines=is_split and bool(drawn))
    return Plot(name, title, caption, figure)


def _draw(axes: Axes, curve: Curve, style: dict[str, Any]) -> None:
    steps, means, lows, highs = zip(*curve, strict=True)
    axes.plot(steps, means, **style)
    if lows != highs:
        axes.fill_between(steps, lows, highs, color=style["color"], alpha=0.16, lw=0)


def _style(curve: Curve, look: Look, *, is_small: bool) -> dict[str, Any]:
    """How a curve is drawn: with its points while there are few of them, in a small panel those that make no line."""
    marks = {"marker": look.marker, "ms": 4} if len(curve) <= (1 if is_small else MARKED) else {}
    return {"color": look.colour, "ls": look.line, **marks}


def _caption(curves: Mapping[str, Curve], *, is_log: bool, has_baselines: bool) -> str:
    has_band = any(low != high for curve in curves.values() for _, _, low, high in curve)
    parts = [
        "Line: mean over seeds; band: lowest to highest seed." if has_band else "One seed.",
        "Every panel repeats its arm's baseline (dashed)." if has_baselines else "",
        "Logarithmic scale." if is_log else "",
        "A lower loss need not mean more right answers.",
    ]
    return " ".join(part for part in parts if part)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
