"""The whole life of an adapter on a tiny random Llama, through PEFT's own entry points."""

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from moslora import MosloraConfig, MosloraError
from moslora.adapter.layers import MixerLayer
from moslora.core.mixers import Mixer

VARIANTS = [
    {"mixer": "kaiming"},
    {"mixer": "orthogonal", "use_rslora": True},
    {"mixer": "kaiming", "mixer_depth": 3},
    {"mixer": "butterfly"},
    {"mixer": "identity", "mixer_trainable": False},
    {"mixer": "orthogonal", "use_dora": True},
    {"mixer": "normal", "target_modules": "all-linear", "rank_pattern": {"q_proj": 6}, "alpha_pattern": {"v_proj": 3}},
    {"mixer": "orthogonal", "bias": "lora_only", "modules_to_save": ["norm"], "layers_to_transform": [1]},
    {"mixer": "zero", "init_lora_weights": False},
]


@pytest.fixture(params=VARIANTS, ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items())[:60])
def variant(request):
    return request.param


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_only_adapter_tensors_move(make_base, config, train, variant):
    torch.manual_seed(7)
    model = get_peft_model(make_base(), config(**variant))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(model)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name or name.endswith("bias") for name in moved)
    mixers_move = variant["mixer"] != "butterfly" and variant.get("mixer_trainable", True)
    assert any("lora_mixer" in name for name in moved) == mixers_move


def test_save_and_load_keep_the_output(trained, load_base, logits, tmp_path, variant):
    model = trained(**variant)
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    saved = PeftConfig.from_pretrained(tmp_path / "adapter")
    assert isinstance(saved, MosloraConfig)
    assert saved.mixer == variant["mixer"]
    close(logits(PeftModel.from_pretrained(load_base(), tmp_path / "adapter")), expected)
    other_name = PeftModel.from_pretrained(
        load_base(), tmp_path / "adapter", adapter_name="other", low_cpu_mem_usage=True
    )
    close(logits(other_name), expected)


def test_merge_and_unmerge_keep_the_output(trained, logits, variant):
    model = trained(**variant)
    expected = logits(model)
    for safe in (False, True):
        model.merge_adapter(safe_merge=safe)
        close(logits(model), expected)
        model.unmerge_adapter()
        close(logits(model), expected)


def test_unmerge_and_disable_give_the_base_back(trained, make_base, logits, variant):
    if "modules_to_save" in variant or variant.get("bias"):
        pytest.skip("PEFT trains these tensors of the base in place")
    model = trained(**variant)
    base = logits(make_base())
    with model.disable_adapter():
        close(logits(model), base)
    model.merge_adapter()
    model.unmerge_adapter()
    with model.disable_adapter():
        close(logits(model), base)


def test_merge_and_unload_leaves_a_plain_model(trained, logits, variant):
    model = trained(**variant)
    expected = logits(model)
    merged = model.merge_and_unload()
    close(logits(merged), expected)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_several_adapters_live_side_by_side(trained, config, train, make_base, logits):
    model = trained()
    base, first = logits(make_base()), logits(model)
    model.add_adapter("second", config(mixer="orthogonal", mixer_depth=2))
    close(logits(model), first)
    model.set_adapter("second")
    close(logits(model), base)
    second = logits(train(model))
    model.set_adapter("default")
    close(logits(model), first)
    mixed = logits(model, adapter_names=["default", "__base__", "second", "default"])
    close(mixed, torch.stack([first[0], base[1], second[2], first[3]]))
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "cat", combination_type="cat")
    model.set_adapter("cat")
    close(logits(model), both)
    model.delete_adapter("second")
    close(logits(model), both)
    assert "second" not in model.base_model.model.model.layers[0].self_attn.q_proj.lora_mixer


@pytest.mark.parametrize("combination", ["svd", "linear", "cat"])
def test_a_weighted_combination_of_one_adapter_is_the_adapter(trained, logits, combination, load_base, tmp_path):
    model = trained(mixer_depth=2)
    expected = logits(model)
    model.add_weighted_adapter(["default"], [1.0], "copy", combination_type=combination)
    close(logits(model), expected)
    model.set_adapter("copy")
    torch.testing.assert_close(logits(model), expected, rtol=1e-3, atol=1e-4)
    assert model.peft_config["copy"].mixer == "identity"
    assert model.peft_config["default"].mixer == "kaiming"
    model.save_pretrained(tmp_path, selected_adapters=["copy"])
    close(logits(PeftModel.from_pretrained(load_base(), tmp_path / "copy")), logits(model))


def test_a_combination_of_a_higher_rank_than_a_layer_runs_and_loads(trained, logits, load_base, tmp_path):
    model = trained()
    expected = logits(model)
    model.add_weighted_adapter(["default"], [1.0], "wide", combination_type="svd", svd_rank=100)
    model.set_adapter("wide")
    torch.testing.assert_close(logits(model), expected, rtol=1e-3, atol=1e-4)
    model.save_pretrained(tmp_path, selected_adapters=["wide"])
    close(logits(PeftModel.from_pretrained(load_base(), tmp_path / "wide")), logits(model))


def test_embeddings_merge_mix_and_save(make_base, config, train, logits, load_base, tmp_path):
    torch.manual_seed(3)
    model = train(get_peft_model(make_base(), config(target_modules=["embed_tokens", "q_proj"])))
    base, expected = logits(make_base()), logits(model)
    assert not torch.allclose(base, expected, atol=1e-3)
    mixed = logits(model, adapter_names=["default", "__base__", "default", "__base__"])
    close(mixed, torch.stack([expected[0], base[1], expected[2], base[3]]))
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        model.save_pretrained(tmp_path)
    close(logits(PeftModel.from_pretrained(load_base(), tmp_path)), expected)
    model.merge_adapter()
    close(logits(model), expected)


def test_auto_classes_load_the_adapter_with_its_base(load_base, config, train, logits, tmp_path):
    torch.manual_seed(7)
    model = train(get_peft_model(load_base(), config()))
    model.save_pretrained(tmp_path / "adapter")
    close(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")), logits(model))


@pytest.mark.parametrize("way", ["peft", "transformers"])
def test_a_base_named_by_a_relative_path_is_found_from_elsewhere(config, model_folder, tmp_path, monkeypatch, way):
    monkeypatch.chdir(model_folder.parent)
    model = AutoModelForCausalLM.from_pretrained(model_folder.name)
    if way == "peft":
        model = get_peft_model(model, config())
    else:
        model.add_adapter(config())
    model.save_pretrained(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")


def test_bfloat16_bases_keep_their_dtype_and_merge_in_float32(make_base, config, train, logits):
    torch.manual_seed(7)
    model = train(get_peft_model(make_base().bfloat16(), config(mixer="orthogonal")))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.lora_mixer["default"].weight.dtype == torch.float32
    weight, delta = layer.base_layer.weight.detach().clone(), layer.get_delta_weight("default")
    expected = logits(model)
    assert expected.dtype == torch.bfloat16
    model.merge_adapter()
    assert torch.equal(layer.base_layer.weight, (weight.float() + delta).bfloat16())
    torch.testing.assert_close(logits(model).float(), expected.float(), rtol=0.05, atol=0.05)


def test_a_second_load_of_the_same_seed_draws_the_same_adapter(make_base, config):
    def mixers():
        torch.manual_seed(11)
        model = get_peft_model(make_base(), config(mixer="orthogonal"))
        return [module.weight for module in model.modules() if isinstance(module, Mixer)]

    assert all(torch.equal(one, two) for one, two in zip(mixers(), mixers(), strict=True))


def test_tied_weights_are_not_merged_in_place(tiny_llama, config):
    tiny_llama.config.tie_word_embeddings = True
    tiny_llama.tie_weights()
    with pytest.warns(UserWarning, match="tie_word_embeddings=True"):
        model = get_peft_model(tiny_llama, config(target_modules=["embed_tokens"]))
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(MosloraError, match=r"embed_tokens shares its weight with lm_head"):
            merge()


def test_dora_adapters_are_not_combined(trained):
    model = trained(use_dora=True)
    with pytest.raises(MosloraError, match="adapter 'default' uses DoRA, whose magnitudes cannot be combined"):
        model.add_weighted_adapter(["default"], [1.0], "copy")


def test_every_target_carries_a_mixer(trained):
    model = trained()
    layers = [module for module in model.modules() if isinstance(module, MixerLayer)]
    assert len(layers) == 6
    assert all(set(layer.lora_mixer) == {"default"} for layer in layers)


def test_the_status_names_layers_and_wrappers_as_peft_does(make_base, config):
    model = get_peft_model(make_base(), config(modules_to_save=["norm"]))
    assert {layer.module_type for layer in model.get_layer_status()} == {"lora.Linear", "ModulesToSaveWrapper"}
    assert "ModulesToSaveWrapper(" in str(model)
