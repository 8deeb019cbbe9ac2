"""The GPU benchmark, on tiny shapes on the CPU: the whole program, and what it does when something goes wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
# Libraries of ours that the program must do without: a GPU machine has torch, transformers, peft and what these need.
ABSENT = ("accelerate.test_utils", "datasets", "matplotlib", "pydantic", "scipy", "trl", "rich", "jinja2")
PROGRAM = """
import runpy, sys
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = ["benchmarks.gpu", *{arguments!r}]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def benchmark(*arguments):
    program = PROGRAM.format(absent=ABSENT, arguments=arguments)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture
def parts(monkeypatch):
    """The program's modules, which lie outside the package."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import correctness, kinds, record, reference, training

    return {"correctness": correctness, "kinds": kinds, "record": record, "reference": reference, "training": training}


def test_the_whole_program_runs_on_tiny_shapes_without_hub_and_extras(tmp_path):
    path = tmp_path / "new" / "gpu.json"
    done = benchmark("--device", "cpu", "--tiny", "--output", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert found["is_complete"]
    assert found["card"] == {"name": "cpu"}
    assert {"torch", "transformers", "peft"} <= set(found["versions"])
    assert found["left_out"] == []
    results = {(entry["kind"], entry["precision"]): entry["result"] for entry in found["checks"]}
    assert results["linear, chain of 3", "autocast"] == results["linear", "compiled"] == "passed"
    assert set(results.values()) == {"passed"}
    steps = {(e["dropout"], e["gradient_checkpointing"], e["adapter"]): e["result"] for e in found["steps"]}
    assert len(steps) == len(found["steps"]) == 4 * 7
    assert set(steps.values()) == {"measured"}
    assert "moslora, compiled" in done.stdout
    assert "0 failed" in done.stdout


def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    done = benchmark("--output", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("no GPU: torch finds no CUDA device here")
    assert not (tmp_path / "gpu.json").exists()


def test_what_does_not_fit_the_time_is_left_out_and_named(parts, tmp_path, capsys):
    record = parts["record"].Record(tmp_path / "gpu.json", device="cpu")
    spent = parts["record"].Budget(0.0)
    parts["correctness"].check_all(parts["kinds"].EAGER, "cpu", record, spent, backend="eager")
    parts["training"].measure_all("tiny", "cpu", record, spent, backend="eager", rounds=1)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["checks"] == found["steps"] == []
    assert "correctness of linear, bfloat16: time budget" in found["left_out"]
    assert "dora, dropout 0.05: time budget" in found["left_out"]
    assert "left out: naive, dropout 0 (time budget)" in capsys.readouterr().out


def test_a_wrong_layer_fails_and_is_told(parts, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(parts["reference"], "mixed", lambda h, links: h)
    regimes = {"float32": parts["kinds"].Regime(torch.float32, kinds=("linear",))}
    record = parts["record"].Record(tmp_path / "gpu.json", device="cpu")
    parts["correctness"].check_all(regimes, "cpu", record, parts["record"].Budget(60.0), backend="eager")
    assert parts["correctness"].failures(record) == 1
    assert "FAIL  linear" in capsys.readouterr().out


class OutOfMemory(nn.Module):
    def forward(self, **batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def test_out_of_memory_is_recorded_and_the_others_are_measured(parts, monkeypatch):
    training = parts["training"]
    monkeypatch.setattr(training, "switch_checkpointing", lambda model, is_on: None)
    base = training.random_llama(training.SIZES["tiny"], "cpu")
    candidates = {
        "dora": training.Candidate(OutOfMemory(), None),
        "moslora": training.build("moslora", base, dropout=0.0, backend="eager"),
    }
    batch = dict.fromkeys(("input_ids", "labels"), torch.randint(64, (2, 8)))
    entries = training.measure(candidates, batch, False, parts["record"].Budget(60.0), rounds=1)
    found = {entry.pop("adapter"): entry for entry in entries}
    assert found["dora"] == {"result": "failed", "reason": "out of memory"}
    assert found["moslora"]["result"] == "measured"
    assert found["moslora"]["loss"] == pytest.approx(torch.log(torch.tensor(64.0)), abs=0.5)


def test_adapters_share_the_frozen_weights(parts):
    training = parts["training"]
    base = training.random_llama(training.SIZES["tiny"], "cpu")
    frozen = {parameter.data_ptr() for parameter in base.parameters()}
    for name in training.ADAPTERS:
        model = training.build(name, base, dropout=0.05, backend="eager").model
        assert {p.data_ptr() for p in model.parameters() if not p.requires_grad} == frozen
        assert any(p.requires_grad for p in model.parameters()) == (name != "none")
