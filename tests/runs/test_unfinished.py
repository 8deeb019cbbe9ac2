"""What a run that stopped early had learned can be used at the step that it reached, and says which one that is."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from moslora.adapter.methods import METHODS, known_options
from moslora.errors import CheckpointError, ConfigError, DivergedError, InUseError
from moslora.records import RunRecord
from moslora.reports.page import write_report
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.exporting import fold_adapter, merge_adapter
from moslora.runs.language_settings import EvaluationSettings
from moslora.runs.origin import Reached, reached_in
from moslora.runs.ownership import owned
from moslora.runs.scoring import evaluate_adapter
from moslora.runs.unfinished import open_reached

Train = Callable[..., RunRecord]
Stop = Callable[..., Path]
SHARED = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
CONSTANT = {"schedule": "constant", "save_every_steps": 1}  # so that a shorter run takes the same steps
IDS = torch.arange(3, 60).view(1, -1)
BEST = {"evaluate_every_steps": 1, "keep_best": True, "learning_rate": 3.0}


def of_method(method: str) -> dict[str, Any]:
    return {**dict.fromkeys(SHARED), **known_options(method, SHARED), "method": method}


@pytest.fixture
def stop(tmp_path: Path, train: Train, signal_at_batch: Callable[..., None]) -> Stop:
    """The folder of a run of eight steps that Ctrl-C stopped at its third batch."""

    def stopped(name: str = "run", *, training: dict[str, Any] | None = None, **changes: Any) -> Path:
        signal_at_batch(3)
        with pytest.raises(KeyboardInterrupt):
            train(name, training={"max_steps": 8, **CONSTANT, **(training or {})}, **changes)
        return tmp_path / name

    return stopped


def logits(folder: Path) -> torch.Tensor:
    model, _ = load_adapted(open_reached(folder))
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("method", [name for name in METHODS if name != "adalora"])  # which plans its ranks by the end
def test_what_a_stopped_run_had_learned_is_what_a_run_of_that_length_learns(
    method: str, tmp_path: Path, stop: Stop, train: Train
):
    run = stop(adapter=of_method(method))
    steps = RunRecord.load(run / "run.json").steps
    assert 0 < steps < 8
    train("short", adapter=of_method(method), training={"max_steps": steps, **CONSTANT})
    assert torch.equal(logits(run), logits(tmp_path / "short"))


def test_adalora_is_taken_with_the_ranks_that_are_left_by_then(stop: Stop, tmp_path: Path):
    run = stop(adapter=of_method("adalora"))
    merge_adapter(open_reached(run), tmp_path / "merged", dtype=None)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(logits(run), merged(IDS).logits, atol=1e-4)


def test_the_record_the_card_and_every_export_say_at_which_step_they_are(stop: Stop, tmp_path: Path):
    run, said = stop(), []
    before = (run / "run.json").read_bytes()
    opened = open_reached(run, report=said.append)
    steps = json.loads(before)["steps"]
    place = run / f"step-{steps}"
    assert said == [
        f"this run stopped at step {steps} of 8: using what it had learned by then, in {place}; to finish it:"
        f" moslora train {run / 'recipe.yaml'} --output {run} --resume"
    ]
    fold_adapter(opened, opened.home / "folded")
    merge_adapter(opened, tmp_path / "merged", dtype=None)
    record = RunRecord.load(place / "run.json")
    assert (record.status, record.steps, record.planned_steps) == ("interrupted", steps, 8)
    assert record.artifacts == {"adapter": "adapter", "folded": "folded", "merged": str(tmp_path / "merged")}
    for folder in (place / "adapter", place / "folded", tmp_path / "merged"):
        assert reached_in(folder) == Reached(steps, 8)
        assert f"step {steps} of 8" in (folder / "README.md").read_text()
    assert (run / "run.json").read_bytes() == before
    assert not (run / "adapter").exists()


def test_scores_of_a_stopped_run_are_its_steps_and_not_the_runs(stop: Stop, train: Train):
    run = stop()
    opened = open_reached(run)
    settings = EvaluationSettings(tasks=["everyday"], limit=4)
    evaluate_adapter(opened, settings, with_agreement=False, report=lambda _: None, progress=False)
    assert RunRecord.load(opened.home / "run.json").evaluations
    assert not RunRecord.load(run / "run.json").evaluations
    record = train(run.name, training={"max_steps": 8, **CONSTANT}, resume=True)
    assert [(one.when, record.steps) for one in record.evaluations] == [("after", 8)]
    assert open_reached(run).adapter == run / "adapter"


def test_a_second_command_uses_what_the_first_took_and_a_later_stop_is_taken_anew(
    stop: Stop, monkeypatch: pytest.MonkeyPatch
):
    run = stop()
    first = open_reached(run).home
    newest = max(run.glob("checkpoints/*"), key=lambda path: int(path.name.rpartition("-")[2]))
    with monkeypatch.context() as patch:
        patch.setattr("moslora.runs.unfinished.load_model", lambda _settings: pytest.fail("the model was loaded"))
        assert open_reached(run).home == first
    state = json.loads((newest / "trainer_state.json").read_text())
    later = newest.with_name(f"checkpoint-{state['global_step'] + 1}")
    shutil.copytree(newest, later)
    (later / "trainer_state.json").write_text(json.dumps(state | {"global_step": state["global_step"] + 1}))
    assert open_reached(run).home == run / f"step-{state['global_step'] + 1}"


def test_a_half_written_checkpoint_is_passed_over_and_stays(stop: Stop):
    run = stop()
    half = run / "checkpoints" / "checkpoint-7"
    half.mkdir()
    assert open_reached(run).home.name != "step-7"
    assert half.is_dir()


def not_finite(checkpoint: Path) -> None:
    path = checkpoint / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * float("nan")}, path, metadata={"format": "pt"})


def test_of_a_run_that_diverged_the_newest_finite_weights_are_taken(stop: Stop):
    run, said = stop(), []
    *_, older, newest = sorted(run.glob("checkpoints/checkpoint-*"))
    not_finite(newest)
    open_reached(run, report=said.append)
    assert f"using its newest weights that are finite, those of step {older.name[-1]}, in" in said[0]
    not_finite(older)
    shutil.rmtree(run / f"step-{older.name[-1]}")
    with pytest.raises(DivergedError, match=r"diverged, every checkpoint holds numbers that are not finite: "):
        open_reached(run)


def test_a_run_that_keeps_the_best_gives_its_best_weights(stop: Stop):
    run, said = stop(training=BEST, data={"validation_samples": 4}), []
    *_, newest = sorted(run.glob("checkpoints/checkpoint-*"))
    state = newest / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"best_global_step": int(newest.name[-1]) - 1}))
    opened = open_reached(run, report=said.append)
    assert opened.home.name == f"step-{int(newest.name[-1]) - 1}"
    assert f"stopped at step {newest.name[-1]} of 8: using its best weights, those of step" in said[0]


def test_a_run_without_a_checkpoint_is_refused_with_the_line_that_finishes_it(stop: Stop):
    run = stop()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"no trained adapter yet: finish it with `moslora train .* --resume`$"):
        open_reached(run)


def test_nothing_is_taken_of_a_run_that_is_under_way(stop: Stop):
    run = stop()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with owned(run):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    try:
        with pytest.raises(InUseError):
            open_reached(run)
    finally:
        done.set()
        other.join()
    assert not [*run.glob("step-*")]


def test_what_was_taken_is_no_run_to_resume(stop: Stop, train: Train):
    run = stop()
    place = open_reached(run).home
    with pytest.raises(ConfigError, match=rf"of the run {run}: resume that one$"):
        train(f"run/{place.name}", training={"max_steps": 8, **CONSTANT}, resume=True)


def test_several_processes_are_told_to_take_the_weights_in_one(stop: Stop, monkeypatch: pytest.MonkeyPatch):
    run = stop()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"do so in one, `moslora inspect .*run`, then start this again"):
        open_reached(run)
    monkeypatch.delenv("WORLD_SIZE")
    open_reached(run)
    assert open_adapter(open_reached(run).home).peft_type == "MOSLORA"


def test_a_report_says_at_which_step_a_run_stopped(tmp_path: Path, stop: Stop):
    told: list[str] = []
    write_report([stop("k9")], tmp_path / "page.html", report=told.append)
    step = RunRecord.load(tmp_path / "k9" / "run.json").steps
    assert step > 0
    assert told == [f"k9 is interrupted (step {step} of 8): the page shows what it has"]
    shutil.rmtree(tmp_path / "k9" / "checkpoints")
    write_report([tmp_path / "k9"], tmp_path / "again.html", report=told.append)
    assert told[1] == told[0]
