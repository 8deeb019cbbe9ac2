"""What a run adapts and trains in each part of its model, as a table, and where no gradient came."""

from collections.abc import Iterable, Sequence

from moslora.records import PartRecord
from moslora.reports.parts import Cell, Part, Points, Table
from moslora.reports.reading import StoredRun
from moslora.reports.wording import NONE, amount

HEAD = [
    "part",
    "adapted",
    "rank",
    "alpha",
    "dropout",
    "mixer",
    "parameters",
    "of these mixers",
    "quantised",
    "gradient",
]
NAMED = 6  # modules without a gradient that are named


def part_tables(runs: Sequence[StoredRun]) -> list[Part]:
    """A table for each run of a model made of parts."""
    found: list[Part] = []
    for run in runs:
        parts = run.record.coverage.parts if run.record.coverage else None
        if parts:
            title = "Each part of the model" if len(runs) == 1 else f"{run.label}: each part of the model"
            found.append(Table(title, HEAD, [_row(part) for part in parts], words=["mixer"]))
            dead = [_dead(part) for part in parts if part.dead]
            found += [Points(dead)] if dead else []
    return found


def _row(part: PartRecord) -> list[Cell | str]:
    is_whole = part.whole_parameters > 0 and not part.adapted
    return [
        part.part,
        Cell("whole" if is_whole else f"{part.adapted} of {part.layers}", "" if is_whole else "layers"),
        _listed(part.ranks),
        _listed(part.alphas),
        _listed(part.dropouts),
        _listed(part.mixers),
        amount(part.parameters + part.whole_parameters),
        amount(part.mixer_parameters),
        f"{part.quantised} of {part.layers}" if part.quantised else NONE,
        _gradient(part),
    ]


def _listed(values: Iterable[float | str]) -> str:
    return ", ".join(value if isinstance(value, str) else f"{value:g}" for value in values) or NONE


def _gradient(part: PartRecord) -> str:
    if part.dead is None:
        return NONE
    return f"none at {len(part.dead)}" if part.dead else "everywhere"


def _dead(part: PartRecord) -> str:
    named = [*(part.dead or [])]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{part.part}: no gradient reached {', '.join(named[:NAMED])}{more}, which stay as they started."
