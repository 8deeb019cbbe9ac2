"""Patterns that name nothing, and layers that a model never calls."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.utils.save_and_load import PeftWarning
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    FalconMambaConfig,
    Mamba2Config,
    MambaConfig,
)

from moslora import MosloraConfig
from moslora.adapter.targets import check_is_called, check_patterns
from moslora.errors import ConfigError, UnsupportedLayerError

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
MAMBAS = {
    "mamba": MambaConfig(**SIZES),
    "falcon_mamba": FalconMambaConfig(**SIZES),
    "mamba2": Mamba2Config(**SIZES, num_heads=8, head_dim=8, n_groups=1, state_size=8, chunk_size=8),
}


def make(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target_modules": "q_proj"},
            "target_modules: 'q_proj' matches no module of the model: text is a regular expression",
        ),
        ({"exclude_modules": r".*\.k_prj"}, r"exclude_modules: '.*\.k_prj' matches no module of the model"),
        ({"layers_to_transform": [0, 7]}, "layers_to_transform: '7' matches no module of the model"),
        ({"layers_to_transform": 7}, "layers_to_transform: '7' matches no module of the model"),
        ({"layers_to_transform": [0], "layers_pattern": ["h"]}, "layers_to_transform: '0' matches no module"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(make_base, config, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        get_peft_model(make_base(), config(**options))


def test_patterns_that_match_are_accepted(make_base, config):
    names = [name for name, _ in make_base().named_modules()]
    check_patterns(config(target_modules=r".*\.q_proj", exclude_modules=r".*layers\.0\..*"), names)
    check_patterns(config(target_modules="ALL-LINEAR"), names)
    check_patterns(config(layers_to_transform=[0, 1], layers_pattern=["layers"]), names)


@pytest.mark.parametrize("target", ["base_layer", "lora_mixer", "q_porj"])
def test_the_parts_of_an_adapter_are_no_targets_of_a_second_one(trained, config, target):
    with pytest.raises(ConfigError, match=f"target_modules: '{target}' matches no module") as refusal:
        trained().add_adapter("second", config(target_modules=[target]))
    assert "lora_A" not in str(refusal.value)


@pytest.mark.parametrize("model", MAMBAS.values(), ids=MAMBAS)
@pytest.mark.parametrize("targets", [["in_proj", "out_proj"], "all-linear"], ids=["names", "all-linear"])
def test_pefts_guard_for_mamba_holds_for_ours(model, targets):
    with pytest.raises(ValueError, match="incompatible with Mamba-based models"):
        get_peft_model(make(model), LoraConfig(r=4, target_modules=targets))
    with pytest.raises(UnsupportedLayerError, match="read this layer's weight and do not call the layer"):
        get_peft_model(make(model), MosloraConfig(r=4, target_modules=targets))


def test_the_layers_that_mamba_calls_carry_a_mixer():
    get_peft_model(make(MAMBAS["mamba"]), MosloraConfig(r=4, target_modules=["in_proj", "x_proj"]))


def test_layers_that_pefts_list_lacks_are_refused_too():
    mamba = make(MAMBAS["mamba"])
    mixer = "backbone.layers.0.mixer"
    assert ".weight @" in _source_of(mamba.get_submodule(mixer))  # still so in this transformers
    with pytest.raises(UnsupportedLayerError, match=rf"{mixer}.dt_proj: models of type mamba read this layer's weight"):
        check_is_called(mamba, f"{mixer}.dt_proj")
    bamba = make(BambaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, mamba_n_heads=8, mamba_d_head=8))
    with pytest.raises(UnsupportedLayerError, match=r"leave 'out_proj' out of target_modules \(exclude_modules="):
        check_is_called(bamba, "model.layers.0.mamba.out_proj")
    check_is_called(bamba, "model.layers.0.mamba.in_proj")


def test_saving_shards_warns_as_for_lora(trained):
    model = trained()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    layer.lora_A["default"].weight.data = torch.empty(0)
    with pytest.warns(PeftWarning, match=r"1 LoRA tensor\(s\) have invalid shape"):
        get_peft_model_state_dict(model)


def _source_of(module):
    import inspect

    return inspect.getsource(type(module))
