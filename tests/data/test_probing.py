"""What models are seen to see: padding on the left, and each other's tokens."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from moslora.data.probing import computing_in, is_castable, logits, probing, sees_left_padding

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def bloom() -> nn.Module:
    return BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4))


def mamba() -> nn.Module:
    return MambaForCausalLM(MambaConfig(**SIZES, state_size=4))


def mixtral() -> nn.Module:
    return MixtralForCausalLM(MixtralConfig(**SIZES, **HEADS, num_local_experts=4))


def rwkv() -> nn.Module:
    return RwkvForCausalLM(RwkvConfig(**SIZES, attention_hidden_size=32, intermediate_size=48, context_length=64))


def recurrent_gemma() -> nn.Module:
    sizes = SIZES | HEADS | {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16}
    return RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**sizes))


class WithoutPositions(GPT2LMHeadModel):
    """Masks padding, and counts positions from the start of the row."""

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: Any = None) -> Any:  # type: ignore[override]
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [gpt2, bloom, mamba, mixtral, rwkv, recurrent_gemma])
def test_a_model_that_looks_at_masked_padding_is_found(make: Callable[[], nn.Module], dtype: torch.dtype):
    torch.manual_seed(0)
    assert sees_left_padding(make().to(dtype)) is (make in (rwkv, recurrent_gemma))


def test_a_model_that_counts_positions_from_the_padding_is_found():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
    assert sees_left_padding(WithoutPositions(config))
    assert not sees_left_padding(GPT2LMHeadModel(config))


def test_one_layer_at_a_time_computes_in_another_dtype(tiny_llama: Any):
    tiny_llama.to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    seen: list[list[torch.dtype]] = []
    for layer in tiny_llama.model.layers:
        layer.mlp.register_forward_hook(
            lambda *_: seen.append([layer.mlp.up_proj.weight.dtype for layer in tiny_llama.model.layers])
        )
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad(), computing_in(tiny_llama, torch.float32):
        found = logits(tiny_llama, inputs)
    assert seen == [[torch.float32, torch.bfloat16], [torch.bfloat16, torch.float32]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_llama.state_dict().items())
    torch.testing.assert_close(found, logits(tiny_llama.float(), inputs))


def test_an_error_inside_leaves_the_weights_as_they_were(tiny_llama: Any):
    tiny_llama.to(torch.bfloat16)

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    handle = tiny_llama.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no"), computing_in(tiny_llama, torch.float64):
        tiny_llama(torch.tensor([[5, 6]]))
    handle.remove()
    assert {tensor.dtype for tensor in tiny_llama.parameters()} == {torch.bfloat16}
    tiny_llama(torch.tensor([[5, 6]]))


def test_quantised_and_offloaded_weights_stay_in_their_dtype(tiny_llama: Any):
    assert is_castable(tiny_llama)
    tiny_llama.lm_head.weight = nn.Parameter(torch.zeros(320, 64, dtype=torch.uint8), requires_grad=False)
    assert not is_castable(tiny_llama)
    with computing_in(tiny_llama, torch.float64):
        assert tiny_llama.model.embed_tokens.weight.dtype == torch.float32
    tiny_llama.lm_head.to("meta")
    assert not is_castable(tiny_llama)


def test_rows_of_an_8_bit_layer_are_looked_at_each_for_itself():
    layer = nn.Linear(2, 2)
    layer.state = SimpleNamespace(threshold=6.0)
    with probing(nn.Sequential(layer)):
        assert layer.state.threshold == 0.0
    assert layer.state.threshold == 6.0
