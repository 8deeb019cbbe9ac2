"""A comparison whose runs are spread over two processes: the first decides, both do."""

import json
from collections.abc import Callable
from pathlib import Path


def test_two_processes_do_the_runs_of_a_comparison_together(
    tmp_path: Path, plan_file: Callable[..., Path], in_two_processes: Callable[..., str]
):
    folder = tmp_path / "comparison"
    record = json.loads(in_two_processes("compare", str(plan_file()), "--output", str(folder), "--json"))
    assert record["is_complete"]
    assert {arm["arm"]: len(arm["runs"]) for arm in record["arms"]} == {"lora": 2, "moslora": 2}
    assert not list(folder.glob("**/*.failed"))
    again = json.loads(in_two_processes("compare", str(plan_file()), "--output", str(folder), "--json"))
    assert again["arms"] == record["arms"]  # nothing was done twice


def test_a_folder_that_only_the_first_process_can_refuse_does_not_stop_the_rest(
    tmp_path: Path, plan_file: Callable[..., Path], in_two_processes: Callable[..., str]
):
    blocked = tmp_path / "comparison" / "runs" / "lora-seed1"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    plan = plan_file(tuning={"learning_rates": [0.01]}, seeds=[1])
    record = json.loads(in_two_processes("compare", str(plan), "--output", str(tmp_path / "comparison"), "--json"))
    lora, moslora = record["arms"]
    assert "is a file, a run needs a folder" in lora["failed"]["1"]
    assert list(moslora["runs"]) == ["1"]
