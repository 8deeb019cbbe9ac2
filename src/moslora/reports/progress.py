"""How far a run that is not finished has come, from what it left on disk."""

import json
from collections.abc import Iterator
from typing import Any

from moslora.reports.reading import StoredRun

STATES = {"running": "is running", "interrupted": "is interrupted", "failed": "has failed"}
CHECKPOINTS = "checkpoints/checkpoint-*/trainer_state.json"


def unfinished(run: StoredRun) -> str | None:
    """What has become of a run, and at which step it is (`k9 is interrupted (step 12 of 63)`); None of a finished one.

    The step is the last that was logged or kept in a checkpoint; how many were planned is left out where nothing says.
    """
    if run.record.status == "finished":
        return None
    states = [*_checkpoints(run)]
    logged = [_whole(line, "step") for line in run.metrics[-1:]]
    step = max([run.record.steps, *logged, *(step for step, _ in states)])
    told = f" (step {step:,}{_of(run, planned=[planned for _, planned in states])})" if step else ""
    return f"{run.label} {STATES[run.record.status]}{told}"


def _of(run: StoredRun, *, planned: list[int]) -> str:
    training = run.record.recipe.get("training")
    asked = _whole(training, "max_steps") if isinstance(training, dict) else 0
    total = max([run.record.planned_steps or asked, *planned])
    return f" of {total:,}" if total else ""


def _checkpoints(run: StoredRun) -> Iterator[tuple[int, int]]:
    """The step of each checkpoint that can be read, and how many were planned."""
    for path in run.folder.glob(CHECKPOINTS):
        try:
            state = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # of a process that is writing it, or was killed
        if isinstance(state, dict):
            yield _whole(state, "global_step"), _whole(state, "max_steps")


def _whole(values: dict[str, Any], name: str) -> int:
    found = values.get(name)
    return found if isinstance(found, int) else 0
