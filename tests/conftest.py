"""A tiny tokenizer and a tiny random model, made here so that no test fetches anything; where real data lies."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|pad|>", "<|start|>", "<|end|>")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, three special tokens, 259 tokens in all; adds no start or end token by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>"
    )


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture
def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The path of a file or folder of the real data; skips the test where it is absent (MOSLORA_DATA says where)."""
    root = Path(os.environ.get("MOSLORA_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def path(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"needs the real data {name} under {root} (set MOSLORA_DATA)")
        return root / name

    return path
