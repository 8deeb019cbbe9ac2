"""A comparison from its plan to its table: tuning runs, then the runs that count, then the statistics.

Read from top to bottom. Nothing is kept but what lies in the folder, so that a killed comparison goes on where it was,
and several processes can share one folder, each with its part of the runs.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from moslora.comparison.coverage import check_coverage
from moslora.comparison.execution import DONE, Outcome, execute, has_failed, outcome
from moslora.comparison.gathering import gather, held_out_of, scores_of
from moslora.comparison.losses import compare_losses
from moslora.comparison.matching import matched_arms, matching_notes
from moslora.comparison.matrix import Arm, Final, Run, baseline_of, final_run, final_seeds, tuning_runs
from moslora.comparison.plan import Plan, changes, load_plan
from moslora.comparison.results import chance_notes
from moslora.comparison.sharding import Shard
from moslora.comparison.statistics import compare_arms
from moslora.comparison.tables import csv_text, latex, markdown
from moslora.comparison.timing import Pace
from moslora.comparison.tuning import choose, tuning_notes, tuning_results
from moslora.comparison.verdict import overall
from moslora.errors import ConfigError
from moslora.files import check_writable, write_atomically
from moslora.launch import agreed, is_first
from moslora.records import ComparisonRecord
from moslora.runs.active import Reporter
from moslora.runs.environment import describe_machine, describe_versions
from moslora.runs.folder import RunFolder
from moslora.runs.run import plan_run

PLAN_NAME, RECORD_NAME = "plan.yaml", "comparison.json"


def run_comparison(
    plan: Plan, folder: str | Path, *, shard: Shard | None = None, report: Reporter = lambda _line: None
) -> ComparisonRecord:
    """Do the runs of a plan in `folder`, all or a shard of them, and collect what is there.

    Finished runs are never repeated, failed ones are tried again after the others. `report` is called with a line a
    run. Raises the errors of `moslora.errors` for a folder that another plan was started in, and for a model or data
    that cannot be had, before anything is changed, and KeyboardInterrupt once the run at hand is saved.
    """
    folder = Path(folder)
    check_plan(plan, folder)
    arms = matched_arms(plan)
    tuning = tuning_runs(plan, arms)
    finals = list(final_seeds(plan, arms))
    if is_first():
        _prepare(plan, arms, folder)
    mine = (shard or Shard()).part([*tuning, *finals])
    risky = _failed_before(mine, folder)
    work = [*(one for one in mine if one not in risky), *risky]
    pace = Pace(total=len(work), report=report)
    for number, one in enumerate(work):
        left = sum(_share(plan, other) for other in work[number + 1 :])
        if risky and one is risky[0]:
            _collected(plan, folder, arms)  # a table, should it kill this process once more
        run = one if isinstance(one, Run) else _with_rate(plan, one, tuning, folder=folder, pace=pace)
        if run is not None:
            _do(run, folder, pace, weight=_share(plan, run), left=left)
    pace.tell_found()
    return _collected(plan, folder, arms)


def check_plan(plan: Plan, folder: str | Path) -> None:
    """Refuse a folder that another plan was started in, or that cannot be written, and arms of unequal coverage.

    Changes nothing.
    """
    path = Path(folder) / PLAN_NAME
    if path.is_file() and (changed := changes(load_plan(path), plan)):
        name, (was, now) = next(iter(changed.items()))
        raise ConfigError(
            f"{folder} was started with another plan ({', '.join([*changed][:5])}: {name} was {was}, is {now}): resume"
            " it"
            f" with its own ({path}), or give another folder with --output"
        )
    check_writable(folder)
    check_coverage(plan)


def collect(plan: Plan, folder: str | Path) -> ComparisonRecord:
    """The record of what is finished in the folder, also written there, with its tables in three forms.

    Raises `CheckpointError` for a run whose answers are missing or damaged.
    """
    return _collected(plan, Path(folder), matched_arms(plan))


def _collected(plan: Plan, folder: Path, arms: Sequence[Arm]) -> ComparisonRecord:
    tuning = tuning_runs(plan, arms)
    done = gather(plan, arms, tuning, folder=folder)
    rows, tasks = done.rows, [name for name in plan.tasks if name not in done.losses]
    scores, questions = scores_of(plan, done)
    pairs = {arm.label: baseline_of(plan, arm, arms).label for arm in arms}
    doubts = {row.arm: row.doubts for row in rows}
    results, differences = compare_arms(scores, baseline=pairs, tasks=tasks, questions=questions, doubts=doubts)
    losses, loss_differences = compare_losses(held_out_of(plan, done), baseline=pairs, doubts=doubts)
    for row in rows:
        row.tasks, row.losses = results.get(row.arm, {}), losses.get(row.arm, {})
    labels = set(pairs.values())
    record = ComparisonRecord(
        plan=plan.to_dict(),
        versions=describe_versions(),
        machine=describe_machine(),
        baseline=labels.pop() if len(labels) == 1 else plan.baseline,
        tasks=tasks,
        arms=rows,
        chance={name: one.mean_chance for name, one in questions.items() if one.mean_chance is not None},
        groups={name: len(set(one.groups)) for name, one in questions.items() if one.groups},
        scored={name: one.scored for name, one in questions.items() if one.scored},
        differences=differences,
        loss_differences=loss_differences,
        tuning=tuning_results(plan, tuning, folder=folder),
        is_complete=done.is_complete,
        notes=[
            *chance_notes(scores, questions),
            *done.notes,
            *matching_notes(plan, rows, pairs),
            *tuning_notes(plan, tuning, folder=folder),
        ],
    )
    record.verdict = overall(record)
    if not is_first():
        return record
    record.save(folder / RECORD_NAME)
    for name, text in (("table.md", markdown), ("table.csv", csv_text), ("table.tex", latex)):
        write_atomically(folder / name, text(record))
    return record


def _do(run: Run, folder: Path, pace: Pace, *, weight: float, left: float) -> None:
    """Do a run and say how it went; `weight` and `left` are the steps of it and of those after it, in whole runs."""
    before = outcome(run, folder).state
    if before in DONE:
        execute(run, folder)  # a kill may have come before its checkpoints were removed
        pace.found()
        return
    started = time.perf_counter()
    found = execute(run, folder)
    if found.state == "busy":
        pace.skip(f"{run.title}: {found.reason}")
        return
    pace.done(f"{run.title}: {_result(found)}", seconds=time.perf_counter() - started, weight=weight, left=left)


def _prepare(plan: Plan, arms: Sequence[Arm], folder: Path) -> None:
    """Refuse what every run would fail for, a model or data that cannot be had; then the folder is the plan's own."""
    if not (folder / PLAN_NAME).is_file():
        baseline = baseline_of(plan, arms[0], arms)
        rate = plan.rates_for(baseline.name)[0]
        for subject in plan.subject_names:
            run = final_run(plan, baseline, seed=plan.tuning.seed, learning_rate=rate, subject=subject)
            plan_run(run.recipe, RunFolder(folder / run.folder))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PLAN_NAME, plan.to_yaml())


def _failed_before(work: Sequence[Run | Final], folder: Path) -> list[Run | Final]:
    """The runs that failed, and those that wait for them.

    They come last: a run that kills its process, by the memory it needs, must not keep others from being done.
    """
    failed = agreed({one.folder for one in work if has_failed(folder / one.folder)})
    untuned = {one.arm.tuned_as for one in work if isinstance(one, Run) and one.folder in failed}
    return [one for one in work if one.folder in failed or (isinstance(one, Final) and one.arm.tuned_as in untuned)]


def _with_rate(plan: Plan, final: Final, tuning: Sequence[Run], *, folder: Path, pace: Pace) -> Run | None:
    """The run at the learning rate chosen for its arm; None, and said, while or since there is none."""
    choice = agreed(choose(plan, final.arm, tuning, folder=folder))
    if choice.rate is None:
        pace.skip(f"{final.title}: {choice.cannot or choice.missing}")
        return None
    return final_run(plan, final.arm, seed=final.seed, learning_rate=choice.rate, subject=final.subject)


def _share(plan: Plan, run: Run | Final) -> float:
    """A run's steps as a share of those with all samples."""
    if isinstance(run, Run) and run.kind == "tuning":
        return plan.tuning.steps_share
    return run.arm.fraction if plan.recipe.training.max_steps is None else 1.0


def _result(found: Outcome) -> str:
    if found.record is None:
        return f"{found.state}: {found.reason}"
    scored = [f"{e.task} {e.accuracy:.1%}" for e in found.record.evaluations if e.when == "after"]
    scored += [f"{one.task} loss {one.loss:.4f}" for one in found.record.losses if one.when == "after"]
    if scored:
        return ", ".join(scored)
    loss = found.record.validation_loss
    return f"validation loss {loss:.4f}" if loss is not None else found.state
