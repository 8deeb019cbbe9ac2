"""Runs that teach a text-to-image model a subject: what is trained, what is refused, and where a run goes on."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moslora.errors import ConfigError, DataError
from moslora.records import RunRecord
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.runs.unfinished import open_reached
from tests.processes import Program
from tests.subjects import ATTENTION

Write = Callable[..., Path]
TEXT = {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture
def train(tmp_path: Path, write_subject: Write) -> Callable[..., RunRecord]:
    """Train the tiny recipe, with changed groups of settings, in the folder `run`."""

    def run(run: str, *, resume: bool = False, **changes: Any) -> RunRecord:
        return run_recipe(load_recipe(write_subject(**changes)), tmp_path / run, resume=resume, progress=False)

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("layout", ["sdxl", "sd15", "sd3"])
def test_a_model_of_each_layout_learns_its_pictures(layout: str, train: Callable[..., RunRecord], tmp_path: Path):
    settings = {"max_steps": 12, "evaluate_every_steps": 12, "learning_rate": 3e-3}
    record = train("run", layout=layout, training=settings, data={"validation_samples": 1, "validation_steps": 4})
    assert record.status == "finished"
    assert record.coverage is not None
    parts = {part.part: part for part in record.coverage.parts or []}
    denoiser = parts["transformer" if layout == "sd3" else "unet"]
    assert denoiser.adapted > 0
    assert denoiser.dead == []
    assert all(part.adapted == 0 for name, part in parts.items() if part is not denoiser)
    assert record.validation_loss is not None
    mixers = [tensor for name, tensor in weights(tmp_path / "run").items() if "lora_mixer" in name]
    assert len(mixers) == denoiser.adapted


def test_each_part_that_is_asked_for_moves(train: Callable[..., RunRecord], tmp_path: Path):
    parts = {"unet": {"r": 4, "target_modules": [*ATTENTION, "conv1"]}, "text_encoder": TEXT, "text_encoder_2": TEXT}
    start = train("start", adapter={"parts": parts}, training={"max_steps": 1, "learning_rate": 1e-12})
    end = train("end", adapter={"parts": parts}, training={"max_steps": 4, "text_learning_rate": 5e-3})
    assert start.status == end.status == "finished"
    first, last = weights(tmp_path / "start"), weights(tmp_path / "end")
    for part in parts:
        own = [name for name in first if f"model.{part}." in name and "lora_B" in name]
        assert own
        assert all((last[name] - first[name]).abs().max() > 1e-4 for name in own), part


def test_a_batch_in_parts_gives_the_weights_of_a_whole_one(train: Callable[..., RunRecord], tmp_path: Path):
    settings = {"batch_size": 4, "max_steps": 3}
    train("whole", training=settings)
    train("parts", training=settings | {"micro_batch_size": 2})
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(whole[name], parts[name], atol=2e-4) for name in whole)


def test_an_interrupted_run_goes_on_to_the_same_weights(
    tmp_path: Path, write_subject: Write, start: Callable[..., Program]
):
    recipe = write_subject(training={"max_steps": 16, "save_every_steps": 2})
    run_recipe(load_recipe(recipe), tmp_path / "whole", progress=False)
    program = start("train", recipe, "--output", tmp_path / "killed")
    program.reach(lambda: list((tmp_path / "killed").glob("checkpoints/checkpoint-*/trainer_state.json")))
    program.send(signal.SIGKILL)
    program.finish()
    resumed = run_recipe(load_recipe(recipe), tmp_path / "killed", resume=True, progress=False)
    assert resumed.status == "finished"
    assert resumed.steps == 16
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_methods_see_the_same_noise(train: Callable[..., RunRecord]):
    """With a rate of nearly zero every method's losses are the base's, step for step."""
    tiny = {"training": {"learning_rate": 1e-12, "max_steps": 6, "log_every_steps": 1}}
    losses = [train(method, adapter={"method": method}, **tiny).train_loss for method in ("lora", "moslora")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"min_snr_gamma": 0}}, "min_snr_gamma"),
        ({"training": {"min_snr_gamma": 5}, "layout": "sd3"}, "is a flow"),
        ({"data": {"flip": True}}, "data.cache"),
        ({"data": {"crop": "random"}}, "data.cache"),
        ({"data": {"class_folder": "x"}}, "class_prompt"),
        ({"data": {"resolution": 42}}, "multiple of"),
        ({"training": {"text_learning_rate": 1e-3}}, "no text_encoder"),
        ({"model": {"device_map": "auto"}}, "one device"),
        ({"model": {"quantize": "nf4"}}, "quantize"),
        ({"adapter": {"parts": None, "target_modules": "all-linear"}}, "parts"),
        ({"training": {"draw_every_steps": 2}}, "evaluation.prompts"),
        ({"data": {"prompt": "a photo " * 60}}, "longer than the text encoder can read"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_weights_load(
    changes: dict[str, Any], message: str, train: Callable[..., RunRecord], tmp_path: Path
):
    with pytest.raises((ConfigError, DataError), match=message):
        train("refused", **changes)
    assert not (tmp_path / "refused" / "adapter").exists()


def test_a_pipeline_that_is_not_trained_here_is_refused_by_name(
    tmp_path: Path, write_subject: Write, pipelines: Callable[[str], Path]
):
    import json

    folder = tmp_path / "other"
    shutil.copytree(pipelines("sd15"), folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ConfigError, match=r"FluxPipeline.*StableDiffusionXLPipeline"):
        run_recipe(load_recipe(write_subject(model={"path": str(folder)})), tmp_path / "run", progress=False)


def test_an_average_of_the_weights_is_what_the_run_ends_with(train: Callable[..., RunRecord], tmp_path: Path):
    """After step n, which it follows by 1 - d with d = (1 + n) / (10 + n), from a start of zero."""
    every = {"save_every_steps": 1, "learning_rate": 1e-2}
    train("plain", training={"max_steps": 2, **every})
    train("averaged", training={"max_steps": 2, "ema_decay": 0.999, **every})
    steps = [
        load_file(tmp_path / "plain" / "checkpoints" / f"checkpoint-{step}" / "adapter_model.safetensors")
        for step in (1, 2)
    ]
    found = weights(tmp_path / "averaged")
    name = next(name for name in found if "lora_B" in name)  # which starts at zero
    first, second = 2 / 11, 3 / 12
    expected = steps[0][name] * (1 - first) * second + steps[1][name] * (1 - second)
    assert torch.allclose(found[name], expected, atol=1e-7)


def test_an_average_goes_on_where_a_stopped_run_left_it(tmp_path: Path, write_subject: Write):
    recipe = load_recipe(write_subject(training={"max_steps": 4, "save_every_steps": 2, "ema_decay": 0.9}))
    run_recipe(recipe, tmp_path / "whole", progress=False)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "adapter")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-4")
    record = RunRecord.load(tmp_path / "stopped" / "run.json")
    record.status, record.artifacts = "interrupted", {}
    record.save(tmp_path / "stopped" / "run.json")
    run_recipe(recipe, tmp_path / "stopped", resume=True, progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_a_stopped_run_gives_the_average_of_its_step(tmp_path: Path, write_subject: Write):
    given = {"save_every_steps": 2, "ema_decay": 0.9, "schedule": "constant"}
    run_recipe(load_recipe(write_subject(training={"max_steps": 4, **given})), tmp_path / "stopped", progress=False)
    run_recipe(load_recipe(write_subject(training={"max_steps": 2, **given})), tmp_path / "short", progress=False)
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-4")
    record = RunRecord.load(tmp_path / "stopped" / "run.json")
    record.status, record.artifacts = "interrupted", {}
    record.save(tmp_path / "stopped" / "run.json")
    assert open_reached(tmp_path / "stopped").home == tmp_path / "stopped" / "step-2"
    assert same(weights(tmp_path / "stopped" / "step-2"), weights(tmp_path / "short"))


def test_gradient_checkpointing_changes_no_gradient(train: Callable[..., RunRecord], tmp_path: Path):
    parts = {"unet": {"r": 4, "target_modules": ATTENTION}, "text_encoder": TEXT}
    train("plain", adapter={"parts": parts})
    train("kept", adapter={"parts": parts}, training={"gradient_checkpointing": True})
    plain, kept = weights(tmp_path / "plain"), weights(tmp_path / "kept")
    assert all(torch.allclose(plain[name], kept[name], atol=1e-5) for name in plain)


def test_two_processes_learn_what_one_learns(
    tmp_path: Path, write_subject: Write, in_two_processes: Callable[..., str]
):
    recipe = write_subject()
    run_recipe(load_recipe(recipe), tmp_path / "one", progress=False)
    in_two_processes("train", recipe, "--output", tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=2e-4) for name in one)
