"""Equal tuning: every arm tries as many learning rates, and the lowest validation loss chooses, never a test score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moslora.comparison.execution import outcome
from moslora.comparison.matrix import Arm, Run
from moslora.comparison.plan import Plan
from moslora.records import TuningResult


@dataclass(frozen=True)
class Choice:
    """The learning rate chosen for an arm, or why there is none yet (`missing`) or ever (`cannot`)."""

    rate: float | None = None
    missing: str = ""
    cannot: str = ""


def choose(plan: Plan, arm: Arm, runs: Sequence[Run], *, folder: Path) -> Choice:
    """The rate of the lowest validation loss among the arm's tuning runs; of equal ones the lower rate.

    A rate at which training diverged is infinitely bad. While a run is open, or failed for another reason, there is no
    choice: it could come out differently once that run is done.
    """
    rates = plan.rates_for(arm.name)
    if len(rates) == 1:
        return Choice(rates[0])
    tried = {run.learning_rate: outcome(run, folder) for run in runs if run.arm.tuned_as == arm.tuned_as}
    failed = {rate: found for rate, found in tried.items() if found.state == "failed"}
    if failed and all(found.state in ("failed", "diverged") for found in tried.values()):
        return Choice(cannot="; ".join(dict.fromkeys(found.reason for found in failed.values())))
    waiting = [
        f"learning rate {rate:g} failed ({found.reason})" if rate in failed else f"learning rate {rate:g} not tried yet"
        for rate, found in tried.items()
        if found.state not in ("finished", "diverged")
    ]
    if waiting:
        return Choice(missing=", ".join(waiting))
    done = {rate: found.record for rate, found in tried.items() if found.state == "finished"}
    losses = [(record.validation_loss, rate) for rate, record in done.items() if record]
    if not losses:
        return Choice(cannot=f"training diverged at every learning rate tried ({', '.join(f'{r:g}' for r in rates)})")
    return Choice(min((loss, rate) for loss, rate in losses if loss is not None)[1])


def tuning_results(plan: Plan, runs: Sequence[Run], *, folder: Path) -> list[TuningResult]:
    """Every learning rate tried, for the record; a rate that diverged, or is not done, has no loss."""
    results = []
    for run in runs:
        found = outcome(run, folder)
        loss = found.record.validation_loss if found.state == "finished" and found.record else None
        chosen = choose(plan, run.arm, runs, folder=folder).rate
        results.append(
            TuningResult(
                arm=run.arm.tuned_as,
                learning_rate=run.learning_rate,
                validation_loss=loss,
                run=run.folder,
                is_chosen=run.learning_rate == chosen,
            )
        )
    return results


def tuning_notes(plan: Plan, runs: Sequence[Run], *, folder: Path) -> list[str]:
    """What a reader should know of the tuning: rates that diverged, and choices at the edge of their grid."""
    notes, at_edges = [], []
    for run in runs:
        found = outcome(run, folder)
        if found.state == "diverged":
            notes.append(f"{run.arm.tuned_as} diverged at the learning rate {run.learning_rate:g}")
        rates = plan.rates_for(run.arm.name)
        at_edge = run.learning_rate in (min(rates), max(rates)) and len(rates) > 2
        if at_edge and choose(plan, run.arm, runs, folder=folder).rate == run.learning_rate:
            edge = "highest" if run.learning_rate == max(rates) else "lowest"
            at_edges.append(f"{run.arm.tuned_as} ({edge}, {run.learning_rate:g})")
    if at_edges:
        notes.append(
            f"best at an edge of the learning rates tried, so a wider grid may do better: {', '.join(at_edges)}"
        )
    return notes
