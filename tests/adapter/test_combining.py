"""Merging in place where a weight has two owners, and combining what cannot be added."""

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from moslora import MosloraConfig, MosloraError


def check_refused(model, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(MosloraError, match=message):
            merge()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True")
@pytest.mark.parametrize("targets", [["wte", "lm_head"], ["wte"], ["lm_head"]])
def test_tied_weights_are_not_merged_in_place_however_many_of_them_are_adapted(targets):
    base = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0))
    model = get_peft_model(base, MosloraConfig(r=2, target_modules=[*targets, "c_attn"]))
    check_refused(model, r"(lm_head|wte) shares its weight with .*, so merging in place would change both")


def test_a_module_that_stands_in_two_places_is_not_merged_in_place():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": shared, "second": shared})
    check_refused(get_peft_model(model, MosloraConfig(target_modules=["first"])), "first shares its weight with second")


def test_only_the_adapters_that_are_merged_count():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    adapted = get_peft_model(model, MosloraConfig(target_modules=["0"], init_lora_weights=False))
    adapted.add_adapter("tied", MosloraConfig(target_modules=["1"]))
    expected = adapted(torch.ones(1, 4))
    adapted.merge_adapter()
    torch.testing.assert_close(adapted(torch.ones(1, 4)), expected)
    with pytest.raises(MosloraError, match="1 shares its weight with 2"):
        adapted.merge_adapter(["tied"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_bias": True}, r"has biases \(lora_bias\)"),
        ({"trainable_token_indices": {"0": [1]}}, "has trained tokens"),
    ],
)
def test_what_a_combination_would_lose_is_refused(options, message):
    base = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4))
    model = get_peft_model(base, MosloraConfig(target_modules=["1"], **options))
    with pytest.raises(MosloraError, match=f"adapter 'default' {message}.*, which would be lost"):
        model.add_weighted_adapter(["default"], [1.0], "copy", combination_type="cat")
    assert set(model.peft_config) == {"default"}


def test_a_combination_keeps_the_saved_modules_of_the_first_adapter():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    options = {"target_modules": ["0"], "init_lora_weights": False}
    model = get_peft_model(base, MosloraConfig(**options, modules_to_save=["1"]))
    model.add_adapter("second", MosloraConfig(**options))
    nn.init.normal_(model.base_model.model[1].modules_to_save["default"].weight)
    x = torch.ones(1, 4)
    expected = model(x)
    with pytest.raises(
        MosloraError, match=("adapter 'default' has modules_to_save, which would be lost: name this adapter first")
    ):
        model.add_weighted_adapter(["second", "default"], [1.0, 1.0], "both", combination_type="cat")
    model.add_weighted_adapter(["default", "second"], [1.0, 0.0], "both", combination_type="cat")
    model.set_adapter("both")
    torch.testing.assert_close(model(x), expected)
