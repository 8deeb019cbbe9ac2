"""Embeddings: plain, and with DoRA."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from moslora import MosloraConfig, save_folded
from moslora.adapter.merging import merged_model


def test_embeddings_forward_backward_and_merge():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Embedding(9, 6, padding_idx=0))
    x = torch.tensor([[1, 2, 0], [8, 3, 3]])
    model = get_peft_model(base, MosloraConfig(r=4, target_modules=["0"], mixer="orthogonal"))
    layer = model.base_model.model[0]
    assert torch.equal(model(x), layer.base_layer(x))
    nn.init.normal_(layer.lora_embedding_A["default"])
    output = model(x)
    output.square().sum().backward()
    assert layer.lora_mixer["default"].weight.grad.any()
    a, b = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]
    delta = layer.scaling["default"] * (b @ layer.mixer_matrix("default") @ a).T
    torch.testing.assert_close(layer.get_delta_weight("default"), delta.detach())
    model.merge_adapter()
    torch.testing.assert_close(model(x), output)


def test_dora_on_an_embedding_scales_the_columns_of_the_mixed_weight(tmp_path):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Embedding(9, 6, padding_idx=0))
    weight, x = base[0].weight.detach().double(), torch.tensor([[1, 2, 0], [8, 3, 3]])
    config = MosloraConfig(r=4, target_modules=["0"], mixer="orthogonal", mixer_depth=2, use_dora=True)
    model = get_peft_model(base, config)
    layer = model.base_model.model[0]
    torch.testing.assert_close(model(x), layer.base_layer(x))
    magnitudes = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitudes.double(), weight.norm(dim=0).float().double())
    for parameter in (layer.lora_embedding_A["default"], magnitudes):
        nn.init.normal_(parameter)
    output = model(x)
    output.square().sum().backward()
    a, b = (factor.detach().double() for factor in layer.factors("default"))
    links = layer.lora_mixer["default"].weight.detach().double().requires_grad_()
    mixed = weight + layer.scaling["default"] * (b @ links[1] @ links[0] @ a).T
    expected = (magnitudes.detach().double() / mixed.detach().norm(dim=0) * mixed)[x]
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    torch.testing.assert_close(layer.lora_mixer["default"].weight.grad.double(), links.grad, rtol=1e-3, atol=1e-4)
    for safe in (False, True):
        model.merge_adapter(safe_merge=safe)
        torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
        model.unmerge_adapter()
    torch.testing.assert_close(merged_model(model)(x), output, rtol=1e-4, atol=1e-5)
    save_folded(model, tmp_path, probe={"input": x})
    folded = PeftModel.from_pretrained(nn.Sequential(layer.base_layer), tmp_path)
    assert type(folded.peft_config["default"]) is LoraConfig
    torch.testing.assert_close(folded(x), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widened", [False, True])
def test_dora_on_an_embedding_in_half_precision(widened):
    torch.manual_seed(0)
    config = MosloraConfig(r=4, target_modules=["0"], init_lora_weights=False, use_dora=True)
    model = get_peft_model(nn.Sequential(nn.Embedding(9, 6)).bfloat16(), config, autocast_adapter_dtype=widened)
    x = torch.tensor([1, 2, 8])
    output = model(x)
    assert output.dtype == torch.bfloat16
    model.merge_adapter()
    torch.testing.assert_close(model(x), output, rtol=0.05, atol=0.05)
