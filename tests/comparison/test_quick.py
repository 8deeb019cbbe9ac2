"""The shipped plan `quick` on the real model, killed half-way; with fewer steps and questions than it has."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moslora.records import RunRecord
from tests.processes import Program


def finished(folder: Path) -> dict[Path, dict[str, Any]]:
    """What finished runs measured, their clock included; their weights may be removed a moment later."""
    records = {path: RunRecord.load(path) for path in folder.glob("*/*/run.json")}
    kept = {path: record for path, record in records.items() if record.status == "finished"}
    return {path: record.model_dump(exclude={"artifacts", "notes"}) for path, record in kept.items()}


FEWER = ["recipe.training.max_steps=4", "recipe.evaluation.limit=16", "tuning.validation_samples=16"]


def test_a_quick_comparison_of_the_real_model_goes_on_after_a_kill(
    tmp_path: Path, demo_model: None, start: Callable[..., Program]
):
    folder = tmp_path / "quick"
    command = ["compare", "quick", "--output", folder, *(word for value in FEWER for word in ("--set", value))]
    killed = start(*command)
    killed.reach(lambda: len(finished(folder)) >= 4)
    killed.send(signal.SIGKILL)
    assert killed.finish() == -signal.SIGKILL
    kept = finished(folder)
    again = start(*command, "--json")
    assert again.finish() == 0, again.stderr
    assert finished(folder).items() >= kept.items()
    record = json.loads(again.stdout)
    assert record["is_complete"]
    assert {arm["arm"]: sorted(arm["runs"]) for arm in record["arms"]} == {"lora": ["1", "2"], "moslora": ["1", "2"]}
    assert sum(found["is_chosen"] for found in record["tuning"]) == 2
    assert record["differences"][0]["seeds"] == 2
