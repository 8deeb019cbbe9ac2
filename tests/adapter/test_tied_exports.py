"""Exports where base weights are tied: each place gets its own numbers, in the file and after loading."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from moslora import MosloraConfig, save_folded, save_merged
from moslora.adapter.merging import merged_model

IDS = torch.arange(3, 15)[None]
GPT2 = {"vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 0}
LLAMA = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
T5 = {"vocab_size": 64, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 1, "num_heads": 2}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_attention_heads=2, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, eos_token_id=0)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5, decoder_start_token_id=0)),
}
TARGETS = [
    ("llama", ["embed_tokens", "lm_head"]),
    ("llama", ["embed_tokens"]),
    ("llama", ["lm_head"]),
    ("gpt2", ["wte", "lm_head"]),
    ("gpt2", ["lm_head"]),
    ("t5", ["shared"]),
    ("t5", ["lm_head"]),
    ("t5", ["shared", "lm_head"]),
    ("t5", [r"encoder.embed_tokens"]),
    ("t5", ["encoder.embed_tokens", "decoder.embed_tokens"]),
]


@pytest.fixture(params=TARGETS, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
def case(request):
    """A base model, an adapter on some of its tied weights, and a forward pass."""
    kind, targets = request.param
    torch.manual_seed(0)
    base = MODELS[kind]().eval()
    inputs = {"input_ids": IDS, **({"decoder_input_ids": IDS} if kind == "t5" else {})}
    torch.manual_seed(1)
    model = get_peft_model(copy.deepcopy(base), MosloraConfig(r=2, target_modules=targets, init_lora_weights=False))

    def logits(model):
        with torch.no_grad():
            return model.eval()(**inputs).logits

    return base, model, inputs, logits


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True", "ignore:Setting .save_embedding_layers")
def test_tied_weights_that_are_adapted_fold_and_merge(case, tmp_path):
    base, model, inputs, logits = case
    expected = logits(model)
    save_folded(model, tmp_path / "folded", probe=inputs)
    folded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "folded")
    torch.testing.assert_close(logits(folded), expected, rtol=1e-4, atol=1e-5)
    save_merged(model, tmp_path / "merged", probe=inputs)
    merged = type(base).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert model.get_base_model().config.to_dict() == base.config.to_dict()


def test_a_module_that_stands_in_two_places_is_merged_in_one(tmp_path):
    shared = nn.Linear(4, 4)
    base = nn.ModuleDict({"first": shared, "second": shared})
    model = get_peft_model(base, MosloraConfig(target_modules=["first"], init_lora_weights=False))
    merged = merged_model(model)
    assert torch.equal(merged["second"].weight, shared.weight)
    assert not torch.equal(merged["first"].weight, shared.weight)
