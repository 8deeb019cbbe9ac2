"""Equal tuning: every arm tries as many learning rates, and the lowest validation loss chooses, never a test score."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moslora.comparison.execution import outcome
from moslora.comparison.matrix import Arm, Run
from moslora.comparison.plan import Plan
from moslora.errors import CheckpointError
from moslora.estimation import LEVEL, p_of_no_difference, table
from moslora.packed import read_text
from moslora.records import TuningResult
from moslora.runs.folder import RunFolder


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


def doubts_of(plan: Plan, arm: Arm, runs: Sequence[Run], *, folder: Path) -> list[str]:
    """What makes the choice of an arm's rate uncertain: an edge of its grid, or losses that are not told apart."""
    rates = plan.rates_for(arm.name)
    chosen = choose(plan, arm, runs, folder=folder).rate
    if chosen is None or len(rates) == 1:
        return []
    found = []
    if chosen in (min(rates), max(rates)):
        found.append(f"{chosen:g} is the {'highest' if chosen == max(rates) else 'lowest'} rate tried")
    own = {run.learning_rate: run for run in runs if run.arm.tuned_as == arm.tuned_as}
    losses = {rate: read for rate, run in own.items() if (read := _losses(folder / run.folder))}
    others = [rate for rate in losses if chosen in losses and _is_like(losses[chosen], losses[rate])]
    if others := [f"{rate:g}" for rate in others if rate != chosen]:
        found.append(f"{chosen:g} is not told apart from {' and '.join(others)} by the validation samples")
    return found


def tuning_notes(plan: Plan, runs: Sequence[Run], *, folder: Path) -> list[str]:
    """What a reader should know of the tuning: rates that diverged, choices at the edge of their grid, lost losses."""
    notes, at_edges, unknown = [], [], {}
    for run in runs:
        found = outcome(run, folder)
        if found.state == "finished" and _losses(folder / run.folder) is None:
            unknown[run.arm.tuned_as] = None
        if found.state == "diverged":
            notes.append(f"{run.arm.tuned_as} diverged at the learning rate {run.learning_rate:g}")
        rates = plan.rates_for(run.arm.name)
        at_edge = run.learning_rate in (min(rates), max(rates))
        if at_edge and choose(plan, run.arm, runs, folder=folder).rate == run.learning_rate:
            edge = "highest" if run.learning_rate == max(rates) else "lowest"
            at_edges.append(f"{run.arm.tuned_as} ({edge}, {run.learning_rate:g})")
    if at_edges:
        notes.append(
            f"best at an edge of the learning rates tried, so a wider grid may do better: {', '.join(at_edges)}"
        )
    if unknown:
        notes.append(
            f"not known, as runs kept no losses by sample: whether rates are told apart for {', '.join(unknown)}"
        )
    return notes


@dataclass(frozen=True)
class _Losses:
    """The validation loss of each sample of a run: the mean over its tokens, their number, and its group."""

    losses: np.ndarray
    tokens: np.ndarray
    groups: list[str | None]

    @property
    def units(self) -> int:
        """How many do not depend on each other."""
        return len(self.losses) if None in self.groups else len({*self.groups})


def _losses(run_folder: Path) -> _Losses | None:
    """A run's losses by sample; None for a run of former versions, or without validation samples.

    Raises `CheckpointError` if they are damaged.
    """
    path = RunFolder(run_folder).validation_path
    try:
        lines = [json.loads(line) for line in (read_text(path) or "").splitlines()]
        losses, tokens = (np.array([float(line[name]) for line in lines]) for name in ("loss", "tokens"))
        return _Losses(losses, tokens, [line["group"] for line in lines]) if lines else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read the losses in {path}: {error!r}; run {run_folder} again") from error


def _is_like(first: _Losses, second: _Losses) -> bool:
    """Whether two runs' losses are not told apart by what single samples, or groups of them, vary by."""
    if len(first.losses) != len(second.losses):
        return True
    gaps = first.losses - second.losses
    if not np.isfinite(gaps).all():  # one of them diverged
        return False
    if first.units < 2:  # which says nothing of others
        return True
    groups = None if None in first.groups else first.groups
    return p_of_no_difference([table(gaps[None], groups, answer=0.0, weights=first.tokens)]) >= LEVEL
