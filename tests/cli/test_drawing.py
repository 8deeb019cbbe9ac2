"""Pictures from the command line: with and without an adapter, mixed with other files, exported and drawn again."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from moslora.cli import app
from moslora.painting.png import read_pictures
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from tests.subjects import ATTENTION

PARTS = {
    "unet": {"r": 4, "lora_alpha": 8, "target_modules": [*ATTENTION, "conv1"]},
    "text_encoder": {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]},
}
DRAWN = ["--seeds", "2", "--steps", "2", "--size", "32"]


@pytest.fixture
def run(tmp_path: Path, write_subject: Callable[..., Path]) -> Path:
    """A trained run with adapters in the denoiser and a text encoder."""
    recipe = load_recipe(write_subject(adapter={"parts": PARTS}))
    run_recipe(recipe, tmp_path / "run", progress=False)
    return tmp_path / "run"


def invoke(*arguments: Any) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_pictures_with_and_without_the_adapter_start_from_the_same_noise(run: Path, tmp_path: Path):
    folder = tmp_path / "drawn"
    said = invoke("generate", run, "a photo of sks dog", *DRAWN, "--compare-base", "--output", folder)
    assert "2 pictures of 1 prompt" in said
    with_it, without = (read_pictures(folder / name) for name in ("adapter", "base"))
    assert [one.request for one in with_it] == [one.request for one in without]
    assert with_it[0].settings["model"] == without[0].settings["model"]
    assert (np.asarray(with_it[0].image) != np.asarray(without[0].image)).any()
    assert (folder / "sheet.png").is_file()


def test_a_file_of_prompts_is_drawn_in_its_order(run: Path, tmp_path: Path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# two\na photo of sks dog\n\na red ball\n", encoding="utf-8")
    invoke("generate", run, "--prompts", prompts, *DRAWN, "--output", tmp_path / "drawn")
    drawn = read_pictures(tmp_path / "drawn" / "adapter")
    assert [one.request.prompt for one in drawn] == ["a photo of sks dog"] * 2 + ["a red ball"] * 2


def test_a_sweep_of_weights_is_the_base_at_nought_and_the_adapter_at_one(run: Path, tmp_path: Path):
    how = ["a photo of sks dog", *DRAWN, "--output"]
    invoke("generate", run, *how, tmp_path / "drawn", "--compare-base")
    invoke("generate", run, *how, tmp_path / "swept", "--sweep", "0,0.5,1")
    assert sorted(path.name for path in (tmp_path / "swept").iterdir()) == [
        "adapter-0",
        "adapter-0.5",
        "adapter-1",
        "sheet.png",
    ]

    def pixels(folder: Path) -> np.ndarray:
        return np.stack([np.asarray(one.image, dtype=int) for one in read_pictures(folder)])

    assert (pixels(tmp_path / "swept" / "adapter-0") == pixels(tmp_path / "drawn" / "base")).all()
    assert abs(pixels(tmp_path / "swept" / "adapter-1") - pixels(tmp_path / "drawn" / "adapter")).max() <= 1


def test_a_sweep_counts_its_pictures_and_refuses_what_it_would_ignore(run: Path, tmp_path: Path):
    how = ["generate", run, "a photo of sks dog", *DRAWN, "--sweep", "0,1", "--output", tmp_path / "swept"]
    for more in (["--weight", "0.5"], ["--compare-base"]):
        refused = CliRunner().invoke(app, [*map(str, [*how, *more])])
        assert refused.exit_code == 2
        assert f"--sweep draws with each of its weights, 0 is the base: leave out {more[0]}" in refused.output
    assert "4 pictures of 1 prompt" in invoke(*how)


def test_what_has_no_meaning_for_pictures_is_refused(run: Path):
    given = ["generate", str(run), "a photo of sks dog"]
    unfit = CliRunner().invoke(app, [*given, "--prompt-style", "chat"])
    assert "--prompt-style chat: such a model is asked by caption alone; leave it out" in unfit.output
    odd = CliRunner().invoke(app, [*given, "--size", "100"])
    assert odd.exit_code == 2
    assert "'--size': 100 is not a multiple of 8 pixels" in odd.output


def test_two_halves_of_a_file_are_the_whole(run: Path, tmp_path: Path):
    invoke("fold", run, "--output", tmp_path / "lora")
    how = ["a photo of sks dog", *DRAWN, "--output"]
    invoke("generate", run, *how, tmp_path / "whole")
    invoke("generate", run, *how, tmp_path / "halves", "--weight", "0.5", "--with", f"{tmp_path / 'lora'}=0.5")
    whole, halves = (read_pictures(tmp_path / name / "adapter")[0] for name in ("whole", "halves"))
    assert abs(np.asarray(whole.image, dtype=int) - np.asarray(halves.image, dtype=int)).max() <= 1
    assert len(halves.settings["weights"]) == 2


def latents(pipe: Any) -> torch.Tensor:
    """What a pipeline draws in two steps, always from the same noise."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    return pipe("a dog", num_inference_steps=2, generator=generator, output_type="latent").images


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_a_folded_adapter_draws_the_same_in_plain_diffusers(format: str, run: Path, tmp_path: Path):
    from diffusers import DiffusionPipeline

    said = invoke("fold", run, "--format", format, "--output", tmp_path / "lora")
    assert "verified: tensors of" in said
    assert "verified: latents differ by" in said
    assert "load it with plain diffusers" in said
    model, _ = load_adapted(open_adapter(run))
    pipe = DiffusionPipeline.from_pretrained(model.get_base_model().path)
    file = next(path.name for path in (tmp_path / "lora").glob("*.safetensors"))
    pipe.load_lora_weights(str(tmp_path / "lora"), weight_name=file)
    assert torch.allclose(latents(pipe), latents(model.get_base_model().pipeline()), atol=1e-3)


def test_a_merged_pipeline_draws_the_same_in_plain_diffusers(run: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["merge", str(run), "--output", str(tmp_path / "merged"), "--json"])
    assert json.loads(result.stdout)["verified"]
    assert (tmp_path / "merged" / "model_index.json").is_file()


def distance(one: Image.Image, other: Image.Image) -> np.ndarray:
    """How far the pixels of two pictures are apart, in steps of 255."""
    return abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order: how a few pixels are rounded in half precision depends on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_merged_pipeline_and_a_base_draw_as_the_run_does_with_and_without_its_adapter(run: Path, tmp_path: Path):
    merged = tmp_path / "merged"
    invoke("merge", run, "--output", merged)
    base = open_adapter(run).model.path
    invoke("generate", run, "a dog", "--compare-base", *DRAWN, "--output", tmp_path / "both")
    drawn = {own: read_pictures(tmp_path / "both" / own)[0].image for own in ("adapter", "base")}
    effect = distance(drawn["adapter"], drawn["base"])
    for source, own in ((merged, "adapter"), (base, "base")):
        invoke("generate", source, "a dog", *DRAWN, "--output", tmp_path / own)
        # The run is in float32, these in half precision.
        off = distance(drawn[own], read_pictures(tmp_path / own / "model")[0].image)
        assert off.max() <= 8
        assert off.mean() < min(1, effect.mean() / 3)
    for option in (["--compare-base"], ["--weight", "0.5"], ["--sweep", "0,1"]):
        result = CliRunner().invoke(app, ["generate", str(merged), "a dog", *option, *DRAWN])
        assert result.exit_code == 2
        assert "full model without an adapter" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chat"], "draws"),
        (["a dog", "--image", "x.png"], "draws"),
        (["a dog", "--prompts", "x.txt"], "one of"),
        (["a dog", "--sweep", "0,half"], "no number"),
        (["a dog", "--with", "nothing.safetensors=1"], "nothing.safetensors"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(arguments: list[str], message: str, run: Path):
    result = CliRunner().invoke(app, ["generate", str(run), *arguments, *DRAWN])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


def test_an_unknown_format_is_refused_with_those_there_are(run: Path):
    result = CliRunner().invoke(app, ["fold", str(run), "--format", "a1111"])
    assert result.exit_code == 2
    assert "diffusers, kohya or peft" in result.output


def test_folders_for_peft_draw_the_same_by_the_line_that_fold_prints(run: Path, tmp_path: Path):
    said = invoke("fold", run, "--format", "peft", "--output", tmp_path / "lora")
    assert "verified: latents differ by" in said
    assert "load it with plain PEFT" in said
    (code,) = shlex.split(said.strip().splitlines()[-1])[2:]
    names: dict[str, Any] = {}
    exec(code, names)
    model, _ = load_adapted(open_adapter(run))
    assert torch.allclose(latents(names["pipe"]), latents(model.get_base_model().pipeline()), atol=1e-3)


def test_a_run_is_inspected_and_measured_from_the_command_line(tmp_path: Path, write_subject: Callable[..., Path]):
    evaluation = {"prompts": ["a photo of sks dog"], "steps": 2, "seeds": 2, "tasks": []}
    run_recipe(load_recipe(write_subject(evaluation=evaluation)), tmp_path / "run", progress=False)
    said = invoke("evaluate", tmp_path / "run", "--task", "originality")
    assert "originality" in said
    assert "unet" in invoke("inspect", tmp_path / "run")
    assert "unet" in invoke("inspect", write_subject())
    assert "without mixers" not in invoke("methods")


def test_convolutions_take_an_adapter_with_a_core(tmp_path: Path, write_subject: Callable[..., Path]):
    parts = {"unet": {"r": 4, "target_modules": ["conv1", "to_q"]}}
    recipe = load_recipe(write_subject(adapter={"method": "flora", "parts": parts}))
    run_recipe(recipe, tmp_path / "run", progress=False)
    assert "verified" in invoke("fold", tmp_path / "run", "--format", "kohya", "--output", tmp_path / "lora")


def test_what_only_answers_have_is_refused_before_anything_is_drawn(
    run: Path, tmp_path: Path, refused: Callable[..., str]
):
    options = ["--temperature", "1", "--json", "--output", tmp_path / "drawn"]
    told = refused("generate", run, "a cat", *DRAWN, *options)
    assert told.endswith("draws: leave out --temperature and --json")
    assert not (tmp_path / "drawn").exists()
