import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moslora.errors import ConfigError
from moslora.records import RunRecord
from moslora.runs import run as run_module
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from tests.processes import Program

Begin = Callable[[Path, Path], Program]
Train = Callable[..., RunRecord]
Weights = Callable[[str], dict[str, torch.Tensor]]

LONG = {"training": {"max_steps": 40, "save_every_steps": 3, "log_every_steps": 4}}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def metrics(run: Path) -> list[dict[str, float]]:
    """The logged values without the speeds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "runtime" not in k and "per_second" not in k} for line in lines]


@pytest.fixture
def until_a_checkpoint(start: Callable[..., Program]) -> Begin:
    """The program in a process of its own, training, with a first checkpoint."""

    def begin(recipe: Path, run: Path) -> Program:
        program = start("train", recipe, "--output", run)
        program.reach(lambda: list(run.glob("checkpoints/checkpoint-*/trainer_state.json")))
        return program

    return begin


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, train: Train, weights: Weights, write_recipe: Callable[..., Path], until_a_checkpoint: Begin
):
    whole = train("whole", **LONG)
    run = tmp_path / "killed"
    program = until_a_checkpoint(write_recipe(**LONG), run)
    program.send(signal.SIGKILL)
    assert program.finish() == -signal.SIGKILL
    assert RunRecord.load(run / "run.json").status == "running"
    assert not (run / "adapter").exists()
    record = train("killed", resume=True, **LONG)
    assert same(weights("killed"), weights("whole"))
    assert metrics(run) == metrics(tmp_path / "whole")
    assert (record.status, record.steps, record.train_loss) == ("finished", 40, whole.train_loss)
    assert record.notes[-1] == "resumed after an interruption; the times leave out a process that was killed"
    assert record.resumptions == 1
    assert record.evaluations[0].by_kind == whole.evaluations[0].by_kind


def test_control_c_saves_the_step_and_says_how_to_go_on(
    tmp_path: Path, write_recipe: Callable[..., Path], until_a_checkpoint: Begin
):
    recipe, run = write_recipe(training={"max_steps": 2000, "save_every_steps": 3}), tmp_path / "run"
    program = until_a_checkpoint(recipe, run)
    program.send(signal.SIGINT)
    assert program.finish() == 130
    assert program.stdout == ""
    *_, asked, last = [line for line in program.stderr.splitlines() if not line.startswith("training ")]
    assert asked == "finishing this step, then saving (once more: stop at once)"
    record = RunRecord.load(run / "run.json")
    assert record.status == "interrupted"
    assert (run / "checkpoints" / f"checkpoint-{record.steps}" / "trainer_state.json").is_file()
    assert last == (
        f"interrupted: stopped after step {record.steps}, which is saved; "
        f"to resume: moslora train {recipe} --output {run} --resume"
    )


STOPPED = {
    "in the middle of an epoch": (3, {}),
    "at the end of an epoch": (4, {"training": {"max_steps": 8}}),
    "without checkpoints of its own": (3, {"training": {"save_every_steps": None}}),
    "in epochs": (5, {"training": {"max_steps": None, "epochs": 1.5}}),
    "accumulating": (5, {"training": {"micro_batch_size": 2}}),
    "packed": (2, {"data": {"packing": True, "max_length_tokens": 128}, "training": {"batch_size": 1}}),
    "with the best kept": (
        2,
        {"data": {"validation_samples": 4}, "training": {"evaluate_every_steps": 2, "keep_best": True}},
    ),
    "rarely logged": (3, {"training": {"log_every_steps": 3}}),
    "dora": (3, {"adapter": {"use_dora": True}}),
    "linchain": (3, {"adapter": {"method": "linchain"}}),
    "checkpointing": (3, {"training": {"gradient_checkpointing": True}}),
    "groups": (3, {"data": {"together": "output"}}),
    "groups, another epoch": (6, {"data": {"together": "output"}, "training": {"max_steps": 8}}),
}


@pytest.mark.parametrize("case", STOPPED)
def test_a_stopped_run_resumes_to_the_weights_of_an_uninterrupted_one(
    case: str, tmp_path: Path, train: Train, weights: Weights, signal_at_batch: Callable[..., None]
):
    batch, changes = STOPPED[case]
    whole = train("whole", **changes)
    signal_at_batch(batch)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step \d, which is saved"):
        train("stopped", **changes)
    stopped = RunRecord.load(tmp_path / "stopped" / "run.json")
    assert stopped.status == "interrupted"
    assert 0 < stopped.steps < whole.steps
    record = train("stopped", resume=True, **changes)
    assert same(weights("stopped"), weights("whole"))
    assert record.train_loss == pytest.approx(whole.train_loss, rel=1e-6)
    assert record.steps == whole.steps


def test_a_run_stopped_after_training_says_what_is_missing(train: Train, signal_at_batch: Callable[..., None]):
    signal_at_batch(1)
    missing = r"^stopped after training; the adapter is saved; the evaluation \(everyday\) is still missing$"
    with pytest.raises(KeyboardInterrupt, match=missing):
        train("stopped", training={"max_steps": 1})
    assert train("stopped", resume=True, training={"max_steps": 1}).evaluations


NEW_SETTINGS = ("columns", "on_bad", "longer", "validation", "validation_share", "chat_template", "system")


def test_a_run_stopped_under_a_former_version_resumes_with_the_names_that_settings_had_then(
    tmp_path: Path, train: Train, weights: Weights, signal_at_batch: Callable[..., None]
):
    changes = {"data": {"leave_out_longer": True}}
    whole = train("whole", **changes)
    signal_at_batch(3)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", **changes)
    path = tmp_path / "stopped" / "run.json"
    record = json.loads(path.read_text())
    data = record["recipe"]["data"]
    record["recipe"]["data"] = {name: value for name, value in data.items() if name not in NEW_SETTINGS}
    record["recipe"]["data"]["leave_out_longer"] = True
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"\(data\.longer was leave_out, is cut\)"):
        train("stopped", resume=True)
    assert train("stopped", resume=True, **changes).steps == whole.steps
    assert same(weights("stopped"), weights("whole"))


@pytest.mark.parametrize("keep_best", [False, True])
def test_a_run_killed_before_its_adapter_is_saved_takes_the_last_or_the_best_checkpoint(
    keep_best: bool, train: Train, weights: Weights, monkeypatch: pytest.MonkeyPatch
):
    changes = {
        "data": {"validation_samples": 4},
        "training": {
            "max_steps": 2,
            "evaluate_every_steps": 1,
            "save_every_steps": 1,
            "keep_best": keep_best,
            "learning_rate": 3.0,
            "schedule": "constant",
        },
    }
    whole = train("whole", **changes)

    def killed(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_learned", killed)
        with pytest.raises(KeyboardInterrupt):
            train("killed", **changes)
    record = train("killed", resume=True, **changes)
    assert same(weights("killed"), weights("whole"))
    assert (record.steps, record.train_loss) == (2, whole.train_loss)
    assert record.validation_loss == whole.validation_loss


def test_a_moved_run_still_finds_its_best_checkpoint(
    tmp_path: Path, weights: Weights, train: Train, signal_at_batch: Callable[..., None]
):
    changes = {
        "data": {"validation_samples": 4},
        "training": {
            "max_steps": 3,
            "evaluate_every_steps": 1,
            "keep_best": True,
            "save_every_steps": 1,
            "learning_rate": 3.0,
            "schedule": "constant",
        },
    }
    train("whole", **changes)
    signal_at_batch(4)
    with pytest.raises(KeyboardInterrupt):
        train("a", **changes)
    assert RunRecord.load(tmp_path / "a" / "run.json").steps < 3
    shutil.move(tmp_path / "a", tmp_path / "b")
    train("b", resume=True, **changes)
    assert same(weights("b"), weights("whole"))


def test_a_run_interrupted_while_scoring_keeps_its_adapter_and_scores_the_rest(
    tmp_path: Path, train: Train, weights: Weights, monkeypatch: pytest.MonkeyPatch
):
    changes = {"evaluation": {"before": True}}

    def interrupted(*arguments: Any, when: str, **options: Any) -> None:
        if when == "after":
            raise KeyboardInterrupt
        original(*arguments, when=when, **options)

    original = run_module.score
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(**changes)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = weights("run")
    record = train(resume=True, **changes)
    assert same(weights("run"), before)
    assert [evaluation.when for evaluation in record.evaluations] == ["before", "after"]


def test_a_second_interrupt_stops_at_once(tmp_path: Path, train: Train, signal_at_batch: Callable[..., None]):
    signal_at_batch(2, times=2)
    with pytest.raises(KeyboardInterrupt, match="stopped at once"):
        train()
    assert RunRecord.load(tmp_path / "run" / "run.json").status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_resuming_a_finished_run_says_so(tmp_path: Path, train: Train, write_recipe: Callable[..., Path]):
    record = train()
    lines: list[str] = []
    recipe = load_recipe(write_recipe())
    assert run_recipe(recipe, tmp_path / "run", resume=True, report=lines.append) == record
    assert lines == [f"{tmp_path / 'run'} is finished; nothing to do"]


def test_resuming_with_other_settings_is_refused(tmp_path: Path, train: Train):
    train()
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        train(resume=True, training={"learning_rate": 0.02}, adapter={"r": 4, "use_dora": True})
    assert str(caught.value) == (
        f"{tmp_path / 'run'} was started with other settings (adapter.use_dora was None, is True;"
        " training.learning_rate was 0.01, is 0.02): resume it with its own: `moslora train"
        f" {tmp_path / 'run' / 'recipe.yaml'} --output {tmp_path / 'run'} --resume`, or train into another folder"
    )
    assert (tmp_path / "run" / "run.json").read_bytes() == before
