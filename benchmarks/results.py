"""Rows of the benchmark table, and the JSON files behind them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moslora.files import write_atomically
from moslora.runs.environment import describe_machine, describe_versions

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of the table: what, against what, the figure reached (a ratio unless said otherwise), the target."""

    what: str
    against: str
    reached: float
    target: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "x"
    at_least: bool = False  # the target is a lower bound
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.reached >= self.target if self.at_least else self.reached <= self.target


def save(name: str, payload: dict[str, Any], rows: Sequence[Row] = ()) -> Path:
    """Write `results/NAME.json`: the figures, with machine, versions and date."""
    record = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": [asdict(row) for row in rows],
        **payload,
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    return path


def load_rows() -> list[tuple[str, Row]]:
    """Every stored row, with the name of its file."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "name" not in record:  # the simulations keep tables of another form
            continue
        found += [(record["name"], Row(**row)) for row in record.get("rows", ())]
    return found
