"""A comparison's tables, settings and limits."""

from collections.abc import Callable, Mapping, Sequence

from moslora.comparison.loss_tables import loss_tasks
from moslora.comparison.tables import is_measured, question_notes, seed_count, units_of_record
from moslora.comparison.verdict import AVERAGE
from moslora.records import ArmResult, ComparisonRecord, Difference
from moslora.reports.parts import Cell, Fold, Part, Table
from moslora.reports.reading import Comparison
from moslora.reports.wording import (
    NONE,
    amount,
    duration,
    estimate,
    facts_table,
    gigabytes,
    percent,
    points,
    probability,
    settings,
)


def tasks_of(record: ComparisonRecord) -> list[str]:
    """The average first, where there are several tasks; then every task."""
    has_average = len(record.tasks) > 1 and any(AVERAGE in arm.tasks for arm in record.arms)
    return [AVERAGE, *record.tasks] if has_average else [*record.tasks]


def seeds_of(record: ComparisonRecord) -> list[str]:
    """Every seed that some arm was run with."""
    found = {seed for arm in record.arms for result in arm.tasks.values() for seed in result.per_seed}
    found |= {seed for arm in record.arms for seed in arm.runs}
    return sorted(found, key=lambda seed: (len(seed), seed))


def baselines_of(record: ComparisonRecord) -> dict[str, str]:
    """Each compared arm's baseline; a plan of several ranks or fractions has one of its own for each."""
    arms = {arm.arm for arm in record.arms}
    found = {arm: record.baseline for arm in arms if record.baseline in arms and arm != record.baseline}
    return found | {difference.arm: difference.baseline for difference in record.differences}


def results_intro(record: ComparisonRecord) -> str:
    """How to read the table."""
    several, units = len(set(baselines_of(record).values())) > 1, units_of_record(record)
    baseline = f"{record.baseline} at the same rank and share of the data" if several else record.baseline
    if not record.tasks and loss_tasks(record):
        return (
            "Loss of held-out samples in nats per token, lower is better: mean over seeds, then the 95 % interval for"
            f" new seeds and new samples. Arms are compared with {baseline}; the lowest mean alone shows nothing."
        )
    return (
        f"Accuracy in percent: mean over seeds, then the 95 % interval for new seeds and new {units}."
        f" Arms are compared with {baseline}; the highest mean alone shows nothing."
    )


def results_table(record: ComparisonRecord) -> Table:
    """Every arm's accuracy on every task next to its name, then what it costs."""
    baselines = {*baselines_of(record).values()}
    tasks = tasks_of(record)
    memory = memory_of(record.arms)
    columns: dict[str, Callable[[ArmResult], Cell | str]] = {
        "parameters": lambda arm: Cell(amount(arm.trainable), f"rank {arm.rank}" if arm.rank else ""),
        "time": lambda arm: (
            Cell(f"{arm.cost.seconds_per_step:.3g} s", "per step")
            if arm.cost
            else Cell(duration(arm.train_seconds), "per run" if arm.train_seconds else "")
        ),
        "memory": lambda arm: gigabytes(memory(arm)),
        "learning rate": lambda arm: f"{arm.learning_rate:g}" if arm.learning_rate else NONE,
        "seeds": seed_count,
    }
    rows = []
    for arm in record.arms:
        remark = "baseline" if arm.arm in baselines else "" if arm.arm == arm.method else arm.method
        if arm.cannot or not (arm.tasks or arm.losses):
            reason = arm.cannot or next(iter(arm.failed.values()), "no finished run")
            rows.append([Cell(arm.arm, remark), Cell(reason, span=len(columns) + len(tasks))])
            continue
        found = [arm.tasks.get(task) for task in tasks]
        accuracies = [estimate(one.mean, one.low, one.high) if one else NONE for one in found]
        rows.append([Cell(arm.arm, remark), *accuracies, *(show(arm) for show in columns.values())])
    title = "Accuracy and cost of every arm" if tasks else "Cost of every arm"
    return Table(title, ["arm", *tasks, *columns], rows)


def memory_of(arms: Sequence[ArmResult]) -> Callable[[ArmResult], int | None]:
    """What gives an arm's peak memory in bytes: measured apart if all arms with results were, else that of the runs."""
    if is_measured(arms):
        return lambda arm: arm.cost and arm.cost.peak_memory_bytes
    return lambda arm: arm.peak_memory_bytes


def differences_table(by_task: Mapping[str, Sequence[Difference]]) -> Table:
    """Every difference with its interval, both p-values and its verdict."""
    rows = [_difference_row(found) for differences in by_task.values() for found in differences]
    head = ["arm", "against", "task", "difference", "p", "p, Holm", "seeds", "in words"]
    return Table("Every difference in percentage points", head, rows, words=["against", "task", "in words"])


def limits(comparison: Comparison) -> list[str]:
    """What the numbers cannot say, what failed, and what a method cannot do."""
    record = comparison.record
    failed = [f"{arm.arm}, seed {seed}, failed: {why}" for arm in record.arms for seed, why in arm.failed.items()]
    cannot = [f"{arm.arm}: {arm.cannot}" for arm in record.arms if arm.cannot]
    seeds = [len(found.per_seed) for arm in record.arms for found in arm.tasks.values()]
    found = []
    if not record.is_complete:
        found.append("Some runs are missing: the numbers will change as the comparison continues.")
    if seeds and min(seeds) < 2:
        found.append("An arm with one seed has no interval and no test: its place may be luck.")
    found.append(
        f"Intervals are for new seeds and new {units_of_record(record)} of the same kind, at the learning rates chosen."
        " They say nothing"
        " about another model, task or training set, and a difference that is not shown is not shown to be zero."
    )
    if comparison.missing:
        found.append(
            f"Not found beside the record, so left out of curves and answers: {', '.join(comparison.missing)}."
        )
    diverged = [
        f"{arm.arm}: training diverged with seed {', '.join(arm.diverged)}, counted as guessing"
        for arm in record.arms
        if arm.diverged
    ]
    return [*found, *question_notes(record), *diverged, *failed, *cannot, *record.notes]


def settings_of(record: ComparisonRecord) -> list[Part]:
    """The plan, the learning rates tried, every seed's accuracy, versions and machine."""
    parts: list[Part | None] = [Fold("The plan", [settings("The plan as YAML", record.plan)])]
    if record.tuning:
        rows = [
            [
                found.arm,
                f"{found.learning_rate:g}",
                NONE if found.validation_loss is None else f"{found.validation_loss:.4f}",
                "chosen" if found.is_chosen else "",
            ]
            for found in record.tuning
        ]
        head = ["arm", "learning rate", "validation loss", ""]
        parts.append(Fold("Learning rates tried", [Table("Every learning rate tried, on validation data", head, rows)]))
    seeds = seeds_of(record)
    per_seed = [
        [arm.arm, task, *(percent(found.per_seed.get(seed)) for seed in seeds)]
        for arm in record.arms
        for task, found in arm.tasks.items()
    ]
    if per_seed:
        head = ["arm", "task", *(f"seed {seed}" for seed in seeds)]
        parts.append(Fold("Every seed", [Table("Accuracy of every seed, percent", head, per_seed, words=["task"])]))
    machine = facts_table("Versions and machine", record.versions, record.machine)
    parts.append(Fold("Versions and machine", [machine]) if machine else None)
    return [part for part in parts if part is not None]


def _difference_row(found: Difference) -> list[Cell | str]:
    return [
        found.arm,
        found.baseline,
        found.task,
        points(found.mean, found.low, found.high),
        probability(found.p_value),
        probability(found.p_adjusted),
        str(found.seeds),
        found.verdict,
    ]
