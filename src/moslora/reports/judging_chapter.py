"""A study of judges as a chapter: the shape of Table 6, intervals, subjects, judges, and the pairs themselves."""

import re
from collections.abc import Sequence

from moslora.judging.added import added_notes
from moslora.judging.analysis import Analysis, Finding, analyse
from moslora.judging.tables import Grid, grids, notes, repeats_text, sides_text
from moslora.judging.verdict import claim, counted, reservations
from moslora.reports.accuracy import MARGIN, ROW, slug, whisker
from moslora.reports.drawing import INK, MUTED, RULE, SERIES, Plot, new_figure, rows_axis
from moslora.reports.judged_pairs import pairs_of
from moslora.reports.parts import Cell, Chapter, Part, Plots, Points, Table, Text
from moslora.reports.reading import Judged

INTERVAL = "for new judges and new pairs"
FEWEST_TIES_TO_SAY = 0.5


def judging_chapter(study: Judged, *, name: str) -> Chapter:
    """The chapter of a closed study; `name` keeps its sections and drawings apart from other chapters'."""
    found = analyse(study.record)
    tables = {grid.name: _table(grid) for grid in grids(found)}
    title = f"{' and '.join(found.methods)}, judged blind"
    chapter = Chapter(name, title, found.verdict, _facts(found))
    chapter.add(
        "results",
        "How often each was preferred",
        tables.get("results"),
        Points([*notes(found), *added_notes(study.record)]),
        is_folded=False,
    )
    chapter.add("intervals", "Intervals", Plots(_forests(found, name)), is_folded=False)
    chapter.add("subjects", "By subject", tables.get("subjects"))
    chapter.add("strengths", "All methods on one scale", tables.get("strengths"))
    chapter.add("agreement", "Do judges agree?", tables.get("agreement"), _on_ties(found))
    chapter.add("judges", "Judges", *_judges(found, tables.get("judges"), name))
    chapter.add("pairs", "The pairs, most disputed first", *pairs_of(study, found.pairs))
    chapter.add("limits", "Limits", Points(_limits(found)))
    return chapter


def preference_plot(findings: Sequence[Finding], *, question: str, prefix: str) -> Plot:
    """Win - loss with its interval, the whole study first, then each subject; filled where a difference is shown."""
    figure, axes = new_figure(MARGIN + ROW * len(findings))
    axes.axvline(0, color=MUTED, lw=1)
    several = len({(one.first, one.second) for one in findings}) > 1
    labels = []
    for row, one in enumerate(findings):
        whisker(axes, row, (one.mean, one.low, one.high), colour=INK, is_filled=bool(claim(one)))
        methods = f"{one.first} − {one.second}"
        labels.append(", ".join([one.subject or "all", *([methods] if several else [])]))
    rows_axis(axes, labels)
    against = "first − second, percentage points" if several else f"{findings[0].first} − {findings[0].second}, points"
    axes.set_xlabel(f"win − loss: {against}")
    figure.supxlabel(f"whiskers: 95 % interval {INTERVAL}", fontsize=10, color=MUTED)
    caption = (
        f"Whiskers: 95 % interval {INTERVAL}. Filled: a difference is shown after correction for all lines (Holm)."
    )
    return Plot(f"{prefix}-preference-{slug(question)}", question, caption, figure)


def _facts(found: Analysis) -> str:
    judged = [one for one in found.judges if one.judgements]
    total = sum(one.judgements for one in judged)
    return f"{counted(len(judged), 'judge')}, {counted(total, 'judgement')}; checks are not counted."


def _forests(found: Analysis, name: str) -> list[Plot]:
    plots = []
    for question in dict.fromkeys(one.question for one in found.findings):
        rows = [one for one in (*found.findings, *found.by_subject) if one.question == question]
        plots.append(preference_plot(rows, question=question, prefix=name))
    return plots


def _on_ties(found: Analysis) -> Text | None:
    if all(one.ties < FEWEST_TIES_TO_SAY for one in found.agreement):
        return None
    return Text(
        "Where most answers are ties alpha is near 0 although judges agree that there is little difference: it measures"
        " agreement beyond what so many ties give by chance."
    )


def _judges(found: Analysis, table: Table | None, name: str) -> list[Part | None]:
    told = [
        f"Sides, all judges together: {sides_text(found.sides)}. Each method stands left as often as right, so a"
        " favoured side blurs differences and does not make one.",
        f"Swapped repeats, all together: {repeats_text(found.repeats)}.",
    ]
    decided = [one for one in found.judges if one.sides.left + one.sides.right]
    return [table, Points(told), Plots([_sides_plot(found, name)]) if decided else None]


def _sides_plot(found: Analysis, name: str) -> Plot:
    """Which side each judge preferred how often."""
    judges = [one for one in found.judges if one.sides.left + one.sides.right]
    figure, axes = new_figure(MARGIN + ROW * len(judges))
    axes.axvline(50, color=MUTED, lw=1)
    for row, one in enumerate(judges):
        total = one.sides.left + one.sides.right
        is_shown = one.sides.p_value is not None and one.sides.p_value < 0.05
        axes.plot([50, 100 * one.sides.left / total], [row, row], color=RULE, lw=3)
        axes.plot(100 * one.sides.left / total, row, "o", color=SERIES[1] if is_shown else INK, ms=7)
    rows_axis(axes, [one.judge for one in judges])
    axes.set_xlim(-4, 104)
    axes.set_xlabel("left preferred, % of pairs that were no tie")
    caption = "Orange: a side is favoured by more than chance gives, all judges allowed for (Holm)."
    return Plot(f"{name}-sides", "Left or right", caption, figure)


def _limits(found: Analysis) -> list[str]:
    return [
        *(f"{one[0].upper()}{one[1:]}." for one in reservations(found)),
        "A difference that is not shown is not shown to be zero; the interval says what is unlikely.",
        "What is said holds for judges and pairs like these: other subjects, other prompts and other people are not"
        " part of it.",
    ]


def _table(grid: Grid) -> Table:
    def cell(text: str, remark: str, *, is_word: bool) -> Cell:
        return Cell(text, remark) if is_word else Cell(_minus(text), _minus(remark))

    rows = [
        [
            cell(*one, is_word=not number or name in grid.words)
            for number, (name, one) in enumerate(zip(grid.head, row, strict=True))
        ]
        for row in grid.rows
    ]
    return Table(grid.title, grid.head, rows, words=grid.words)


def _minus(text: str) -> str:
    return re.sub(r"-(?=\d)", "−", text)
