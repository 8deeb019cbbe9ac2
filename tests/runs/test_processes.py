"""A run over several processes: one folder, one record, and the weights of a run in one process."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moslora.launch import agreed, gathered, is_first, own_share
from moslora.records import RunRecord
from moslora.runs.adapters import open_adapter
from moslora.runs.language_settings import EvaluationSettings
from moslora.runs.processes import follower_folder
from moslora.runs.scoring import evaluate_adapter
from tests.processes import Program

ALIKE = {"adapter": {"lora_dropout": 0.0}, "data": {"together": "output"}}  # each process would drop other elements


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_two_processes_train_the_adapter_of_one(tmp_path: Path, train: Callable[..., Any], write_recipe: Any):
    """Started by torchrun, as `accelerate launch` does on accelerators."""
    alone = train("alone", **ALIKE)
    arguments = ["train", str(write_recipe(**ALIKE)), "--output", str(tmp_path / "two"), "--json"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "moslora"]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    record = RunRecord.model_validate(json.loads(done.stdout))  # printed once
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
    tmp_path: Path, write_recipe: Any, in_two_processes: Callable[..., str], start_two: Callable[..., Program]
):
    recipe = str(write_recipe(data=ALIKE["data"], training={"max_steps": 40, "save_every_steps": 3}))
    in_two_processes("train", recipe, "--output", tmp_path / "whole")
    arguments = ["train", recipe, "--output", tmp_path / "killed"]
    program = start_two(*arguments)
    program.reach(lambda: list(tmp_path.glob("killed/checkpoints/checkpoint-*/trainer_state.json")))
    program.send(signal.SIGKILL)
    assert program.finish() == -signal.SIGKILL
    assert RunRecord.load(tmp_path / "killed" / "run.json").status == "running"
    in_two_processes(*arguments, "--resume")
    expected, found = adapter(tmp_path / "whole"), adapter(tmp_path / "killed")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_two_processes_answer_as_one_and_the_first_alone_writes(
    tmp_path: Path, train: Callable[..., Any], in_two_processes: Callable[..., str]
):
    """Choices by log-probability and by generation, short answers, and losses, with an odd number of rows."""
    train("run", evaluation={"tasks": []})
    exam = [{"question": f"Is {n} odd{'?' * n}", "A": "yes", "B": "no", "answer": "AB"[n % 2 == 0]} for n in range(5)]
    facts = [{"question": f"What is {n}?", "answers": ["a number" * n, str(n)]} for n in range(1, 4)]
    kept = [{"instruction": f"Say {word}.", "output": word} for word in ("a", "bb", "ccc")]
    tasks: list[str] = []
    for name, rows in {"exam": exam, "facts": facts, "kept": kept}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks += ["--task", str(tmp_path / f"{name}.jsonl")]
    asked = ["evaluate", str(tmp_path / "run"), *tasks, "--agreement", "--json"]
    divided = json.loads(in_two_processes(*asked, "--answers", tmp_path / "two"))  # printed once
    settings = EvaluationSettings.model_validate({"tasks": tasks[1::2]})
    alone = evaluate_adapter(
        open_adapter(tmp_path / "run"),
        settings,
        with_agreement=True,
        report=lambda _line: None,
        answers_folder=tmp_path / "one",
        progress=False,
    )
    written = {path.name: path.read_text().splitlines() for path in (tmp_path / "one").iterdir()}
    assert len(written) == len(divided) == len(alone) == 4
    for name, lines in written.items():
        others = (tmp_path / "two" / name).read_text().splitlines()
        for line, other in zip(map(json.loads, lines), map(json.loads, others), strict=True):
            for number in {"scores", "loss"} & {name for name, value in line.items() if value is not None}:
                assert other.pop(number) == pytest.approx(line.pop(number), rel=1e-5)
            assert other == line
    record = RunRecord.load(tmp_path / "run" / "run.json")
    assert [(one.task, one.when) for one in record.evaluations] == [("exam", "evaluated")] * 2 + [
        ("facts", "evaluated")
    ]
    assert [one.task for one in record.losses] == ["kept"]


def test_each_value_is_one_processs_share(monkeypatch: pytest.MonkeyPatch):
    assert own_share([1, 2, 3]) == [1, 2, 3]
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(own_share([*range(7)]))
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_alone_a_process_is_the_first_and_agrees_with_itself():
    assert is_first()
    assert agreed("anything") == "anything"
    assert gathered(["anything"]) == ["anything"]


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
