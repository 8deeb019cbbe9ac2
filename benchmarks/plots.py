"""The pictures of docs/performance.md, from the stored results: `python -m benchmarks.plots`."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib import pyplot as plt

from benchmarks.results import FOLDER

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "moslora"  # the same numbers give the same file
PICTURES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = {"float32": "#1f6f8b", "bfloat16": "#b5541c"}


def stored(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def growth() -> None:
    drawing, axes = plt.subplots(2, 2, figsize=(9, 6), sharey="row", sharex="col")
    for row, name, label in zip(axes, ("growth", "growth_memory"), ("step time", "memory"), strict=True):
        growth_row(row, stored(name)["figures"])
        row[0].set_ylabel(f"{label} / PEFT LoRA's")
    figures = stored("growth")["figures"]
    counted = sorted({(f["rank"], f["operations_ratio"]) for f in figures if f["tokens"] == 512})
    axes[0][1].plot(*zip(*counted, strict=True), "--", color="#777777", label="multiplications, counted")
    axes[0][1].legend(frameon=False, fontsize=8)
    for axis, label in zip(axes[1], ("tokens a step (rank 16)", "rank (512 tokens)"), strict=True):
        axis.set_xlabel(label)
    finish(drawing, "growth.svg")


def growth_row(axes: Any, figures: list[dict[str, Any]]) -> None:
    """Ratios over tokens and over ranks, with the range of the rounds where there are several."""
    for dtype, colour in COLOURS.items():
        for axis, key, (fixed, value) in zip(axes, ("tokens", "rank"), (("rank", 16), ("tokens", 512)), strict=True):
            chosen = [f for f in figures if f["dtype"] == dtype and f[fixed] == value]
            points = sorted((f[key], f["ratio"], f.get("low", f["ratio"]), f.get("high", f["ratio"])) for f in chosen)
            x, middle, low, high = zip(*points, strict=True)
            axis.plot(x, middle, "o-", color=colour, label=dtype, markersize=4)
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.axhline(1, color="#999999", linewidth=0.8)
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.grid(visible=True, alpha=0.2)


def crossover() -> None:
    record = stored("crossover")
    ranks = sorted({figure["rank"] for figure in record["figures"]})
    drawing, axes = plt.subplots(1, len(ranks), figsize=(10, 3.2))
    for axis, rank in zip(axes, ranks, strict=True):
        figures = [figure for figure in record["figures"] if figure["rank"] == rank]
        tokens = [figure["tokens"] for figure in figures]
        for order, colour in (("into_a", "#1f6f8b"), ("unfolded", "#b5541c")):
            milliseconds = [1e3 * median(figure["seconds"][order]) for figure in figures]
            axis.plot(tokens, milliseconds, "o-", color=colour, label=order, markersize=4)
        axis.axvline(record["features"], color="#777777", linestyle="--", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_yscale("log")
        axis.set_title(f"rank {rank}", fontsize=10)
        axis.set_xlabel("tokens")
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("milliseconds, forward and backward")
    axes[0].legend(frameon=False, fontsize=8, labels=["folded into A", "applied to every token"])
    finish(drawing, "crossover.svg")


def finish(drawing: Any, name: str) -> None:
    drawing.tight_layout()
    PICTURES.mkdir(exist_ok=True)
    drawing.savefig(PICTURES / name, metadata={"Date": None})
    plt.close(drawing)


if __name__ == "__main__":
    growth()
    crossover()
