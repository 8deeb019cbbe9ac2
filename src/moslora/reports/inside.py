"""Inside an adapter: its mixers, the singular values of its updates, how far mixers moved, where the update lies."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from moslora.records import AdapterPictures, LayerPicture
from moslora.reports.drawing import (
    INK,
    MARKERS,
    NEGATIVE,
    POSITIVE,
    SERIES,
    WIDTH,
    Plot,
    legend_below,
    log_scale,
    new_figure,
    rows_axis,
    whole_steps,
)

MIXER_COLUMNS = 10  # mixers in a row
MIXER_NUMBERS = 300  # of a matrix row, over a row of mixers; the rest is left out, so that pictures stay small
SPECTRUM_POINTS = 3000  # of all curves together
LEVELS = 24  # shades of a colour; few, so that pictures stay small
DISTANCES = {
    "mixer_from_start": "from the start",
    "mixer_from_identity": "from the identity",
    "mixer_from_orthogonal": "from orthogonality (MᵀM)",
}


@dataclass(frozen=True)
class Place:
    """Where a layer stands: the kind of module it is, and how deep (the block's number, or a count within its kind)."""

    kind: str
    depth: int
    layer: LayerPicture


def adapter_plots(pictures: AdapterPictures, *, prefix: str) -> list[Plot]:
    """Every drawing of one adapter for which it has numbers."""
    places = placed(pictures.layers)
    if not places:
        return []
    drawn = [_mixers, _distances, _spectra, _effective_ranks, _shares]
    plots = [draw(places, prefix) for draw in drawn]
    return [plot for plot in plots if plot is not None]


def placed(layers: Sequence[LayerPicture]) -> list[Place]:
    """The layers with their kinds and depths."""
    numbers = [[int(part) for part in layer.name.split(".") if part.isdigit()][:1] for layer in layers]
    kinds = [layer.name.rpartition(".")[2] for layer in layers]
    keys = Counter((kind, *number) for kind, number in zip(kinds, numbers, strict=True))
    is_unique = max(keys.values(), default=0) == 1 and all(numbers)
    seen: Counter[str] = Counter()
    places = []
    for kind, number, layer in zip(kinds, numbers, layers, strict=True):
        places.append(Place(kind, number[0] if is_unique else seen[kind], layer))
        seen[kind] += 1
    return places


def _mixers(places: Sequence[Place], prefix: str) -> Plot | None:
    at = {(place.kind, place.depth): np.array(place.layer.mixer) for place in places if place.layer.mixer}
    if not at:
        return None
    kinds, depths = [*dict.fromkeys(kind for kind, _ in at)], sorted({depth for _, depth in at})
    limit = float(np.quantile(np.abs(np.concatenate([mixer.ravel() for mixer in at.values()])), 0.995)) or 1.0
    columns = min(MIXER_COLUMNS, len(depths))
    rows = ceil(len(depths) / columns)
    step = ceil(max(len(mixer) for mixer in at.values()) * columns / MIXER_NUMBERS)
    at = {place: mixer[::step, ::step] for place, mixer in at.items()}
    side = max(len(mixer) for mixer in at.values()) + 1  # an empty row and column after each
    height = min(90, (WIDTH - 110) / columns) * rows * len(kinds)  # the rest of the width is for the names
    figure, grid = new_figure(height + 24, rows=len(kinds), squeeze=False)
    for axes, kind in zip(grid[:, 0], kinds, strict=True):
        sheet = np.zeros((side * rows, side * columns))
        for number, depth in enumerate(depths):
            mixer = at.get((kind, depth), np.zeros((0, 0)))
            sheet[side * (number // columns) :, side * (number % columns) :][: len(mixer), : len(mixer)] = mixer
        _bare(axes)
        axes.imshow(_shades(sheet / limit), interpolation="none")
        axes.set_ylabel(kind, rotation=0, ha="right", va="center", color=INK)
    thinned = f" (one of {step} rows and columns)" if step > 1 else ""
    caption = (
        f"The mixer M{thinned} of every layer, from layer {depths[0]} on, {columns} per row. Blue is negative, orange"
        f" positive, clear is zero; full colour from ±{limit:.2g} on, one scale for all."
    )
    return Plot(f"{prefix}-mixers", "Mixers", caption, figure, is_square=True)


def _distances(places: Sequence[Place], prefix: str) -> Plot | None:
    figure, axes = new_figure(230)
    handles = {}
    for number, (field, name) in enumerate(DISTANCES.items()):
        points = _by_depth(places, field)
        if points:
            handles[name] = _line(axes, points, number)
    if not handles:
        return None
    axes.set_xlabel("layer")
    whole_steps(axes, axis="x")
    axes.set_ylabel("relative distance")
    axes.set_ylim(bottom=0)
    legend_below(figure, handles)
    caption = (
        "Distance of each mixer, as a share of the norm of what it is measured from: line, median of a layer's"
        " modules; dots, the modules. A random start is far from the identity without any training."
    )
    return Plot(f"{prefix}-distances", "Distance of the mixers", caption, figure)


def _spectra(places: Sequence[Place], prefix: str) -> Plot | None:
    spectra = [place for place in places if place.layer.singular_values and place.layer.singular_values[0] > 0]
    if not spectra:
        return None
    length = max(len(place.layer.singular_values) for place in spectra)
    count = min(len(spectra), max(1, SPECTRUM_POINTS // length))
    chosen = [spectra[index * len(spectra) // count] for index in range(count)]
    figure, axes = new_figure(260)
    kinds = [*dict.fromkeys(place.kind for place in spectra)]
    for place in chosen:
        values = np.array(place.layer.singular_values) / place.layer.singular_values[0]
        colour = SERIES[kinds.index(place.kind) % len(SERIES)]
        axes.plot(np.arange(1, len(values) + 1), np.maximum(values, 1e-6), color=colour, lw=0.8, alpha=0.4)
    log_scale(axes, axis="y")
    axes.set_xlabel("number of the singular value, largest first")
    whole_steps(axes, axis="x")
    axes.set_ylabel("share of the largest")
    legend_below(figure, {kind: _swatch(number) for number, kind in enumerate(kinds)})
    shown = "every layer" if count == len(spectra) else f"{count} of {len(spectra)} layers, evenly spaced"
    caption = (
        f"Singular values of the update, largest first, one line per layer ({shown}). A flat line uses its whole rank."
    )
    return Plot(f"{prefix}-singular-values", "Singular values of the updates", caption, figure)


def _effective_ranks(places: Sequence[Place], prefix: str) -> Plot | None:
    kinds = [*dict.fromkeys(place.kind for place in places)]
    figure, axes = new_figure(240)
    handles = {}
    for number, kind in enumerate(kinds):
        own = [(place.depth, place.layer.effective_rank) for place in places if place.kind == kind]
        look = {"color": SERIES[number % 8], "marker": MARKERS[number % 8], "ms": 3.5, "lw": 1.2}
        (handles[kind],) = axes.plot(*zip(*own, strict=True), **look)
    axes.set_ylim(0, max(place.layer.rank for place in places) * 1.04)
    axes.set_xlabel("layer")
    whole_steps(axes, axis="x")
    whole_steps(axes, axis="y", most=6)
    axes.set_ylabel("effective rank")
    legend_below(figure, handles)
    caption = "How many directions an update uses: exponential of the entropy of its singular values, at most the rank."
    return Plot(f"{prefix}-effective-rank", "Effective rank", caption, figure)


def _shares(places: Sequence[Place], prefix: str) -> Plot | None:
    total = sum(place.layer.update_norm**2 for place in places)
    if not total:
        return None
    depths = sorted({place.depth for place in places})
    sums: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for place in places:
        sums[place.kind][place.depth] = place.layer.update_norm**2 / total
    table = np.array([[row.get(depth, 0.0) for depth in depths] for row in sums.values()])
    figure, axes = new_figure(60 + 22 * len(sums))
    axes.imshow(_shades(table / table.max()), aspect="auto", interpolation="none")
    names = [f"{kind} ({100 * share:.0f} %)" for kind, share in zip(sums, table.sum(axis=1), strict=True)]
    rows_axis(axes, names)
    ticks = range(0, len(depths), ceil(len(depths) / 8))
    axes.set_xticks(ticks, [str(depths[tick]) for tick in ticks])
    axes.grid(visible=False)
    axes.set_xlabel("layer")
    caption = (
        "Each layer's share of the squared norm of the whole update; stronger is more, the strongest cell is"
        f" {100 * table.max():.1f} %. In brackets: the kind's sum."
    )
    return Plot(f"{prefix}-update-shares", "Where the update is", caption, figure)


def _by_depth(places: Sequence[Place], field: str) -> dict[int, list[float]]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for place in places:
        value = getattr(place.layer, field)
        if value is not None:
            found[place.depth].append(value)
    return dict(sorted(found.items()))


def _line(axes: Axes, points: dict[int, list[float]], number: int) -> Any:
    colour = SERIES[number]
    flat = [(depth, value) for depth, values in points.items() for value in values]
    axes.plot(*zip(*flat, strict=True), ".", color=colour, ms=3, alpha=0.35)
    marks = {"marker": MARKERS[number], "ms": 3.5, "lw": 1.4}
    (line,) = axes.plot([*points], [median(values) for values in points.values()], color=colour, **marks)
    return line


def _swatch(number: int) -> Line2D:
    return Line2D([], [], color=SERIES[number % len(SERIES)])


def _shades(values: np.ndarray) -> np.ndarray:
    """Numbers from -1 to 1 as blue to orange through nothing at all, so that they stand on a light and a dark page."""
    strength = np.round(np.clip(np.abs(values), 0, 1) * LEVELS) / LEVELS
    colours = np.where(values[..., None] < 0, NEGATIVE, POSITIVE)
    alpha = np.round(255 * strength)[..., None]
    return np.concatenate([np.where(alpha > 0, colours, 0), alpha], axis=-1).astype(np.uint8)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)
