"""A comparison as tables in the shape of the paper's Table 4, with the differences to the baseline under it."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from moslora.comparison.grids import NOTHING, Cell, Grid
from moslora.comparison.loss_tables import HELD_OUT, LOSS_DIFFERENCE, loss_difference_grid, loss_grid, loss_notes
from moslora.comparison.subjects import in_common
from moslora.comparison.verdict import AVERAGE, claim, points
from moslora.data.tasks import chance_text
from moslora.evaluation.recording import group_note, scored_text, units_of
from moslora.records import ArmResult, ComparisonRecord, Difference, TaskResult

TRIED = "validation loss at each learning rate tried"
WORDS = {
    "method",
    "difference in points",
    "verdict",
    "learning rates of",
    TRIED,
    HELD_OUT,
    LOSS_DIFFERENCE,
}  # columns set to the left
LATEX_SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX_SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$"}
CSV_ARM = ("arm", "method", "rank", "fraction", "learning_rate", "trainable", "train_seconds", "peak_memory_bytes")
CSV_COST = ("seconds_per_step", "peak_memory_bytes")
CSV_TASK = ("mean", "low", "high")
CSV_DIFFERENCE = ("baseline", "mean", "low", "high", "p_value", "p_adjusted", "seeds", "verdict")


def markdown(record: ComparisonRecord) -> str:
    """All tables, their footnotes and the verdict as Markdown."""

    def cell(found: Cell) -> str:
        text = found.text.replace("|", "\\|")
        return f"**{text}**" if found.is_bold else text

    def table(grid: Grid) -> list[str]:
        rule = ["---" if name in WORDS else "---:" for name in grid.head]
        lines = [[cell(Cell(name)) for name in grid.head], rule, *([cell(found) for found in row] for row in grid.rows)]
        return [f"| {' | '.join(line)} |" for line in lines]

    parts = [record.verdict, *_blocks(record, table), *(f"- {note}" for note in footnotes(record))]
    return "\n".join(parts).strip() + "\n"


def latex(record: ComparisonRecord) -> str:
    """All tables as LaTeX `tabular`s for the booktabs package, footnotes as comments."""

    def cell(found: Cell) -> str:
        text = "".join(LATEX_SIGNS.get(sign, sign) for sign in found.text)
        return f"\\textbf{{{text}}}" if found.is_bold else text

    def line(cells: Iterable[Cell]) -> str:
        return " & ".join(cell(found) for found in cells) + r" \\"

    def table(grid: Grid) -> list[str]:
        columns = "".join("l" if name in WORDS else "r" for name in grid.head)
        start = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", line(map(Cell, grid.head))]
        return [*start, r"\midrule", *map(line, grid.rows), r"\bottomrule", r"\end{tabular}"]

    parts = [*(f"% {note}" for note in footnotes(record)), *_blocks(record, table)]
    return "\n".join(parts).strip() + "\n"


def csv_text(record: ComparisonRecord) -> str:
    """The raw numbers, one row for each arm and task: shares, not percent; empty where there is nothing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = [*CSV_ARM, *(f"measured_{name}" for name in CSV_COST), "task", *CSV_TASK, "seeds"]
    writer.writerow([*head, *(f"difference_{name}" for name in CSV_DIFFERENCE)])
    differences = _by_place(record)
    loss_differences = {(one.arm, one.task): one for one in record.loss_differences}
    for arm in record.arms:
        for task in [*record.tasks, AVERAGE] if record.tasks else []:
            result, difference = arm.tasks.get(task), differences.get((arm.arm, task))
            row = [getattr(arm, name) for name in CSV_ARM] + [getattr(arm.cost, name, None) for name in CSV_COST]
            row += [task, *(getattr(result, name, None) for name in CSV_TASK), len(result.per_seed) if result else 0]
            writer.writerow([*row, *(getattr(difference, name, None) for name in CSV_DIFFERENCE)])
        for task, result in arm.losses.items():
            row = [getattr(arm, name) for name in CSV_ARM] + [getattr(arm.cost, name, None) for name in CSV_COST]
            row += [f"{task} (loss)", *(getattr(result, name) for name in CSV_TASK), len(result.per_seed)]
            difference = loss_differences.get((arm.arm, task))
            writer.writerow([*row, *(getattr(difference, name, None) for name in CSV_DIFFERENCE)])
    return stream.getvalue()


def terminal(record: ComparisonRecord) -> list[Table]:
    """The table of arms for the terminal, and that of losses where there are some."""
    return [_terminal(grid) for grid in (accuracy_grid(record), loss_grid(record)) if grid.rows]


def _terminal(grid: Grid) -> Table:
    table = Table()
    for name in grid.head:
        table.add_column(Text(name), justify="left" if name in WORDS else "right")
    for row in grid.rows:
        table.add_row(*(Text(found.text, style="bold" if found.is_bold else "") for found in row))
    return table


def accuracy_grid(record: ComparisonRecord) -> Grid:
    """Each arm's cost and accuracy in percent: mean ± half of the 95 % interval over seeds."""
    columns = _columns(record)
    measured = is_measured(record.arms)
    best = {task: max((_shown(arm.tasks.get(task)) for arm in record.arms), default=-1.0) for task in columns}
    rows = []
    for arm in record.arms:
        cells = [Cell(text) for text in (arm.arm, count_text(arm.trainable), *_cost_texts(arm, apart=measured))]
        cells.append(Cell(seed_count(arm)))
        for task in columns:
            shown = _shown(arm.tasks.get(task))
            cells.append(Cell(_accuracy_text(arm.tasks.get(task)), is_bold=shown >= 0 and shown == best[task]))
        rows.append(cells)
    seconds = "s / step" if measured else "train s"
    return Grid(["method", "parameters", seconds, "memory GB", "seeds", *columns], rows)


def difference_grid(record: ComparisonRecord) -> Grid:
    """Each compared arm's difference in points with its 95 % interval, and the verdict on the average."""
    columns, differences = _columns(record), _by_place(record)
    arms = list(dict.fromkeys(difference.arm for difference in record.differences))
    rows = []
    for arm in arms:
        found = [differences.get((arm, task)) for task in columns]
        average = differences.get((arm, AVERAGE))
        versus = average.baseline if average else record.baseline
        cells = [Cell(_difference_text(one), is_bold=one is not None and claim(one) != 0) for one in found]
        rows.append([Cell(f"{arm} - {versus}"), *cells, Cell(average.verdict if average else NOTHING)])
    return Grid(["difference in points", *columns, "verdict"], rows)


def tuning_grid(record: ComparisonRecord) -> Grid:
    """The validation loss of every learning rate that an arm tried; a dash where training diverged or is not done."""
    tried: dict[str, list[str]] = {}
    for one in record.tuning:
        loss = NOTHING if one.validation_loss is None else f"{one.validation_loss:.4f}"
        chosen = " (chosen)" if one.is_chosen else ""
        tried.setdefault(one.arm, []).append(f"{loss} at {one.learning_rate:g}{chosen}")
    return Grid(["learning rates of", TRIED], [[Cell(arm), Cell(", ".join(found))] for arm, found in tried.items()])


def footnotes(record: ComparisonRecord) -> list[str]:
    """What a reader must know: intervals, bold, where seconds and memory come from, what failed or cannot be done."""
    seconds = (
        "Seconds (median of a step) and peak memory: measured apart from the runs."
        if is_measured(record.arms)
        else "Seconds (median over seeds) and peak memory (largest): of the training runs themselves."
    )
    notes = [*(_accuracy_notes(record) if record.tasks else []), *loss_notes(record), seconds, *question_notes(record)]
    notes += ["The comparison is not complete."] if not record.is_complete else []
    notes += [f"{arm.arm}: {arm.cannot}" for arm in record.arms if arm.cannot]
    notes += [f"{arm.arm}: training diverged {_with(arm.diverged)}" for arm in record.arms if arm.diverged]
    notes += [f"{arm.arm}, seed {seed}: failed: {why}" for arm in record.arms for seed, why in arm.failed.items()]
    return notes + record.notes


def _accuracy_notes(record: ComparisonRecord) -> list[str]:
    units = units_of_record(record)
    return [
        f"Accuracy in %: mean over seeds ± half of its 95 % interval for new seeds and new {units}; bold: the highest "
        "mean, which alone shows nothing.",
        f"Differences: on the same {units} with the same seeds, 95 % intervals for new seeds and new {units}; bold: "
        "p < 0.05 after Holm's correction (the average: over its arms; single tasks: over all arms and tasks).",
    ]


def question_notes(record: ComparisonRecord) -> list[str]:
    """What guessing would get, what accuracy is, what intervals count, and what the arms get without a part."""
    in_parts = {task for task, one in record.scored.items() if not one.is_counted}
    shares = [f"{chance_text(share)} of {task}" for task, share in record.chance.items() if task not in in_parts]
    notes = [f"Guessing would get {' and '.join(shares)} right."] if shares else []
    notes += [
        f"Guessing would get {chance_text(share)} of the credit of {task}."
        for task, share in record.chance.items()
        if task in in_parts
    ]
    notes += [f"{task}: {scored_text(one)}." for task, one in in_common(record.plan, record.scored).items()]
    for task, count in record.groups.items():
        scored = record.scored.get(task)
        notes.append(f"{group_note(task, count, scored)}, not single {units_of([scored])}.")
    return notes + _control_notes(record)


def _control_notes(record: ComparisonRecord) -> list[str]:
    """What each arm gets right where the picture, or the question, was taken away."""
    asked = dict.fromkeys((when, task) for arm in record.arms for when, tasks in arm.controls.items() for task in tasks)
    notes = []
    for when, task in asked:
        found = [(arm.arm, arm.controls.get(when, {}).get(task)) for arm in record.arms]
        shares = ", ".join(f"{arm} {100 * share:.1f} %" for arm, share in found if share is not None)
        notes.append(f"{task}, {when}: {shares}; only accuracy above this comes from what was taken away.")
    return notes


def units_of_record(record: ComparisonRecord) -> str:
    """What the arms are compared on, in a word: questions, unless all tasks are of something else."""
    return units_of([record.scored.get(task) for task in record.tasks])


def count_text(count: int | None) -> str:
    """A number of parameters in three digits or so: 28.3M, 461k."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if count is not None and count >= size:
            return f"{count / size:.1f}{unit}"
    if count is None:
        return NOTHING
    return f"{count / 1e3:.0f}k" if count >= 1e3 else str(count)


def _blocks(record: ComparisonRecord, table: Callable[[Grid], list[str]]) -> list[str]:
    """The lines of all tables, each with an empty line around it."""
    lines = ["", *table(accuracy_grid(record)), ""]
    for grid in (difference_grid(record), loss_grid(record), loss_difference_grid(record)):
        lines += [*table(grid), ""] if grid.rows else []
    return [*lines, *table(tuning_grid(record)), ""] if record.tuning else lines


def _columns(record: ComparisonRecord) -> Sequence[str]:
    return [*record.tasks, AVERAGE] if len(record.tasks) > 1 else record.tasks


def _by_place(record: ComparisonRecord) -> Mapping[tuple[str, str], Difference]:
    return {(difference.arm, difference.task): difference for difference in record.differences}


def is_measured(arms: Sequence[ArmResult]) -> bool:
    """Only if all arms with results are measured apart, so that a column never mixes two kinds of numbers."""
    with_results = [arm for arm in arms if arm.tasks or arm.losses]
    return bool(with_results) and all(arm.cost for arm in with_results)


def _cost_texts(arm: ArmResult, *, apart: bool) -> tuple[str, str]:
    if apart:
        seconds, memory = (arm.cost.seconds_per_step, arm.cost.peak_memory_bytes) if arm.cost else (None, None)
    else:
        seconds, memory = arm.train_seconds, arm.peak_memory_bytes
    return (NOTHING if seconds is None else f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"), (
        NOTHING if memory is None else f"{memory / 1e9:.2f}"
    )


def seed_count(arm: ArmResult) -> str:
    """How many seeds an arm's numbers are the mean of, and how many of them diverged."""
    count = max((len(result.per_seed) for result in (arm.tasks | arm.losses).values()), default=0)
    return f"{count} ({len(arm.diverged)} diverged)" if arm.diverged else str(count)


def _with(seeds: Sequence[str]) -> str:
    several = len(seeds) > 1
    return f"with seed{'s' if several else ''} {', '.join(seeds)}, which count{'' if several else 's'} as guessing"


def _shown(result: TaskResult | None) -> float:
    """The mean as it is printed, so that arms that look alike are both the best; -1 without a result."""
    return -1.0 if result is None else round(100 * result.mean, 1)


def _accuracy_text(result: TaskResult | None) -> str:
    if result is None:
        return NOTHING
    if result.low is None or result.high is None:
        return f"{100 * result.mean:.1f}"
    half = max(result.high - result.mean, result.mean - result.low)  # the side that 0 or 1 did not cut
    return f"{100 * result.mean:.1f} ± {100 * half:.1f}"


def _difference_text(difference: Difference | None) -> str:
    if difference is None:
        return NOTHING
    sign = "+" if difference.mean > 0 else ""
    mean = f"{sign}{points(difference.mean)}"
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} ({points(difference.low)} to {points(difference.high)})"
