"""Exports of models that torch.compile wraps, whole or in parts: under the base's own names."""

import pytest
import torch
from accelerate.utils import compile_regions
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from moslora import fold, inspect_adapter, save_folded, save_merged
from moslora.adapter.merging import merged_model
from moslora.adapter.twin import base_of, uncompiled


def compiled(module):
    return torch.compile(module, backend="eager")


def by_layer(model):
    layers = model.base_model.model.model.layers
    for number, layer in enumerate(layers):
        layers[number] = compiled(layer)
    return model


def nested(model):
    for layer in model.base_model.model.model.layers:
        layer.self_attn.q_proj = compiled(layer.self_attn.q_proj)
    return compiled(by_layer(model))


def in_place(model):
    for layer in model.base_model.model.model.layers:
        layer.compile(backend="eager")
    return model


WAYS = {
    "whole": compiled,
    "by layer": by_layer,
    "nested": nested,
    "regions": lambda model: compile_regions(model, backend="eager"),
    "in place": in_place,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model_exports_under_its_own_names(trained, load_base, logits, tmp_path, way):
    model = trained(modules_to_save=["norm"])
    expected, (_, names) = logits(model), fold(model)
    wrapped = WAYS[way](model)
    assert fold(wrapped)[1].keys() == names.keys()
    save_folded(wrapped, tmp_path / "folded")
    save_merged(wrapped, tmp_path / "merged")
    assert load_file(tmp_path / "folded/adapter_model.safetensors").keys() == names.keys()
    for loaded in (
        PeftModel.from_pretrained(load_base(), tmp_path / "folded"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
        merged_model(wrapped),
    ):
        torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)


def test_a_model_compiled_after_transformers_added_the_adapter_exports_too(make_base, config, train, logits, tmp_path):
    torch.manual_seed(7)
    model = make_base()
    model.add_adapter(config())
    expected = logits(train(model))
    save_merged(compiled(model), tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)


def test_a_model_without_its_wrappers_shares_every_tensor(trained):
    model = trained()
    assert uncompiled(model) is model
    assert uncompiled(compiled(model)) is model
    plain = uncompiled(by_layer(model))
    pointers = {tensor.data_ptr() for tensor in model.parameters()}
    assert all(tensor.data_ptr() in pointers for tensor in plain.parameters())
    assert not any("_orig_mod" in name for name, _ in plain.named_modules())
    assert isinstance(base_of(compiled(model)), type(base_of(model)))
    assert len(inspect_adapter(compiled(trained()))) == 6


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_a_base_with_weights_that_a_hook_computes_elsewhere_is_copied(trained, logits):
    model = trained()
    nn.utils.weight_norm(model.get_base_model().lm_head)
    expected = logits(model)
    torch.testing.assert_close(logits(merged_model(model)), expected, rtol=1e-4, atol=1e-5)
