"""The shipped plan `quick` on the real model, killed half-way: two methods, two seeds, two learning rates."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from moslora.records import RunRecord


def finished(folder: Path) -> dict[Path, dict[str, Any]]:
    """What finished runs measured, their clock included; their weights may be removed a moment later."""
    records = {path: RunRecord.load(path) for path in folder.glob("*/*/run.json")}
    kept = {path: record for path, record in records.items() if record.status == "finished"}
    return {path: record.model_dump(exclude={"artifacts", "notes"}) for path, record in kept.items()}


def test_a_quick_comparison_of_the_real_model_goes_on_after_a_kill(tmp_path: Path, demo_model: None):
    folder = tmp_path / "quick"
    command = [sys.executable, "-m", "moslora", "compare", "quick", "--output", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while len(finished(folder)) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.kill()
    process.wait()
    kept = finished(folder)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert finished(folder).items() >= kept.items()
    record = json.loads(done.stdout)
    assert record["is_complete"]
    assert {arm["arm"]: sorted(arm["runs"]) for arm in record["arms"]} == {"lora": ["1", "2"], "moslora": ["1", "2"]}
    assert sum(found["is_chosen"] for found in record["tuning"]) == 2
    assert record["differences"][0]["seeds"] == 2
