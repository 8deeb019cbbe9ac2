"""A comparison as a chapter: table, intervals, differences, costs, curves, adapters, answers, settings and limits."""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from moslora.comparison.loss_tables import loss_tasks
from moslora.comparison.tables import is_measured, units_of_record
from moslora.comparison.verdict import AVERAGE
from moslora.records import ArmResult, ComparisonRecord
from moslora.reports.accuracy import INTERVAL, Accuracy, Point, accuracy_plot, axis_plot, cost_plot, forest_plot
from moslora.reports.comparison_tables import (
    baselines_of,
    differences_table,
    limits,
    memory_of,
    results_intro,
    results_table,
    seeds_of,
    settings_of,
    tasks_of,
)
from moslora.reports.disagreement import disagreement
from moslora.reports.drawing import Look, Plot, looks
from moslora.reports.headline import of_comparison
from moslora.reports.held_out import arm_losses
from moslora.reports.inside import adapter_plots
from moslora.reports.learning import learning_curves
from moslora.reports.medians import medians_table
from moslora.reports.parts import Chapter, Fold, Part, Plots, Points, Text
from moslora.reports.reading import Comparison, StoredRun
from moslora.reports.seeing import add_kinds, controls_table
from moslora.reports.sheets import comparison_sheets

ROWS = 40  # questions shown for a pair of arms, all tasks together
Looks = Mapping[str, Look]


def comparison_chapter(comparison: Comparison, *, name: str) -> Chapter:
    """The chapter of one comparison; `name` keeps its sections and drawings apart from other chapters'."""
    record = comparison.record
    arms = [arm for arm in record.arms if arm.tasks]
    look = looks([arm.arm for arm in record.arms], baselines={*baselines_of(record).values()})
    title = str(record.plan.get("name") or comparison.folder.resolve().name)
    number, summary = of_comparison(record)
    chapter = Chapter(name, title, summary, _facts(record), number)
    verdict = Fold("The verdict in full", [Text(record.verdict)]) if record.verdict else None
    losses = arm_losses(record)
    results = [*([] if record.tasks else losses), results_table(record)]
    chapter.add("results", "Results", *results, verdict, intro=results_intro(record), is_folded=False)
    chapter.add("accuracy", "Accuracy with intervals", Plots(_accuracy(record, arms, look, name)), is_folded=False)
    several = len({*baselines_of(record).values()}) > 1
    heading = "Differences from the baseline" if several else f"Differences from {record.baseline}"
    chapter.add("held-out", "Loss of held-out samples", *(losses if record.tasks else []))
    chapter.add("drawn", "What is drawn", *comparison_sheets(comparison))
    chapter.add("differences", heading, *_differences(record, name))
    chapter.add("cost", "Cost against accuracy", Plots(_costs(record, arms, look, name)))
    add_kinds(chapter, comparison.runs, looks=look)
    chapter.add("controls", "Controls", controls_table(record))
    for axis, heading in (("fraction", "Less training data"), ("rank", "Other ranks")):
        chapter.add(axis, heading, Plots(_along(record, arms, axis, name)))
    runs = {arm: [run.metrics for run in seeds.values()] for arm, seeds in comparison.runs.items()}
    curves = learning_curves(runs, looks=look, prefix=name, baselines=baselines_of(record))
    chapter.add("learning", "Learning curves", Plots(curves))
    chapter.add("inside", "Inside the adapters", *_inside(comparison, name))
    chapter.add("answers", "Wrong answers side by side", *_answers(comparison))
    chapter.add("limits", "Limits", Points(limits(comparison)))
    chapter.add("settings", "Settings, versions and seeds", *settings_of(record))
    return chapter


def _interval(record: ComparisonRecord) -> str:
    return INTERVAL.format(units_of_record(record))


def _facts(record: ComparisonRecord) -> str:
    seeds = seeds_of(record)
    state = "" if record.is_complete else " Not complete yet."
    names = [*record.tasks, *loss_tasks(record)]
    tasks = f"{'task' if len(names) == 1 else 'tasks'} {', '.join(names)}"
    listed = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(seeds)}"
    return (
        f"{len(record.arms)} arms, {listed if seeds else 'no runs'}, {tasks};"
        f" {record.created:%d %B %Y}, moslora {record.moslora_version}.{state}"
    )


def _chance(record: ComparisonRecord, task: str) -> float | None:
    """What guessing gets on a task; the average of all, where it is known for each."""
    if task != AVERAGE:
        return record.chance.get(task)
    known = [record.chance[one] for one in record.tasks if one in record.chance]
    return fmean(known) if known and len(known) == len(record.tasks) else None


def _estimate(arm: ArmResult, task: str) -> Accuracy:
    found = arm.tasks[task]
    return Accuracy(arm.arm, found.mean, found.low, found.high, [*found.per_seed.values()])


def _accuracy(record: ComparisonRecord, arms: Sequence[ArmResult], look: Looks, name: str) -> list[Plot]:
    plots = []
    for task in tasks_of(record):
        found = [_estimate(arm, task) for arm in arms if task in arm.tasks]
        if found:
            plots.append(
                accuracy_plot(
                    found,
                    task=task,
                    looks=look,
                    prefix=name,
                    interval=_interval(record),
                    chance=_chance(record, task),
                )
            )
    return plots


def _differences(record: ComparisonRecord, name: str) -> list[Part]:
    by_task = {task: [found for found in record.differences if found.task == task] for task in tasks_of(record)}
    by_task = {task: found for task, found in by_task.items() if found}
    interval = _interval(record)
    plots = [forest_plot(found, task=task, prefix=name, interval=interval) for task, found in by_task.items()]
    return [Plots(plots), Fold("In numbers and words", [differences_table(by_task)])] if plots else []


def _costs(record: ComparisonRecord, arms: Sequence[ArmResult], look: Looks, name: str) -> list[Plot]:
    memory = memory_of(arms)
    costs: dict[str, tuple[str, Callable[[ArmResult], float | None]]] = {
        "Trained parameters": ("million trained parameters", lambda arm: arm.trainable and arm.trainable / 1e6),
        "Time": _time(arms),
        "Memory": ("peak memory, GB", lambda arm: (memory(arm) or 0) / 1e9 or None),
    }
    plots: list[Plot] = []
    for title, (unit, cost) in costs.items():
        found = [Point(arm.arm, value, _headline(arm)) for arm in arms if (value := cost(arm))]
        if len(found) > 1:
            drawn = {"looks": look, "prefix": name, "chance": _chance(record, tasks_of(record)[0])}
            plots.append(cost_plot(found, unit=unit, title=title, **drawn))
    return plots


def _time(arms: Sequence[ArmResult]) -> tuple[str, Callable[[ArmResult], float | None]]:
    if is_measured(arms):
        return "seconds per training step", lambda arm: arm.cost and arm.cost.seconds_per_step
    return "minutes per training run", lambda arm: arm.train_seconds and arm.train_seconds / 60


def _headline(arm: ArmResult) -> float:
    found = arm.tasks.get(AVERAGE) or next(iter(arm.tasks.values()))
    return found.mean


def _along(record: ComparisonRecord, arms: Sequence[ArmResult], axis: str, name: str) -> list[Plot]:
    """A plot a task, where some method was run at several values of the axis."""
    groups: dict[str, list[ArmResult]] = {}
    for arm in arms:
        groups.setdefault(_without(arm, axis), []).append(arm)
    groups = {label: found for label, found in groups.items() if len({getattr(arm, axis) for arm in found}) > 1}
    if not groups:
        return []
    bases = {*baselines_of(record).values()}
    look = looks([*groups], baselines={label for label, found in groups.items() if bases & {arm.arm for arm in found}})
    title, show = ("share of the training data", _as_percent) if axis == "fraction" else ("rank", "{:g}".format)
    plots = []
    for task in tasks_of(record):
        lines = {
            label: [(float(getattr(arm, axis)), _estimate(arm, task)) for arm in found if task in arm.tasks]
            for label, found in groups.items()
        }
        lines = {label: sorted(line, key=lambda point: point[0]) for label, line in lines.items() if line}
        how = {"looks": look, "prefix": name, "interval": _interval(record), "chance": _chance(record, task)}
        plots.append(axis_plot(lines, axis=title, task=task, show=show, **how))
    return plots


def _as_percent(value: float) -> str:
    return f"{100 * value:g} %"


def _without(arm: ArmResult, axis: str) -> str:
    """The arm's label without its place on the axis."""
    return re.sub(r"\s*\b[\d.]+\s?%" if axis == "fraction" else r"\s*\br\s?=\s?\d+", "", arm.arm).strip() or arm.arm


def _inside(comparison: Comparison, name: str) -> list[Part]:
    first = {arm: run for arm, seeds in comparison.runs.items() if (run := _pictured(seeds)) is not None}
    if not first:
        return []
    folds = []
    for number, (arm, run) in enumerate(first.items()):
        assert run.pictures, "chosen for it"
        plots = adapter_plots(run.pictures, prefix=f"{name}-adapter{number}")
        if plots:
            has_mixer = any(layer.mixer for layer in run.pictures.layers)
            is_first = has_mixer and not any(fold.is_open for fold in folds)
            folds.append(Fold(f"{arm}, seed {run.record.seed}", [Plots(plots)], is_open=is_first))
    return [medians_table({arm: run.pictures for arm, run in first.items() if run.pictures}), *folds]


def _pictured(seeds: Mapping[str, StoredRun]) -> StoredRun | None:
    return next((run for run in seeds.values() if run.pictures and run.pictures.layers), None)


def _answers(comparison: Comparison) -> list[Part]:
    """Each arm beside its baseline, at the first seed both have, of each subject where there are several."""
    tasks, units = comparison.record.tasks, units_of_record(comparison.record)
    rows = max(6, ROWS // max(1, len(tasks)))
    folds: list[Part] = []
    for arm, baseline in baselines_of(comparison.record).items():
        ours, theirs = comparison.runs.get(baseline, {}), comparison.runs.get(arm, {})
        firsts = {ours[seed].subject: seed for seed in reversed(ours) if seed in theirs}
        for seed in reversed(firsts.values()):
            parts = []
            for task in tasks:
                pair = ours[seed].answers(task), theirs[seed].answers(task)
                parts += disagreement(*pair, names=(baseline, arm), task=task, rows=rows, units=units)
            if parts:
                folds.append(Fold(f"{baseline} and {arm}, seed {seed}", parts))
    warning = Text(f"One seed of each: single answers change with the seed, so read kinds, not {units}.")
    return [warning, *folds] if folds else []
