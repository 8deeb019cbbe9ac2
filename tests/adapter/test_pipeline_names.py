"""Files for pipelines name their layers as other programs look for them, down to the last key."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import nn

from moslora.adapter.pipeline_files import save_pipeline_lora
from moslora.adapter.pipeline_names import FORMATS, format_of, naming_for
from moslora.errors import ConfigError
from tests.adapted_pipelines import adapted, load_plain, mixed

FROZEN = Path(__file__).with_name("pipeline_keys.txt")
TARGETS = (
    r"unet\.(conv_in|time_embedding\.linear_1|add_embedding\.linear_2)"
    r"|unet\.down_blocks\.0\.(resnets\.1\.(conv1|time_emb_proj)|downsamplers\.0\.conv)"
    r"|unet\.up_blocks\.0\.(resnets\.2\.conv_shortcut|attentions\.1\.(proj_in|transformer_blocks\.0\.ff\.net\.2))"
    r"|unet\.mid_block\.attentions\.0\.transformer_blocks\.0\.(attn1\.to_q|attn2\.to_out\.0|ff\.net\.0\.proj)"
    r"|text_encoder(_2)?\.(text_model\.)?encoder\.layers\.1\.(self_attn\.(k_proj|out_proj)|mlp\.fc1)"
    r"|text_encoder_2\.text_projection"
)


def frozen(kind, format):
    """The lines of a section of the frozen list."""
    sections = FROZEN.read_text(encoding="utf-8").split("# ")
    section = next(text for text in sections if text.startswith(f"{kind}, {format}\n"))
    return section.split("\n", 1)[1].split()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["sdxl", "sd15"])
def test_exported_names_are_those_of_the_frozen_list(kind, format, pipeline_folder, tmp_path):
    folder, file = pipeline_folder(kind), tmp_path / "adapter.safetensors"
    model = adapted(folder, mixed(r=1, target_modules=TARGETS))
    save_pipeline_lora(model, file, format=format, load_pipeline=lambda: load_plain(folder))
    assert sorted(load_file(file)) == frozen(kind, format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["sdxl", "sd15"])
def test_no_two_layers_of_a_pipeline_have_one_name(kind, format, pipeline_folder):
    pipe = load_plain(pipeline_folder(kind))
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if part in pipe.components]
    naming = naming_for(parts, format=format)
    layers = [
        f"{part}.{name}"
        for part in parts
        for name, module in getattr(pipe, part).named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    assert len({naming.layer(layer) for layer in layers}) == len(layers) > 100


def test_a_text_encoder_is_named_alike_whatever_transformers_calls_its_layers():
    short, long = "text_encoder.encoder.layers.0.mlp.fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    for format in FORMATS:
        naming = naming_for(["unet", "text_encoder"], format=format)
        assert naming.layer(short) == naming.layer(long)
    assert naming.layer(short) == "lora_te_text_model_encoder_layers_0_mlp_fc1"


def test_the_format_of_a_file_shows_in_its_keys():
    assert format_of(["lora_unet_conv_in.alpha", "lora_te1_text_model.alpha"]) == "kohya"
    assert format_of(["lora_unet_conv_in.alpha", "unet.conv_in.lora_A.weight"]) == "diffusers"


def test_an_unknown_format_is_refused_with_the_nearest_one():
    message = r"unknown format 'koyha'; did you mean 'kohya'\? \(allowed: diffusers, kohya\)"
    with pytest.raises(ConfigError, match=message):
        naming_for(["unet"], format="koyha")


def test_kohyas_names_for_a_transformer_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"cannot name the layers of a transformer.*use format='diffusers'"):
        naming_for(["transformer", "text_encoder"], format="kohya")
