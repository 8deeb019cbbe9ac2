"""A comparison whose runs are spread over two processes: the first decides, both do."""

import json
from collections.abc import Callable
from pathlib import Path


def test_two_processes_do_the_runs_of_a_comparison_together(
    tmp_path: Path, plan_file: Callable[..., Path], launched: Callable[..., str]
):
    folder = tmp_path / "comparison"
    record = json.loads(launched("compare", str(plan_file()), "--output", str(folder), "--json"))
    assert record["is_complete"]
    assert {arm["arm"]: len(arm["runs"]) for arm in record["arms"]} == {"lora": 2, "moslora": 2}
    assert not list(folder.glob("**/*.failed"))
    again = json.loads(launched("compare", str(plan_file()), "--output", str(folder), "--json"))
    assert again["arms"] == record["arms"]  # nothing was done twice
