"""What is not the adapter is not written, and what such a file cannot hold is refused by name."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from peft import LoHaConfig, LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging as transformers_logging

from moslora.adapter.pipeline_files import METADATA_KEY, save_pipeline_lora
from moslora.adapter.pipeline_names import FORMATS
from moslora.adapter.pipeline_proof import latents_probe, prove_pipeline_lora, require_effect, wearing
from moslora.errors import CheckpointError, ConfigError, DriftError, NoEffectError, OutputError
from tests.adapted_pipelines import Parts, adapted, load_plain, mixed
from tests.diffusion import tiny_sd15

FEW = r"(unet\.mid_block|text_encoder).*\.(to_q|q_proj)"
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


@pytest.fixture(scope="module")
def base(pipeline_folder):
    """A plain pipeline, which every proof leaves plain."""
    return load_plain(pipeline_folder("sd15"))


@pytest.fixture(scope="module")
def model(pipeline_folder):
    return adapted(pipeline_folder("sd15"), mixed(target_modules=FEW))


@pytest.fixture(scope="module")
def files(model, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for format in FORMATS:
        save_pipeline_lora(model, folder / f"{format}.safetensors", format=format, load_pipeline=lambda: base)
    return folder


@pytest.fixture
def tamper(files, tmp_path):
    """Write a file anew after a change of its tensors, or of its header."""

    def write(change, format="diffusers", header=None):
        source, target = files / f"{format}.safetensors", tmp_path / "changed.safetensors"
        tensors = load_file(source)
        change(tensors)
        with safe_open(source, framework="pt") as opened:
            metadata = opened.metadata() | ({METADATA_KEY: json.dumps(header)} if header else {})
        save_file(tensors, target, metadata=metadata)
        return target

    return write


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_as_it_was_written_is_proved_again(format, model, base, files):
    assert prove_pipeline_lora(model, files / f"{format}.safetensors", load_pipeline=lambda: base).is_within


def test_a_number_that_is_not_the_adapter_s_is_found(model, base, tamper):
    def change(tensors):
        tensors[B][0, 0] += 1e-3

    with pytest.raises(DriftError, match=rf"{LAYER}: B has .* where the adapter has .*nothing was written"):
        prove_pipeline_lora(model, tamper(change), load_pipeline=lambda: base)


def test_a_number_in_the_rows_that_fill_a_rank_up_is_found(pipeline_folder, base, tmp_path):
    file = tmp_path / "a.safetensors"
    model = adapted(pipeline_folder("sd15"), mixed(target_modules=FEW, rank_pattern={"attn1.to_q": 2}))
    save_pipeline_lora(model, file, format="kohya", load_pipeline=lambda: base)
    tensors, key = load_file(file), f"lora_{LAYER.replace('.', '_')}.lora_up.weight"
    tensors[key][0, 3] = 1.0
    save_file(tensors, file)
    with pytest.raises(DriftError, match=rf"{LAYER} has rank 4 instead of 2"):
        prove_pipeline_lora(model, file, load_pipeline=lambda: base)


def test_a_layer_that_the_file_lacks_is_found(model, base, tamper):
    def change(tensors):
        del tensors[A], tensors[B]

    with pytest.raises(DriftError, match=rf"it lacks {LAYER}"):
        prove_pipeline_lora(model, tamper(change), load_pipeline=lambda: base)


def test_a_layer_too_many_is_found_unless_it_holds_zeros_alone(model, base, tamper):
    others = [key.replace("attn1.to_q", "attn1.to_k") for key in (A, B)]

    def change(tensors):
        tensors |= {other: torch.ones_like(tensors[key]) for key, other in zip((A, B), others, strict=True)}

    with pytest.raises(DriftError, match=rf"it also holds {LAYER.replace('to_q', 'to_k')}"):
        prove_pipeline_lora(model, tamper(change), load_pipeline=lambda: base)

    def idle(tensors):
        tensors |= {other: torch.zeros_like(tensors[key]) for key, other in zip((A, B), others, strict=True)}

    assert prove_pipeline_lora(model, tamper(idle), load_pipeline=lambda: base).is_within


@pytest.mark.parametrize("library", [diffusers_logging, transformers_logging])
def test_the_libraries_say_as_much_as_before_once_a_file_is_proved(library, model, base, files):
    level = library.get_verbosity()
    library.set_verbosity_info()
    try:
        prove_pipeline_lora(model, files / "kohya.safetensors", load_pipeline=lambda: base)
        assert library.get_verbosity() == library.INFO
    finally:
        library.set_verbosity(level)


def test_half_a_layer_is_found(model, base, tamper):
    with pytest.raises(DriftError, match=rf"it also holds {A}|does not load in plain diffusers"):
        prove_pipeline_lora(model, tamper(lambda tensors: tensors.pop(A)), load_pipeline=lambda: base)


@pytest.mark.parametrize("prefix", ["unet_2", "base_model.model.unet"])
def test_a_stray_prefix_that_diffusers_passes_over_in_silence_is_found(prefix, model, base, tamper):
    def change(tensors):
        tensors[A.replace("unet", prefix, 1)] = tensors[A].clone()

    with pytest.raises(DriftError, match=rf"it lacks {prefix}"):
        prove_pipeline_lora(model, tamper(change), load_pipeline=lambda: base)


def test_keys_of_the_adapter_folder_do_nothing_in_diffusers_and_are_found(model, base, tamper):
    def change(tensors):
        for key in list(tensors):
            tensors[f"base_model.model.{key}"] = tensors.pop(key)

    with pytest.raises(ConfigError, match="StableDiffusionPipeline loads no adapter into its text_encoder, unet"):
        prove_pipeline_lora(model, tamper(change), load_pipeline=lambda: base)


def test_unfolded_mixers_which_diffusers_drops_are_found(model, base, tamper):
    def change(tensors):
        tensors[f"{LAYER}.lora_mixer.weight"] = torch.eye(4)[None]

    with pytest.raises(DriftError, match=r"it lacks .*lora_mixer"):
        prove_pipeline_lora(model, tamper(change), load_pipeline=lambda: base)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_header_that_scales_anew_is_found(part, model, base, files, tamper):
    with safe_open(files / "diffusers.safetensors", framework="pt") as opened:
        header = json.loads(opened.metadata()[METADATA_KEY])
    header[f"{part}.lora_alpha"] *= 2
    with pytest.raises(DriftError, match=rf"{part}\..* is scaled by 2 instead of 1"):
        prove_pipeline_lora(model, tamper(lambda tensors: None, header=header), load_pipeline=lambda: base)


def test_an_alpha_of_kohyas_file_that_scales_anew_is_found(model, base, tamper):
    def change(tensors):
        for key in tensors:
            if key.endswith(".alpha"):
                tensors[key] *= 2

    with pytest.raises(DriftError, match="is scaled by 2 instead of 1"):
        prove_pipeline_lora(model, tamper(change, "kohya"), load_pipeline=lambda: base)


def test_a_damaged_file_is_refused(model, base, tmp_path):
    file = tmp_path / "broken.safetensors"
    file.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=r"broken.safetensors is damaged"):
        prove_pipeline_lora(model, file, load_pipeline=lambda: base)


def test_a_file_that_diffusers_does_not_take_says_why(model, base, tmp_path):
    file = tmp_path / "odd.safetensors"
    save_file({"unet.conv_in.lora_A.weight": torch.zeros(2, 3)}, file)
    with pytest.raises(DriftError, match=r"it does not load \("):
        prove_pipeline_lora(model, file, load_pipeline=lambda: base)


def test_another_base_is_seen_in_the_latents_and_nothing_is_written(model, tmp_path):
    other = load_plain(tiny_sd15(tmp_path / "other", seed=1))
    with pytest.raises(
        DriftError, match=r"the file in plain diffusers differs from the adapter by .*nothing was written"
    ):
        save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: other)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    drift = save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: other, allow_drift=True)
    assert not drift.is_within
    assert (tmp_path / "a.safetensors").is_file()


def test_an_adapter_that_changes_nothing_is_an_error_that_says_so(pipeline_folder, base, tmp_path):
    model = adapted(pipeline_folder("sd15"), mixed(target_modules=FEW))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    with pytest.raises(NoEffectError, match=r"the adapter changes none of 1024 latents: it was never trained"):
        save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: base)
    assert not list(tmp_path.iterdir())


class Deaf(StableDiffusionPipeline):
    """A pipeline that loads adapters and draws without them."""

    def load_lora_weights(self, *args, **options):
        super().load_lora_weights(*args, **options)
        self.disable_lora()


def test_a_weak_adapter_that_arrives_and_is_not_at_work_is_found(pipeline_folder, tmp_path):
    """Its latents are within what rounding explains: that they are the base's to the last bit tells."""
    folder = pipeline_folder("sd15")
    model, pipe = adapted(folder, mixed(target_modules=FEW)), load_plain(folder, kind=Deaf)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter *= 1e-5
    with pytest.raises(DriftError, match="the file in plain diffusers changes no latent, and the adapter does"):
        save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: pipe)
    assert not list(tmp_path.iterdir())
    drift = save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: load_plain(folder))
    assert 0 < drift.effect < drift.tolerance


def test_one_latent_that_differs_is_an_effect():
    base, adapted_latents = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    with pytest.raises(NoEffectError):
        require_effect(base, adapted_latents)
    adapted_latents[0, 0, 0, 0] = 1e-6
    require_effect(base, adapted_latents)


def test_the_probe_draws_the_same_latents_for_the_same_prompt_and_noise(base):
    first = latents_probe(base)
    assert torch.equal(first, latents_probe(base))
    assert not torch.equal(first, latents_probe(base, prompt="a dog"))
    assert not torch.equal(first, latents_probe(base, seed=1))
    assert latents_probe(base, pixels=16, steps=1, guidance_scale=1.0).shape == (1, 4, 8, 8)


def test_a_pipeline_wears_an_adapter_for_a_while(pipeline_folder, model, base):
    own, model = base.unet, model.train()
    with wearing(base, model):
        assert base.unet is model.base_model.model.unet
        assert not base.unet.training
    assert base.unet is own
    assert all(module.training for module in model.modules())


REFUSED = {
    "DoRA": (mixed(target_modules=FEW, use_dora=True), "use_dora cannot be written to .*train without it, or fold"),
    "DoRA of plain LoRA": (LoraConfig(r=2, target_modules=FEW, use_dora=True), "use_dora cannot be written to"),
    "LoHa": (LoHaConfig(r=2, target_modules=FEW), "adapter 'default' is of type LOHA, .*train MOSLORA or LORA"),
    "saved modules": (
        mixed(target_modules=FEW, modules_to_save=["conv_out"]),
        r"the adapter holds unet.conv_out.weight \(and 1 more\), .*train without modules_to_save",
    ),
    "a bias of LoRA's": (
        mixed(target_modules=["q_proj"], lora_bias=True),
        r"lora_B.bias .*which is a bias and has no place",
    ),
    "an embedding": (mixed(target_modules=["token_embedding"]), "token_embedding has no lora_A and lora_B"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_hold_is_refused_with_the_next_step(name, pipeline_folder, base, tmp_path):
    config, message = REFUSED[name]
    model = adapted(pipeline_folder("sd15"), config)
    for format in FORMATS:
        with pytest.raises(ConfigError, match=message):
            save_pipeline_lora(model, tmp_path / "a.safetensors", format=format, load_pipeline=lambda: base)
    assert not list(tmp_path.iterdir())


def test_a_part_that_diffusers_loads_no_adapter_into_is_refused(pipeline_folder, tmp_path):
    folder = pipeline_folder("sd3")
    model = adapted(folder, mixed(target_modules=r"transformer\..*to_q|text_encoder_3\..*\.q"))
    with pytest.raises(ConfigError, match="StableDiffusion3Pipeline loads no adapter into its text_encoder_3"):
        save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: load_plain(folder))
    with pytest.raises(ConfigError, match="cannot name the layers of a transformer"):
        save_pipeline_lora(model, tmp_path / "a.safetensors", format="kohya", load_pipeline=lambda: load_plain(folder))


def test_a_pipeline_that_carries_an_adapter_already_is_refused(model, pipeline_folder, files, tmp_path):
    pipe = load_plain(pipeline_folder("sd15"))
    pipe.load_lora_weights(files / "kohya.safetensors")
    with pytest.raises(ConfigError, match="the unet of this StableDiffusionPipeline carries an adapter already"):
        save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: pipe)


@pytest.mark.parametrize("state", ["merged", "disabled", "not active"])
@pytest.mark.parametrize("kind", [mixed, LoraConfig])
def test_an_adapter_that_is_not_at_work_is_refused(kind, state, pipeline_folder, base, tmp_path):
    model = adapted(pipeline_folder("sd15"), kind(r=2, target_modules=FEW))
    if state == "merged":
        model.merge_adapter()
    elif state == "disabled":
        model.base_model.disable_adapter_layers()
    else:
        model.add_adapter("other", kind(r=2, target_modules=FEW))
        model.set_adapter("other")
    with pytest.raises(ConfigError, match={"not active": "is not the active one"}.get(state, state)):
        save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: base)


def test_a_file_that_exists_and_a_name_without_its_ending_are_refused(model, base, files, tmp_path):
    before = (files / "kohya.safetensors").read_bytes()
    with pytest.raises(OutputError, match=r"kohya.safetensors exists: choose another name"):
        save_pipeline_lora(model, files / "kohya.safetensors", load_pipeline=lambda: base)
    assert (files / "kohya.safetensors").read_bytes() == before
    with pytest.raises(ConfigError, match=r"a.bin does not end in .safetensors"):
        save_pipeline_lora(model, tmp_path / "a.bin", load_pipeline=lambda: base)
    with pytest.raises(ConfigError, match="unknown format 'peft'"):
        save_pipeline_lora(model, tmp_path / "a.safetensors", format="peft", load_pipeline=lambda: base)


def test_a_model_that_holds_no_adapter_is_refused(pipeline_folder, base, tmp_path):
    with pytest.raises(ConfigError, match="the model has no adapter 'default'"):
        save_pipeline_lora(
            Parts(load_plain(pipeline_folder("sd15"))), tmp_path / "a.safetensors", load_pipeline=lambda: base
        )
    assert isinstance(base.unet, nn.Module)
