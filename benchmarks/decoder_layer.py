"""One decoder layer: rank 512 at InternLM2-7B's shapes, and growth with tokens and rank at SmolLM2's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from benchmarks.peers import optimizer_of, peer
from benchmarks.results import Row, save
from benchmarks.timing import interleaved, ratio

FIELDS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
SHAPES = {
    "InternLM2-7B": dict(zip(FIELDS, (4096, 14336, 32, 8), strict=True)),
    "SmolLM2-135M": dict(zip(FIELDS, (576, 1536, 9, 3), strict=True)),
}
TOKENS, RANKS, REPORTED_RANKS = (128, 256, 512, 1024, 2048, 4096), (4, 8, 16, 32, 64, 128), (256, 512)
DROPOUT = 0.05
POINTS = [(tokens, 16) for tokens in TOKENS] + [(512, rank) for rank in (*RANKS, *REPORTED_RANKS) if rank != 16]


class Layers(nn.Module):
    """Decoder layers with random weights, without embeddings and head."""

    def __init__(self, shape: str, *, layers: int) -> None:
        super().__init__()
        config = LlamaConfig(**SHAPES[shape], attn_implementation="sdpa")
        torch.manual_seed(0)
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, number) for number in range(layers))
        self.rotary = LlamaRotaryEmbedding(config)
        self.config = config

    def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        x = input_ids  # PEFT's name; here the activations, of shape (rows, tokens, hidden)
        positions = torch.arange(x.shape[1]).unsqueeze(0)
        embeddings = self.rotary(x, positions)
        for layer in self.layers:
            x = layer(x, position_embeddings=embeddings, position_ids=positions)
        return x

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:  # PEFT looks for it
        raise NotImplementedError


def step(model: nn.Module, x: torch.Tensor, optimizer: Any) -> None:
    model(x).float().square().mean().backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def layer_step(
    name: str,
    *,
    tokens: int,
    rank: int,
    dtype: str,
    shape: str = "SmolLM2-135M",
    layers: int = 4,
) -> Callable[[], None]:
    """A training step of the named adapter on decoder layers."""
    kind = getattr(torch, dtype)
    x = torch.randn(max(1, tokens // 512), min(tokens, 512), SHAPES[shape]["hidden_size"], dtype=kind)
    model = peer(name, Layers(shape, layers=layers).to(kind), rank=rank, dropout=DROPOUT).train()
    return partial(step, model, x.requires_grad_(), optimizer_of(model))


def run_rank_512() -> list[Row]:
    rows, figures = [], []
    for dtype, targets in {"bfloat16": {"naive": 0.90, "lora": 1.05}, "float32": {"naive": None, "lora": None}}.items():
        options: Any = {"tokens": 512, "rank": 512, "dtype": dtype, "shape": "InternLM2-7B", "layers": 1}
        steps = {name: layer_step(name, **options) for name in (*targets, "moslora")}
        seconds = interleaved(steps, what=f"rank 512, InternLM2-7B layer, {dtype}")
        figures.append({"dtype": dtype, "seconds": seconds})
        for against, target in targets.items():
            middle, low, high = ratio(seconds, "moslora", against)
            rows.append(Row(f"rank 512, InternLM2-7B layer, {dtype}", against, middle, target, low, high))
    save("rank_512", {"tokens": 512, "dropout": DROPOUT, "figures": figures}, rows)
    return rows


def run_growth() -> list[Row]:
    rows, figures = [], []
    for dtype in ("float32", "bfloat16"):
        within = []
        for tokens, rank in POINTS:
            steps = {name: layer_step(name, tokens=tokens, rank=rank, dtype=dtype) for name in ("lora", "moslora")}
            seconds = interleaved(steps, what=f"growth, {tokens} tokens, rank {rank}, {dtype}")
            middle, low, high = ratio(seconds, "moslora", "lora")
            figures.append(
                {"dtype": dtype, "tokens": tokens, "rank": rank, "ratio": middle, "low": low, "high": high,
                 "operations_ratio": operations_ratio(tokens, rank), "seconds": seconds}
            )  # fmt: skip
            if rank not in REPORTED_RANKS:
                within.append(middle)
        rows.append(
            Row(f"growth, {dtype}: the largest ratio", "PEFT LoRA", max(within), 1.05, min(within), max(within))
        )
    save("growth", {"dropout": DROPOUT, "layers": 4, "figures": figures}, rows)
    return rows


def operations_ratio(tokens: int, rank: int) -> float:
    """Multiplications of our update over plain LoRA's, forward and backward, over a layer's adapted modules."""
    from moslora.core.lowrank import contraction

    modules = [(576, 576), (576, 192), (576, 192), (576, 1536), (1536, 576)]
    plain = mixed = 0
    for inputs, outputs in modules:
        order = contraction(tokens=tokens, inputs=inputs, outputs=outputs, rank=rank, depth=1)
        folded = {"into_a": inputs, "into_b": outputs}.get(order, tokens)
        plain += 3 * tokens * rank * (inputs + outputs)
        mixed += 3 * tokens * rank * (inputs + outputs) + 3 * rank**2 * folded
    return mixed / plain


if __name__ == "__main__":
    for row in run_rank_512() + run_growth():
        print(row)
