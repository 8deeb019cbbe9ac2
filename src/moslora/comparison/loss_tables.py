"""The losses of held-out samples in a comparison's tables: nats per token, lower is better, never an accuracy."""

from moslora.comparison.grids import NOTHING, Cell, Grid
from moslora.comparison.verdict import is_shown, loss_text
from moslora.records import ComparisonRecord, Difference, TaskResult

HELD_OUT, LOSS_DIFFERENCE = "loss of held-out samples", "difference in loss"


def loss_grid(record: ComparisonRecord) -> Grid:
    """Each arm's mean loss ± half of its 95 % interval; no rows without held-out samples."""
    tasks = loss_tasks(record)
    best = {task: min(_rounded(arm.losses.get(task)) for arm in record.arms) for task in tasks}
    rows = []
    for arm in record.arms if tasks else []:
        found = {task: arm.losses.get(task) for task in tasks}
        cells = [
            Cell(_loss(one), is_bold=one is not None and _rounded(one) == best[task]) for task, one in found.items()
        ]
        rows.append([Cell(arm.arm), *cells])
    return Grid([HELD_OUT, *tasks], rows)


def loss_difference_grid(record: ComparisonRecord) -> Grid:
    """Each compared arm's difference in loss with its 95 % interval; below 0 the arm is better."""
    tasks = loss_tasks(record)
    found = {(one.arm, one.task): one for one in record.loss_differences}
    rows = []
    for arm in dict.fromkeys(one.arm for one in record.loss_differences):
        own = [found.get((arm, task)) for task in tasks]
        versus = next(one.baseline for one in own if one)
        rows.append(
            [Cell(f"{arm} - {versus}"), *(Cell(_difference(one), is_bold=bool(one and is_shown(one))) for one in own)]
        )
    return Grid([LOSS_DIFFERENCE, *tasks], rows)


def loss_notes(record: ComparisonRecord) -> list[str]:
    """What a reader must know of losses; nothing without any."""
    if not loss_tasks(record):
        return []
    notes = [
        "Loss of held-out samples: nats per token, lower is better (its exponential is the perplexity); mean over"
        " seeds ±"
        " half of its 95 % interval for new seeds and new samples; bold: the lowest mean, which alone shows nothing.",
        "Differences in loss: on the same samples with the same seeds; bold: p < 0.05 after Holm's correction over all"
        " arms and files. Losses enter no average.",
    ]
    if any(arm.diverged for arm in record.arms):
        notes.append("A diverged seed counts with the highest loss of any run on each held-out sample.")
    return notes


def loss_tasks(record: ComparisonRecord) -> list[str]:
    """The tasks of which a loss was measured."""
    return [*dict.fromkeys(task for arm in record.arms for task in arm.losses)]


def _rounded(result: TaskResult | None) -> float:
    """The mean as it is printed, so that arms that look alike are both the best."""
    return float("inf") if result is None else round(result.mean, 4)


def _loss(result: TaskResult | None) -> str:
    if result is None:
        return NOTHING
    return loss_text(result.mean) + ("" if result.high is None else f" ± {loss_text(result.high - result.mean)}")


def _difference(found: Difference | None) -> str:
    if found is None:
        return NOTHING
    mean = f"{'+' if found.mean > 0 else ''}{loss_text(found.mean)}"
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ({loss_text(found.low)} to {loss_text(found.high)})"
