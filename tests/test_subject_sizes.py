"""The recipes of subject-driven generation with their models' real dimensions, built without weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import CLIPTextConfig
from typer.testing import CliRunner

from moslora import load_recipe
from moslora.adapter.inspection import count_parameters
from moslora.cli import app
from moslora.runs.adapters import adapted_on_meta
from moslora.runs.recipe import recipe_text
from moslora.runs.run import run_recipe
from tests.subjects import write_photo

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
SD15_UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
MODELS: dict[str, dict[str, Any]] = {
    "dreambooth-sdxl": {
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ("diffusers", "UNet2DConditionModel", SDXL_UNET),
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_G | {"projection_dim": 1280}),
    },
    "dreambooth-sd15": {
        "_class_name": "StableDiffusionPipeline",
        "unet": ("diffusers", "UNet2DConditionModel", SD15_UNET),
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
    },
}


@pytest.fixture
def dimensions(tmp_path: Path) -> Callable[[str], Path]:
    """A folder that has a recipe's model as configurations, without any weights."""

    def write(name: str) -> Path:
        index: dict[str, Any] = {}
        for part, content in MODELS[name].items():
            if isinstance(content, str):
                index[part] = content
                continue
            library, kind, config = content
            index[part] = [library, kind]
            place = tmp_path / name / part
            place.mkdir(parents=True)
            if library == "transformers":
                CLIPTextConfig(**config).save_pretrained(place)
            else:
                (place / "config.json").write_text(json.dumps({"_class_name": kind, **config}))
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "overrides", "total", "trainable", "mixer"),
    [
        ("dreambooth-sdxl", [], 2_567_463_684, 5_815_040, 8_960),
        ("dreambooth-sdxl", ["adapter.method=lora", "adapter.mixer=null"], 2_567_463_684, 5_806_080, 0),
        ("dreambooth-sd15", [], 859_520_964, 799_232, 2_048),
        ("dreambooth-sd15", ["adapter.method=lora", "adapter.mixer=null"], 859_520_964, 797_184, 0),
    ],
)
def test_the_trainable_parameters_are_those_of_the_published_unets(
    name: str, overrides: list[str], total: int, trainable: int, mixer: int, dimensions: Callable[[str], Path]
):
    recipe = load_recipe(name, [f"model.path={dimensions(name)}", *overrides])
    model = adapted_on_meta(recipe.model, recipe.adapter.method, recipe.adapter.options)
    counts = count_parameters(model)
    assert (counts["trainable"], counts["mixer"]) == (trainable, mixer)
    unet = model.get_base_model().unet
    assert sum(p.numel() for key, p in unet.named_parameters() if "lora_" not in key) == total
    layers = 560 if name == "dreambooth-sdxl" else 128
    assert mixer in (0, layers * 4 * 4)
    assert f"{trainable:,} parameters" in recipe_text(name) or not mixer


@pytest.mark.parametrize("name", MODELS)
def test_a_recipe_runs_from_end_to_end_on_a_tiny_model(name: str, pipelines: Callable[[str], Path], tmp_path: Path):
    for number in range(4):
        write_photo(tmp_path / "photos" / f"{number}.png", seed=number, size=(64, 48))
    tiny = ["training.max_steps=2", "training.precision=float32", "model.dtype=float32", "data.resolution=32"]
    tiny += ["evaluation.limit=2", "evaluation.seeds=1", "evaluation.steps=2", f"data.train={tmp_path / 'photos'}"]
    tiny += [f"model.path={pipelines(name.removeprefix('dreambooth-'))}", "model.autoencoder=null"]
    tiny += (
        ["training.learning_rate=1e-2", "data.class_pictures=2"] if "sd15" in name else ["training.learning_rate=1e-2"]
    )
    record = run_recipe(load_recipe(name, tiny), tmp_path / "run", progress=False)
    assert record.status == "finished"
    assert {one.task for one in record.evaluations} == {"subject-similarity", "originality", "likeness-to-base"}


def test_the_sdxl_recipe_has_the_settings_of_the_papers_script():
    recipe: Any = load_recipe("dreambooth-sdxl")
    assert recipe.adapter.options == {
        "mixer": "kaiming",
        "init_lora_weights": "gaussian",
        "parts": {"unet": {"r": 4, "lora_alpha": 4, "target_modules": ["to_k", "to_q", "to_v", "to_out.0"]}},
    }
    training = recipe.training
    assert (training.max_steps, training.batch_size, training.micro_batch_size) == (500, 4, 1)
    assert (training.learning_rate, training.schedule, training.warmup_steps) == (1e-4, "constant", 0)
    assert (recipe.data.resolution, recipe.data.prompt) == (1024, "a photo of ikat cat")
    assert recipe.evaluation.steps == 50


def test_a_gaussian_start_has_the_spread_of_one_over_the_rank(tmp_path: Path, write_subject: Callable[..., Path]):
    from safetensors.torch import load_file

    settings = yaml.safe_load(write_subject().read_text())
    settings["adapter"]["init_lora_weights"] = "gaussian"
    settings["training"] |= {"learning_rate": 1e-12, "max_steps": 1}
    path = tmp_path / "gaussian.yaml"
    path.write_text(yaml.safe_dump(settings))
    run_recipe(load_recipe(path), tmp_path / "run", progress=False)
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    values = [tensor for name, tensor in tensors.items() if "lora_A" in name]
    spread = sum(tensor.square().sum() for tensor in values) / sum(tensor.numel() for tensor in values)
    assert spread.sqrt().item() == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.parametrize("subject", ["cat", "dog", "can", "grey_sloth_plushie"])
def test_the_dreambooth_photos_go_all_the_way(
    subject: str, tmp_path: Path, write_subject: Callable[..., Path], real_data: Callable[[str], Path]
):
    data = {"train": str(real_data("dreambooth") / subject), "prompt": "a photo of sks thing", "buckets": True}
    run = tmp_path / "run"
    run_recipe(load_recipe(write_subject(data=data)), run, progress=False)
    assert any("pictures of" in note for note in json.loads((run / "run.json").read_text())["notes"])
    for command in (["fold", run], ["generate", run, "a photo of sks thing", "--seeds", "1", "--steps", "2"]):
        result = CliRunner().invoke(app, [str(one) for one in command])
        assert result.exit_code == 0, result.output
    assert (run / "folded" / "pytorch_lora_weights.safetensors").is_file()
    assert [*(run / "drawn").rglob("*.png")]
