"""A run over several processes: one folder, one record, and the weights of a run in one process."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from moslora.records import RunRecord
from moslora.runs.processes import agreed, follower_folder, is_first

ALIKE = {"adapter": {"lora_dropout": 0.0}, "data": {"together": "output"}}  # each process would drop other elements


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_two_processes_train_the_adapter_of_one(
    tmp_path: Path, train: Callable[..., Any], write_recipe: Any, launched: Callable[..., str]
):
    alone = train("alone", **ALIKE)
    printed = launched("train", str(write_recipe(**ALIKE)), "--output", str(tmp_path / "two"), "--json")
    record = RunRecord.model_validate(json.loads(printed))  # printed once
    assert record == RunRecord.load(tmp_path / "two" / "run.json")
    assert (record.status, record.steps) == ("finished", alone.steps)
    assert record.evaluations[0].total == alone.evaluations[0].total
    expected, found = adapter(tmp_path / "alone"), adapter(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )


def test_a_killed_run_of_two_processes_goes_on_to_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, write_recipe: Any, launched: Callable[..., str], launcher: list[str]
):
    recipe = str(write_recipe(data=ALIKE["data"], training={"max_steps": 40, "save_every_steps": 3}))
    launched("train", recipe, "--output", str(tmp_path / "whole"))
    arguments = ["train", recipe, "--output", str(tmp_path / "killed")]
    process = subprocess.Popen([*launcher, *arguments], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert RunRecord.load(tmp_path / "killed" / "run.json").status == "running"
    launched(*arguments, "--resume")
    expected, found = adapter(tmp_path / "whole"), adapter(tmp_path / "killed")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_alone_a_process_is_the_first_and_agrees_with_itself():
    assert is_first()
    assert agreed("anything") == "anything"


def test_a_follower_has_what_a_resumed_run_needs_and_shares_only_the_checkpoints(tmp_path: Path, train: Any):
    train("run")
    with follower_folder(tmp_path / "run", resume=True) as own:
        assert own.record() == RunRecord.load(tmp_path / "run" / "run.json")
        assert adapter(own.path).keys() == adapter(tmp_path / "run").keys()
        assert own.checkpoints == tmp_path / "run" / "checkpoints"
        assert [path.name for path in own.answers.iterdir()]
        own.metrics_path.write_text("lost")
    assert not own.path.exists()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() != "lost"
