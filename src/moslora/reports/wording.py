"""Numbers and settings in words, the same way everywhere in a report."""

from collections.abc import Mapping
from typing import Any

import yaml

from moslora.data.tasks import chance_text
from moslora.reports.parts import Cell, Code, Table

NONE = "–"
BYTES = "_bytes"  # ends the name of a fact that is told in gigabytes


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return NONE if value is None else f"{100 * value:.1f}"


def guessed(chance: float) -> str:
    """What guessing gets, as a percentage."""
    return chance_text(chance).replace("%", "\N{NO-BREAK SPACE}%")


def estimate(mean: float | None, low: float | None, high: float | None) -> Cell:
    """A share and its interval under it."""
    return Cell(percent(mean), "" if low is None or high is None else f"{percent(low)} to {percent(high)}")


def points(mean: float | None, low: float | None, high: float | None) -> Cell:
    """A difference in percentage points with its sign, and its interval under it."""
    if mean is None:
        return Cell(NONE)
    remark = "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
    return Cell(_minus(f"{100 * mean:+.1f}"), _minus(remark))


def kind_name(kind: str) -> str:
    """A kind of question as its name is read, and broken into lines."""
    return kind.replace("_", " ")


def amount(value: float | None) -> str:
    """A count in at most four figures: 28.4M."""
    if value is None:
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def gigabytes(size_bytes: int | None) -> str:
    """A size in gigabytes (10⁹ bytes)."""
    return NONE if size_bytes is None else f"{size_bytes / 1e9:.1f} GB"


def probability(value: float | None) -> str:
    """A p-value; very small ones as a bound."""
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def settings(label: str, values: Any) -> Code:
    """Settings as YAML."""
    return Code(label, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


def facts_table(caption: str, *groups: Mapping[str, Any]) -> Table | None:
    """Names and values, one a row; None without any."""
    facts = [fact for group in groups for fact in group.items() if fact[1] is not None]
    rows = [[name.removesuffix(BYTES), _fact(name, value)] for name, value in facts]
    return Table(caption, ["", "value"], rows, words=["value"]) if rows else None


def _fact(name: str, value: Any) -> str:
    return gigabytes(value) if name.endswith(BYTES) and isinstance(value, int) else str(value)


def _minus(text: str) -> str:
    return text.replace("-", "−")
