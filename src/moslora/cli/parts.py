"""What is adapted and trained in each part of a model, as a table that fits the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from moslora.cli.options import print_table

HEADINGS = ("part", "adapted", "rank", "alpha", "dropout", "mixer", "parameters", "quantised", "gradient")
LEAST_ASKED = ("dropout", "quantised", "alpha", "rank", "mixer")  # left out in this order where there is no room
DEAD = "dead"
GAP = 2  # columns of the terminal between two of the table


def print_parts(console: Console, parts: Iterable[Mapping[str, Any]]) -> None:
    """A row for each part, of the fields of a `PartRecord`; whole in a pipe or a file."""
    rows = [_cells(part) for part in parts]
    shown = _fitting(rows, console.width) if console.is_terminal else HEADINGS
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for heading in shown:
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for row in rows:
        table.add_row(*(row[heading] for heading in shown))
    print_table(console, table)


def _fitting(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """The headings for which there is room; gradients give way early, unless some module got none."""
    shown = [*HEADINGS]
    has_dead = any(row["gradient"].endswith(DEAD) for row in rows)
    for heading in LEAST_ASKED if has_dead else (*LEAST_ASKED[:3], "gradient", *LEAST_ASKED[3:]):
        needed = sum(max(len(name), *(len(row[name]) for row in rows)) + GAP for name in shown) - GAP
        if needed <= width:
            break
        shown.remove(heading)
    return shown


def _cells(part: Mapping[str, Any]) -> dict[str, str]:
    whole = part["whole_parameters"]
    adapted = f"{part['adapted']} of {part['layers']}" if part["adapted"] or not whole else "whole"
    values = [_listed(part[name]) for name in ("ranks", "alphas", "dropouts", "mixers")]
    trained = f"{part['parameters'] + whole:,}"
    cells = (part["part"], adapted, *values, trained, str(part["quantised"]), _gradient(part))
    return dict(zip(HEADINGS, cells, strict=True))


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, int | float) else value for value in values) or "-"


def _gradient(part: Mapping[str, Any]) -> str:
    """What was seen of the gradients; a dash where nothing trains, or nobody looked."""
    if part["dead"] is None:
        return "-"
    return f"{len(part['dead'])} {DEAD}" if part["dead"] else "seen"
