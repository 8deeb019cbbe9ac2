"""A study's results as tables, the first in the shape of the paper's Table 6, and as CSV and JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from moslora.comparison.verdict import p_text, points
from moslora.judging.analysis import Agreement, Analysis, Finding
from moslora.judging.judgements import StudyRecord
from moslora.judging.resampling import Share
from moslora.judging.trust import Repeats, Sides
from moslora.judging.verdict import counted

NOTHING = "–"
CSV_FIELDS = ("question", "subject", "first", "second", "judges", "pairs", "units", "unit", "judgements")
CSV_SHARES = ("win", "tie", "loss")
CSV_MEANS = ("mean", "low", "high", "p_value", "p_adjusted", "for_first", "for_second", "sign_p", "verdict")


class Cell(NamedTuple):
    """What stands in a cell, and smaller what belongs to it: an interval."""

    text: str
    remark: str = ""


@dataclass(frozen=True)
class Grid:
    """A table before it takes a form; `words` are the columns after the first that hold words."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: tuple[str, ...] = ()


def grids(analysis: Analysis) -> list[Grid]:
    """Every table that there is something for."""
    found = [
        _results("results", analysis.findings),
        _results("subjects", analysis.by_subject),
        _strengths(analysis),
        _agreement(analysis),
        _judges(analysis),
    ]
    return [grid for grid in found if grid.rows]


def notes(analysis: Analysis) -> list[str]:
    """How to read the tables, and what speaks for and against the judgements."""
    units = {one.unit for one in analysis.findings}
    drawn = "pairs" if units == {"pair"} else "prompts"
    found = [
        "Win - loss is in percentage points. Intervals are 95 %, for new judges and new"
        f" {drawn} like these; those of shares by a bootstrap over both. p values are adjusted by Holm's method for the"
        " number of lines.",
        f"The sign test counts {drawn}, not judgements, which are not independent. It is for these judges only:"
        " a taste that they share is not allowed for, so the verdict does not rest on it.",
    ]
    if analysis.subjects:
        found.append("Subjects are those chosen, not drawn: nothing is said about others.")
    if analysis.strengths:
        found.append(
            "Strengths are those of Davidson's model, on the scale of log odds around 0; intervals by refitting it."
        )
    found.append(
        "Alpha is agreement beyond chance (1: complete, 0: none). It says little where nearly all answers are alike,"
        " and nothing where all are: look at how often two judges answered alike."
    )
    found += [f"Sides: {sides_text(analysis.sides)}.", f"Swapped repeats: {repeats_text(analysis.repeats)}."]
    return found


def counts_grid(study: StudyRecord) -> Grid:
    """How many judgements each judge has given, by question; nothing of methods."""
    rows = []
    for judge in study.judges:
        given = [one for one in study.judgements if one.judge == judge and one.check is None]
        numbers = [sum(one.question == question for one in given) for question in study.questions]
        rows.append((Cell(judge), *(Cell(str(number)) for number in numbers), Cell(str(study.pairs_planned))))
    return Grid("counts", "Judgements so far", ("judge", *study.questions, "pairs"), tuple(rows))


def csv_text(analysis: Analysis) -> str:
    """The raw numbers, a row for each finding, whole studies first: shares, not percent; empty where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ends = [f"{name}{end}" for name in CSV_SHARES for end in ("", "_low", "_high")]
    writer.writerow([*CSV_FIELDS, *ends, *CSV_MEANS])
    for one in (*analysis.findings, *analysis.by_subject):
        shares = [value for name in CSV_SHARES for value in getattr(one, name)]
        row = [getattr(one, name) for name in CSV_FIELDS] + shares + [getattr(one, name) for name in CSV_MEANS]
        writer.writerow(row)
    return stream.getvalue()


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Everything, ready for JSON; a share is `{value, low, high}`."""
    return _plain(asdict(analysis))


def sides_text(sides: Sides) -> str:
    """Which side was preferred how often."""
    if sides.p_value is None:
        return "neither was ever preferred"
    return f"left preferred {counted(sides.left, 'time')}, right {sides.right} (p {p_text(sides.p_value)})"


def repeats_text(repeats: Repeats) -> str:
    """How many repeats were answered alike."""
    if not repeats.asked:
        return "none were asked"
    return f"{repeats.same} of {repeats.asked} answered as before, {repeats.opposite} the other way round"


def _results(name: str, findings: Sequence[Finding]) -> Grid:
    has_subjects = any(one.subject for one in findings)
    compared = {_methods(one): None for one in findings}
    is_one = len(compared) == 1
    unit = {one.unit for one in findings}
    rows = []
    for one in findings:
        shown = [_percent(share) for share in (one.win, one.tie, one.loss)]
        rows.append(
            (
                *([Cell(one.subject or NOTHING)] if has_subjects else []),
                Cell(one.question),
                *([] if is_one else [Cell(_methods(one))]),
                *shown,
                Cell(signed(one.mean), _range(one.low, one.high, scale=100)),
                Cell(p_text(one.p_adjusted)),
                Cell(f"{one.for_first} : {one.for_second}", f"p {p_text(one.sign_p)}"),
                Cell(str(one.judgements), f"{counted(one.judges, 'judge')}, {counted(one.pairs, 'pair')}"),
            )
        )
    words = (*(["subject"] if has_subjects else []), "question", *([] if is_one else ["methods"]))
    sign = f"{unit.pop()}s for : against" if len(unit) == 1 else "for : against"
    head = (*words, "win", "tie", "loss", "win - loss", "p, Holm", sign, "judgements")
    what = f"{next(iter(compared))}, in percent of judgements" if is_one else "In percent of judgements"
    return Grid(name, f"{what}, by subject" if has_subjects else what, head, tuple(rows), words)


def _methods(one: Finding | Agreement) -> str:
    return f"{one.first} against {one.second}"


def _strengths(analysis: Analysis) -> Grid:
    rows = [
        (Cell(one.question), Cell(method), Cell(f"{found.value:+.2f}", _range(found.low, found.high)))
        for one in analysis.strengths
        for method, found in sorted(
            zip(one.methods, one.strengths, strict=True), key=lambda pair: pair[1].value, reverse=True
        )
    ]
    return Grid("strengths", "All methods on one scale", ("question", "method", "strength"), tuple(rows), ("method",))


def _agreement(analysis: Analysis) -> Grid:
    rows = [
        (
            Cell(one.question),
            Cell(_methods(one)),
            *(
                Cell(NOTHING) if share is None else Cell(f"{share.value:.2f}", _range(share.low, share.high))
                for share in (one.nominal, one.ordinal)
            ),
            Cell(NOTHING if one.alike is None else f"{100 * one.alike:.1f}"),
            Cell(f"{100 * one.ties:.1f}"),
        )
        for one in analysis.agreement
    ]
    head = ("question", "methods", "alpha, nominal", "alpha, ordinal", "two judges alike, %", "ties, %")
    return Grid("agreement", "Agreement of judges (Krippendorff)", head, tuple(rows), words=("methods",))


def _judges(analysis: Analysis) -> Grid:
    rows = [
        (
            Cell(one.judge),
            Cell(str(one.judgements), f"{one.missing} missing" if one.missing else ""),
            Cell(f"{one.checks_failed} of {one.checks}" if one.checks else NOTHING),
            Cell(f"{one.repeats.same} of {one.repeats.asked}" if one.repeats.asked else NOTHING),
            Cell(f"{one.sides.left} : {one.sides.right}", f"p {p_text(one.sides.p_value)}"),
            Cell(NOTHING if one.median_seconds is None else f"{one.median_seconds:.0f} s"),
        )
        for one in analysis.judges
    ]
    head = ("judge", "judgements", "checks failed", "repeats alike", "left : right", "a pair took")
    return Grid("judges", "Judges", head, tuple(rows))


def signed(mean: float) -> str:
    """A difference in points with its sign."""
    return f"{'+' if mean > 0 else ''}{points(mean)}"


def _percent(share: Share) -> Cell:
    return Cell(f"{100 * share.value:.1f}", _range(share.low, share.high, scale=100))


def _range(low: float | None, high: float | None, *, scale: float = 1) -> str:
    if low is None or high is None:
        return ""
    if scale == 100:
        return f"{points(low)} to {points(high)}"
    return f"{round(low, 2) + 0:.2f} to {round(high, 2) + 0:.2f}"  # never -0.00


def _plain(value: Any) -> Any:
    """Shares by name, which `asdict` leaves as tuples."""
    match value:
        case Share():
            return value._asdict()
        case dict():
            return {key: _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value
