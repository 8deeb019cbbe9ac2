"""What is adapted and trained in each part of a model, as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

HEADINGS = ("adapted", "rank", "alpha", "dropout", "mixer", "parameters", "quantised", "gradient")


def part_table(parts: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each part, of the fields of a `PartRecord`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("part")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for part in parts:
        table.add_row(part["part"], *_cells(part))
    return table


def _cells(part: Mapping[str, Any]) -> list[str]:
    whole = part["whole_parameters"]
    adapted = f"{part['adapted']} of {part['layers']}" if part["adapted"] or not whole else "whole"
    values = [_listed(part[name]) for name in ("ranks", "alphas", "dropouts", "mixers")]
    return [adapted, *values, f"{part['parameters'] + whole:,}", str(part["quantised"]), _gradient(part)]


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, int | float) else value for value in values) or "-"


def _gradient(part: Mapping[str, Any]) -> str:
    """What was seen of the gradients; a dash where nothing trains, or nobody looked."""
    if part["dead"] is None:
        return "-"
    return f"{len(part['dead'])} dead" if part["dead"] else "seen"
