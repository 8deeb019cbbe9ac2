"""One LoRA file for a pipeline draws what its adapter draws, in every program that reads such files."""

import functools
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from moslora.adapter.pipeline_files import DIFFUSERS_FILE, METADATA_KEY, save_pipeline_lora
from moslora.adapter.pipeline_names import FORMATS
from moslora.adapter.pipeline_proof import latents_probe, wearing
from tests.adapted_pipelines import adapted, load_plain, mixed, quick

# Few layers, in the middle of the UNet and in the text encoders, so that an export takes a second.
SOME = r"(unet\.mid_block|text_encoder).*\.(to_q|to_v|q_proj|v_proj)"
ADAPTERS = {
    "UNet": ("sdxl", mixed(target_modules=r"unet\.mid.*attn1\.to_(q|k|v|out\.0)", mixer="orthogonal")),
    "first text encoder": ("sdxl", mixed(target_modules=r"text_encoder\..*(q_proj|out_proj)")),
    "second text encoder": ("sdxl", mixed(target_modules=r"text_encoder_2\..*(v_proj|fc1)")),
    "all parts": ("sdxl", mixed(target_modules=SOME)),
    "time and size embeddings": ("sdxl", mixed(target_modules=["linear_1", "linear_2", "text_projection"])),
    "convolutions": ("sdxl", mixed(target_modules=r".*(mid_block.*conv1|downsamplers\.0\.conv)", mixer_depth=2)),
    "Tucker core": (
        "sdxl",
        mixed(target_modules=r".*mid.*conv1", use_tucker=True, mixer="zero", init_lora_weights=False),
    ),
    "mixed ranks": (
        "sdxl",
        mixed(target_modules=SOME, rank_pattern={"to_q": 7, "attn1.to_v": 2, "q_proj": 3}, alpha_pattern={"to_q": 2}),
    ),
    "rank-stabilised scale": ("sd15", mixed(target_modules=SOME, use_rslora=True, r=5)),
    "some layers without a mixer": ("sd15", mixed(target_modules=SOME, mixer_pattern={"to_q": "none"})),
    "plain LoRA": ("sd15", LoraConfig(r=3, lora_alpha=7, target_modules=["attn1.to_q", "q_proj", "conv_in"])),
    "1 x 1 convolutions of SD 1.5": ("sd15", mixed(target_modules=["proj_in", "proj_out", "out_proj"])),
}
FULL_SIZE = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Exported:
    """An adapter, its file, and the latents that the base and the adapter draw."""

    pipe: Any
    model: Any
    file: Path
    drift: Any
    base: torch.Tensor
    latents: torch.Tensor

    def drawn_from(self, source=None, **options):
        """The latents that the plain pipeline draws with a file, by default the exported one."""
        self.pipe.load_lora_weights(source or self.file, **options)
        try:
            return quick(self.pipe)
        finally:
            self.pipe.unload_lora_weights()

    @property
    def effect(self):
        return (self.latents - self.base).abs().max()


@pytest.fixture(scope="module")
def plain(pipeline_folder):
    """The plain pipeline of a kind, loaded once; whoever loads a file into it unloads it."""
    return functools.cache(lambda kind: load_plain(pipeline_folder(kind)))


@pytest.fixture(scope="module")
def exported(pipeline_folder, plain, tmp_path_factory):
    """An adapter of `ADAPTERS` with its file in a format, made once."""

    @functools.cache
    def export(name, format, adapter_name="default"):
        kind, config = ADAPTERS[name]
        model, pipe = adapted(pipeline_folder(kind), config, adapter_name=adapter_name), plain(kind)
        file = tmp_path_factory.mktemp("files") / "adapter.safetensors"
        drift = save_pipeline_lora(
            model, file, format=format, load_pipeline=lambda: pipe, probe=quick, adapter_name=adapter_name
        )
        base = quick(pipe)
        with wearing(pipe, model):
            return Exported(pipe, model, file, drift, base, quick(pipe))

    return export


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_plain_pipeline_with_the_file_draws_what_the_adapter_draws(name, format, exported):
    made = exported(name, format)
    assert (made.drawn_from() - made.latents).abs().max() < 1e-3 * made.effect
    assert made.drift.is_within
    assert made.drift.effect == pytest.approx(made.effect.item())
    assert made.drift.tensors.difference < 1e-6
    assert made.drift.tensors.layers == sum(hasattr(module, "lora_A") for module in made.model.modules()) > 0


def by_hand(pipe, file):
    """Add alpha / r · up · down to the weights of a pipeline, layer by layer, as other programs do."""
    te1 = "lora_te_text_model_" if getattr(pipe, "text_encoder_2", None) is None else "lora_te1_text_model_"
    prefixes = {"unet": "lora_unet_", "text_encoder": te1, "text_encoder_2": "lora_te2_"}
    sgm = {"add_embedding_linear_1": "label_emb_0_0", "add_embedding_linear_2": "label_emb_0_2"}
    tensors = load_file(file)
    for part, prefix in prefixes.items():
        for name, module in pipe.components[part].named_modules() if part in pipe.components else ():
            name = name.replace(".", "_")
            key = prefix + sgm.get(name, name)
            if f"{key}.alpha" in tensors:
                alpha, down, up = (
                    tensors.pop(f"{key}.{end}") for end in ("alpha", "lora_down.weight", "lora_up.weight")
                )
                delta = alpha / len(down) * up.flatten(1) @ down.flatten(1)
                module.weight.data += delta.view_as(module.weight)
    assert not tensors
    return pipe


@pytest.mark.parametrize("name", ADAPTERS)
def test_kohyas_file_added_to_the_weights_by_hand_draws_what_the_adapter_draws(name, exported, pipeline_folder):
    made = exported(name, "kohya")
    found = quick(by_hand(load_plain(pipeline_folder(ADAPTERS[name][0])), made.file))
    assert (found - made.latents).abs().max() < 1e-3 * made.effect


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["first text encoder", "second text encoder"])
def test_an_adapter_of_a_text_encoder_alone_reaches_the_picture(name, format, exported):
    made = exported(name, format)
    assert (made.drawn_from() - made.base).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["all parts", "mixed ranks", "convolutions"])
def test_every_key_of_the_file_is_in_the_pipeline_with_the_file_s_own_numbers(name, exported):
    made = exported(name, "diffusers")
    pipe = made.pipe
    pipe.load_lora_weights(made.file, adapter_name="b")
    arrived = {
        f"{part}.{key}": tensor
        for part in FULL_SIZE
        if "b" in getattr(getattr(pipe, part), "peft_config", {})
        for key, tensor in get_peft_model_state_dict(getattr(pipe, part), adapter_name="b").items()
    }
    pipe.unload_lora_weights()
    sent = load_file(made.file)
    sent = {key.replace("text_encoder.text_model.", "text_encoder."): tensor for key, tensor in sent.items()}
    assert arrived.keys() == sent.keys()
    assert all(torch.equal(arrived[key], tensor) for key, tensor in sent.items())


@pytest.mark.parametrize("format", FORMATS)
def test_an_alpha_other_than_the_rank_is_in_the_numbers_so_that_what_ignores_alpha_is_right(format, exported):
    made = exported("mixed ranks", format)
    tensors = load_file(made.file)
    for key, alpha in tensors.items():
        if key.endswith(".alpha"):
            assert alpha.item() == len(tensors[key.replace(".alpha", ".lora_down.weight")])
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = made.model.base_model.model.get_submodule(key)
    assert layer.scaling["default"] == 2 / 7
    name, a, b = (key, "lora_A", "lora_B") if format == "diffusers" else (f"lora_{key}", "lora_down", "lora_up")
    name = name if format == "diffusers" else name.replace(".", "_")
    delta = tensors[f"{name}.{b}.weight"] @ tensors[f"{name}.{a}.weight"]
    torch.testing.assert_close(delta, layer.get_delta_weight("default"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["all parts", "mixed ranks", "time and size embeddings"])
def test_a_reader_without_the_header_draws_the_same_latents(name, exported, tmp_path):
    made, bare = exported(name, "diffusers"), tmp_path / "bare.safetensors"
    save_file(load_file(made.file), bare)
    assert torch.equal(made.drawn_from(bare), made.drawn_from())


@pytest.mark.parametrize("format", FORMATS)
def test_mixed_ranks_have_their_own_scale_in_any_order_of_keys(format, exported):
    made = exported("mixed ranks", format)
    items = list(load_file(made.file).items())
    for seed in range(2):
        random.Random(seed).shuffle(items)
        assert (made.drawn_from(dict(items)) - made.latents).abs().max() < 1e-3 * made.effect


def test_the_header_describes_plain_lora_with_alpha_the_rank(exported):
    made = exported("mixed ranks", "diffusers")
    with safe_open(made.file, framework="pt") as opened:
        fields = json.loads(opened.metadata()[METADATA_KEY])
    assert {key.partition(".")[0] for key in fields} == {*FULL_SIZE}
    for part in FULL_SIZE:
        own = {key.removeprefix(f"{part}."): value for key, value in fields.items() if key.startswith(f"{part}.")}
        assert own.keys() == {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules"}
        assert own["r"] == own["lora_alpha"]
        assert own["rank_pattern"] == own["alpha_pattern"] != {}
        LoraConfig(**own)


@pytest.mark.parametrize("format", FORMATS)
def test_an_adapter_may_be_called_b(format, exported):
    """diffusers looks for an adapter's name anywhere in the names of layers, of which most hold a b."""
    made = exported("all parts", format, "b")
    assert made.drift.is_within
    assert (made.drawn_from(adapter_name="b") - made.latents).abs().max() < 1e-3 * made.effect


def test_diffusers_finds_the_file_in_a_folder_by_its_usual_name(exported, tmp_path):
    made = exported("plain LoRA", "diffusers")
    shutil.copy(made.file, tmp_path / DIFFUSERS_FILE)
    assert torch.equal(made.drawn_from(tmp_path), made.drawn_from())


TRANSFORMERS = {
    "sd3": (
        {"transformer", "text_encoder", "text_encoder_2"},
        r"(?!text_encoder_3).*(to_q|add_k_proj|proj_out|out_proj)",
    ),
    "flux": ({"transformer", "text_encoder"}, r"transformer\.(proj_out|.*to_q|.*proj_mlp)|text_encoder\..*q_proj"),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_transformer_s_file_has_the_names_of_diffusers(kind, pipeline_folder, plain, tmp_path):
    (parts, targets), pipe, file = TRANSFORMERS[kind], plain(kind), tmp_path / "adapter.safetensors"
    model = adapted(pipeline_folder(kind), mixed(target_modules=targets, rank_pattern={"to_q": 2}))
    probe = functools.partial(latents_probe, pixels=32)
    drift = save_pipeline_lora(model, file, load_pipeline=lambda: pipe, probe=probe)
    assert drift.is_within
    assert {key.partition(".")[0] for key in load_file(file)} == parts
    with wearing(pipe, model):
        expected = probe(pipe)
    pipe.load_lora_weights(file)
    found = probe(pipe)
    pipe.unload_lora_weights()
    assert (found - expected).abs().max() < 1e-3 * drift.effect


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_half_precision_is_right_to_the_rounding_of_its_dtype(format, pipeline_folder, tmp_path):
    folder, file, dtype = pipeline_folder("sd15"), tmp_path / "adapter.safetensors", torch.bfloat16
    model = adapted(folder, mixed(target_modules=SOME), dtype=dtype, autocast_adapter_dtype=False)
    drift = save_pipeline_lora(model, file, format=format, load_pipeline=lambda: load_plain(folder, dtype=dtype))
    assert drift.tensors.dtype == "bfloat16"
    assert 0 < drift.tensors.difference < 2e-2
    assert {tensor.dtype for key, tensor in load_file(file).items() if not key.endswith("alpha")} == {dtype}


def test_an_export_changes_neither_the_model_nor_the_pipeline(pipeline_folder, tmp_path):
    folder = pipeline_folder("sdxl")
    model, pipe = adapted(folder, mixed(target_modules=SOME)).train(), load_plain(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_pipeline_lora(model, tmp_path / "a.safetensors", load_pipeline=lambda: pipe)
    assert all(module.training for module in model.modules())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    fresh = load_plain(folder)
    for part in FULL_SIZE:
        own, right = getattr(pipe, part).state_dict(), getattr(fresh, part).state_dict()
        assert own.keys() == right.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in right.items())
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
