"""Subclasses of torch's layers that compute what their parents do."""

import importlib

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.nn import functional as F

from moslora import MosloraConfig
from moslora.adapter.kinds import SUBCLASSES
from moslora.adapter.merging import merged_model


def subclass(name):
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("name", [name for name, kind in SUBCLASSES.items() if kind is nn.Embedding])
def test_embeddings_that_scale_their_rows_scale_the_update(name, use_dora):
    torch.manual_seed(0)
    base = nn.Sequential(subclass(name)(9, 6, 0, embed_scale=3.0))
    x = torch.tensor([[1, 2, 0], [8, 3, 3]])
    model = get_peft_model(base, MosloraConfig(r=4, target_modules=["0"], use_dora=use_dora))
    layer = model.base_model.model[0]
    nn.init.normal_(layer.lora_embedding_A["default"])
    output = model(x)
    if not use_dora:
        weight = layer.base_layer.weight + layer.get_delta_weight("default")
        torch.testing.assert_close(output, 3 * weight[x])
        torch.testing.assert_close(layer(x, adapter_names=["default", "__base__"])[0], output[0])
    output.square().sum().backward()
    assert layer.lora_mixer["default"].weight.grad.any()
    for merged in (merged_model(model), model.merge_and_unload()):
        assert type(merged[0]) is subclass(name)
        torch.testing.assert_close(merged(x), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("name", [name for name, kind in SUBCLASSES.items() if kind is nn.Linear])
def test_linear_subclasses_that_compute_what_their_parent_does_carry_a_mixer(name, use_dora):
    torch.manual_seed(0)
    base, x = nn.Sequential(subclass(name)(5, 6)), torch.randn(2, 5)
    model = get_peft_model(base, MosloraConfig(r=4, target_modules=["0"], init_lora_weights=False, use_dora=use_dora))
    layer, output = model.base_model.model[0], model(x)
    if not use_dora:
        torch.testing.assert_close(output, F.linear(x, layer.weight + layer.get_delta_weight("default"), layer.bias))
    output.square().sum().backward()
    assert layer.lora_mixer["default"].weight.grad.any()
    merged = model.merge_and_unload()
    assert type(merged[0]) is subclass(name)
    torch.testing.assert_close(merged(x), output, rtol=1e-4, atol=1e-5)
