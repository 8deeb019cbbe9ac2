"""A folder a part draws with plain PEFT what the adapter draws."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from moslora.adapter.pipeline_folders import save_pipeline_folders
from moslora.adapter.pipeline_proof import wearing
from moslora.errors import ConfigError, DriftError, NoEffectError
from tests.adapted_pipelines import adapted, load_plain, mixed, quick

SOME = r"(unet\.mid_block|text_encoder).*\.(to_q|to_v|q_proj|v_proj)"
ADAPTERS = {
    "all parts of SDXL": ("sdxl", mixed(target_modules=SOME, mixer="orthogonal")),
    "mixed ranks": (
        "sdxl",
        mixed(target_modules=SOME, rank_pattern={"to_q": 7, "attn1.to_v": 2}, alpha_pattern={"to_q": 2}),
    ),
    "rank-stabilised scale": ("sd15", mixed(target_modules=SOME, use_rslora=True, r=5)),
    "DoRA": ("sd15", mixed(target_modules=SOME, use_dora=True)),
    "a module saved whole": ("sd15", mixed(target_modules=SOME, modules_to_save=["conv_out"])),
    "trained biases": ("sd15", mixed(target_modules=["to_out.0", "q_proj"], lora_bias=True)),
    "convolutions": ("sdxl", mixed(target_modules=r".*(mid_block.*conv1|downsamplers\.0\.conv)", mixer_depth=2)),
    "the text encoder alone": ("sd15", mixed(target_modules=["q_proj"])),
    "plain LoRA": ("sd15", LoraConfig(r=3, lora_alpha=7, target_modules=["attn1.to_q", "q_proj", "conv_in"])),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_plain_peft_draws_with_the_folders_what_the_adapter_draws(name, pipeline_folder, tmp_path):
    kind, config = ADAPTERS[name]
    model, pipe = adapted(pipeline_folder(kind), config), load_plain(pipeline_folder(kind))
    base = quick(pipe)
    drift = save_pipeline_folders(model, tmp_path / "lora", load_pipeline=lambda: pipe, probe=quick)
    assert torch.equal(quick(pipe), base)  # the pipeline is plain again
    with wearing(pipe, model):
        expected = quick(pipe)
    for folder in (tmp_path / "lora").iterdir():
        setattr(pipe, folder.name, PeftModel.from_pretrained(getattr(pipe, folder.name), folder).base_model.model)
    effect = (expected - base).abs().max()
    assert (quick(pipe) - expected).abs().max() < 1e-3 * effect
    assert drift.is_within
    assert drift.effect == pytest.approx(effect.item())
    assert drift.tensors.layers == sum(hasattr(module, "lora_A") for module in model.modules()) > 0


def test_a_factor_that_is_two_percent_off_is_refused_and_nothing_is_written(pipeline_folder, tmp_path, monkeypatch):
    model, pipe = adapted(pipeline_folder("sd15"), mixed(target_modules=SOME)), load_plain(pipeline_folder("sd15"))

    def save_wrongly(tensors, path, **options):
        key = next(key for key in tensors if key.endswith("lora_A.weight"))
        save_file(tensors | {key: 1.02 * tensors[key]}, path, **options)

    monkeypatch.setattr("moslora.adapter.pipeline_folders.save_file", save_wrongly)
    with pytest.raises(DriftError, match=": A"):
        save_pipeline_folders(model, tmp_path / "lora", load_pipeline=lambda: pipe, probe=quick)
    assert not (tmp_path / "lora").exists()


def test_an_untrained_adapter_and_another_type_are_refused(pipeline_folder, tmp_path):
    pipe = load_plain(pipeline_folder("sd15"))
    idle = adapted(pipeline_folder("sd15"), mixed(target_modules=SOME, init_lora_weights=True))
    for layer in idle.modules():
        if hasattr(layer, "lora_B"):
            torch.nn.init.zeros_(layer.lora_B["default"].weight)
    with pytest.raises(NoEffectError, match="changes none"):
        save_pipeline_folders(idle, tmp_path / "lora", load_pipeline=lambda: pipe, probe=quick)
    other = adapted(pipeline_folder("sd15"), mixed(target_modules=SOME))
    with pytest.raises(ConfigError, match="no adapter 'b'"):
        save_pipeline_folders(other, tmp_path / "lora", load_pipeline=lambda: pipe, probe=quick, adapter_name="b")


def test_names_are_whole_so_that_no_layer_of_a_part_is_taken_for_another(pipeline_folder, tmp_path):
    model = adapted(pipeline_folder("sdxl"), mixed(target_modules=r"unet\.mid.*attn1\.to_q"))
    save_pipeline_folders(model, tmp_path / "l", load_pipeline=lambda: load_plain(pipeline_folder("sdxl")), probe=quick)
    assert [folder.name for folder in (tmp_path / "l").iterdir()] == ["unet"]
    keys = load_file(tmp_path / "l" / "unet" / "adapter_model.safetensors")
    assert all(key.startswith("base_model.model.mid_block.") for key in keys)
