"""Several files on one pipeline, each by its weight, exact where arithmetic is."""

import logging

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from moslora.adapter.pipeline_files import save_pipeline_lora
from moslora.adapter.pipeline_mixing import load_weighted
from moslora.adapter.pipeline_names import FORMATS
from moslora.adapter.pipeline_proof import wearing
from moslora.errors import CheckpointError, ConfigError
from tests.adapted_pipelines import adapted, load_plain, mixed, quick

PARTS = ("unet", "text_encoder", "text_encoder_2")
STYLE = r"unet\.mid_block.*\.(to_q|to_v|conv1)|text_encoder\..*q_proj"
SUBJECT = r"unet\.(mid_block|up_blocks\.0).*\.to_v|text_encoder_2\..*v_proj"


@pytest.fixture(scope="module")
def pipe(pipeline_folder):
    """A plain pipeline, which every test leaves plain."""
    return load_plain(pipeline_folder("sdxl"))


@pytest.fixture(scope="module")
def models(pipeline_folder):
    folder = pipeline_folder("sdxl")
    return {
        "style": adapted(folder, mixed(target_modules=STYLE)),
        "subject": adapted(folder, LoraConfig(r=3, lora_alpha=5, target_modules=SUBJECT)),
    }


@pytest.fixture(scope="module")
def files(models, pipe, tmp_path_factory):
    """A style in diffusers' names and a subject in kohya's, and each the other way round."""
    folder, files = tmp_path_factory.mktemp("files"), {}
    for name, model in models.items():
        for format in FORMATS:
            files[name, format] = folder / f"{name}-{format}.safetensors"
            save_pipeline_lora(model, files[name, format], format=format, load_pipeline=lambda: pipe, probe=quick)
    return files


@pytest.fixture(scope="module")
def base(pipe):
    return quick(pipe)


@pytest.fixture
def weighted(pipe, files):
    """The latents for a list of (name, format, weight)."""

    def draw(*chosen):
        loaded = load_weighted(
            pipe, {f"{n}": (files[file, form], weight) for n, (file, form, weight) in enumerate(chosen)}
        )
        try:
            return quick(pipe)
        finally:
            loaded.unload()

    return draw


@pytest.mark.parametrize("format", FORMATS)
def test_weight_0_is_the_base_bit_for_bit(format, weighted, base):
    assert torch.equal(weighted(("style", format, 0)), base)
    assert torch.equal(weighted(("style", format, 0.0), ("subject", format, 0)), base)


@pytest.mark.parametrize("format", FORMATS)
def test_weight_1_is_the_adapter(format, weighted, models, pipe, base):
    with wearing(pipe, models["style"]):
        expected = quick(pipe)
    assert (weighted(("style", format, 1)) - expected).abs().max() < 1e-3 * (expected - base).abs().max()


def test_a_file_of_weight_0_beside_another_changes_no_bit(weighted):
    alone = weighted(("style", "diffusers", 1))
    assert torch.equal(weighted(("style", "diffusers", 1), ("subject", "kohya", 0)), alone)


def test_a_file_of_weight_0_is_not_computed_at_all(pipe, files, weighted, base, tmp_path):
    """0 times infinity would be no number."""
    tensors, file = load_file(files["subject", "kohya"]), tmp_path / "infinite.safetensors"
    save_file({k: torch.full_like(t, torch.inf) if "lora_up" in k else t for k, t in tensors.items()}, file)
    loaded = load_weighted(pipe, {"infinite": (file, 0), "style": (files["style", "kohya"], 1)})
    beside = quick(pipe)
    loaded.weigh({"infinite": 0, "style": 0})
    alone = quick(pipe)
    loaded.unload()
    assert torch.equal(beside, weighted(("style", "kohya", 1)))
    assert torch.equal(alone, base)


@pytest.mark.parametrize("format", FORMATS)
def test_two_halves_of_one_file_are_the_whole(format, weighted, base):
    whole = weighted(("style", format, 1))
    halves = weighted(("style", format, 0.5), ("style", format, 0.5))
    assert (halves - whole).abs().max() < 1e-4 * base.abs().max()
    half = weighted(("style", format, 0.5))
    assert (half - whole).abs().max() > 1e-2
    assert (half - base).abs().max() > 1e-2


def test_two_files_add_their_weighted_updates_to_the_weights(weighted, models, pipeline_folder, base):
    """Against a pipeline of which the weights were changed by hand, layer by layer."""
    by_hand = load_plain(pipeline_folder("sdxl"))
    for name, weight in (("style", 0.7), ("subject", -0.4)):
        for layer, module in models[name].base_model.model.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                by_hand_layer = getattr(by_hand, layer.partition(".")[0]).get_submodule(layer.partition(".")[2])
                by_hand_layer.weight.data += weight * module.get_delta_weight("default").detach()
    expected = quick(by_hand)
    found = weighted(("style", "kohya", 0.7), ("subject", "diffusers", -0.4))
    assert (found - expected).abs().max() < 1e-3 * (expected - base).abs().max()


def test_weights_change_without_loading_again(pipe, files, weighted, base):
    expected = weighted(("style", "kohya", 0.25), ("subject", "kohya", 1))
    loaded = load_weighted(pipe, {"a": (files["style", "kohya"], 0), "b": (files["subject", "kohya"], 0)})
    assert torch.equal(quick(pipe), base)
    loaded.weigh({"a": 0.25, "b": 1})
    assert torch.equal(quick(pipe), expected)
    loaded.weigh({"a": 0, "b": 0})
    assert torch.equal(quick(pipe), base)
    loaded.unload()


def test_names_may_be_parts_of_layers_names_without_a_false_alarm(pipe, files, base, caplog):
    for library in ("diffusers", "transformers"):
        logging.getLogger(library).addHandler(caplog.handler)
    loaded = load_weighted(pipe, {"b": (files["style", "diffusers"], 1), "unet.conv": (files["subject", "kohya"], 1)})
    loaded.unload()
    for library in ("diffusers", "transformers"):
        logging.getLogger(library).removeHandler(caplog.handler)
    assert not caplog.records
    assert {name: drift.compared for name, drift in loaded.arrived.items()} == {
        name: len([key for key in load_file(files[file]) if not key.endswith(".alpha")])
        for name, file in {"b": ("style", "diffusers"), "unet.conv": ("subject", "kohya")}.items()
    }


def test_unloading_restores_every_bit_of_the_base(pipeline_folder, files):
    pipe, fresh = load_plain(pipeline_folder("sdxl")), load_plain(pipeline_folder("sdxl"))
    loaded = load_weighted(pipe, {"a": (files["style", "kohya"], 0.3), "b": (files["subject", "diffusers"], 2)})
    quick(pipe)
    loaded.unload()
    for part in PARTS:
        own, right = getattr(pipe, part).state_dict(), getattr(fresh, part).state_dict()
        assert own.keys() == right.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in right.items())


def test_another_program_s_alpha_is_the_scale_that_it_says(pipe, files, weighted, base, tmp_path):
    """alpha twice the rank and B halved is the same adapter."""
    tensors, file = load_file(files["style", "kohya"]), tmp_path / "other.safetensors"
    for key in tensors:
        tensors[key] *= 2 if key.endswith(".alpha") else 0.5 if key.endswith("lora_up.weight") else 1
    save_file(tensors, file)
    loaded = load_weighted(pipe, {"other": (file, 1)})
    found = quick(pipe)
    loaded.unload()
    assert (found - weighted(("style", "kohya", 1))).abs().max() < 1e-4 * base.abs().max()


def test_alphas_that_diffusers_loses_are_found(pipe, files, tmp_path):
    """Of attention layers, diffusers 0.42 takes the commonest alpha for all."""
    tensors, file = load_file(files["style", "kohya"]), tmp_path / "other.safetensors"
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors[f"{key}.alpha"] *= 2
    save_file(tensors, file)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    with pytest.raises(CheckpointError, match=rf"{layer} is scaled by 1 instead of 2"):
        load_weighted(pipe, {"other": (file, 1)})


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_which_a_key_does_not_arrive_is_refused_and_leaves_the_pipeline_plain(
    format, pipe, files, tmp_path, base
):
    tensors, file = load_file(files["subject", format]), tmp_path / "stray.safetensors"
    key = next(key for key in tensors if "unet" in key and not key.endswith(".alpha"))
    tensors[key.replace("unet", "unet_2", 1)] = tensors[key].clone()
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"stray.safetensors does not arrive unchanged in the pipeline: "):
        load_weighted(pipe, {"style": (files["style", format], 1), "subject": (file, 1)})
    assert torch.equal(quick(pipe), base)


def test_a_file_of_another_kind_of_pipeline_is_refused(pipe, pipeline_folder, files):
    other = load_plain(pipeline_folder("sd15"))
    with pytest.raises(
        CheckpointError,
        match=(
            r"does not arrive unchanged in the pipeline: .*give a file for this"
            r" kind"
        ),
    ):
        load_weighted(other, {"style": (files["style", "diffusers"], 1)})


def test_a_file_that_is_not_there_is_refused(pipe, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no file .*nothing.safetensors"):
        load_weighted(pipe, {"style": (tmp_path / "nothing.safetensors", 1)})


def test_weights_that_are_no_numbers_or_of_other_files_are_refused(pipe, files):
    for weight in (float("nan"), float("inf"), True, "1"):
        with pytest.raises(ConfigError, match=r"the weight of 'style' is .*: give a finite number"):
            load_weighted(pipe, {"style": (files["style", "kohya"], weight)})
    loaded = load_weighted(pipe, {"style": (files["style", "kohya"], 1)})
    with pytest.raises(ConfigError, match="weights are given for 'subject': give one for each of 'style'"):
        loaded.weigh({"subject": 1})
    with pytest.raises(ConfigError, match="carries an adapter already"):
        load_weighted(pipe, {"style": (files["style", "kohya"], 1)})
    loaded.unload()
