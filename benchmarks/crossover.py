"""Where folding the mixer pays: the update's time, forward and backward, in each order over the number of tokens."""

from functools import partial
from unittest.mock import patch

import torch

from benchmarks.results import Row, save
from benchmarks.timing import interleaved
from moslora.core import lowrank

FEATURES, RANKS = 1536, (16, 128, 512)
TOKENS = (64, 256, 768, 1536, 3072, 6144)
ORDERS = ("into_a", "unfolded")


def update(order: str, parts: list[torch.Tensor]) -> None:
    y, x, a, mixer, b = parts
    with patch.object(lowrank, "contraction", lambda **_: order):
        lowrank.add_update(y.detach().clone(), x, a, mixer, b, scale=1.0).sum().backward()


def drawn(tokens: int, rank: int) -> list[torch.Tensor]:
    shapes = [(tokens, FEATURES), (tokens, FEATURES), (rank, FEATURES), (1, rank, rank), (FEATURES, rank)]
    y, *rest = (torch.randn(shape) for shape in shapes)
    return [y, *(tensor.requires_grad_() for tensor in rest)]


def run() -> list[Row]:
    figures = []
    for rank in RANKS:
        for tokens in TOKENS:
            parts = drawn(tokens, rank)
            what = f"order, rank {rank}, {tokens} tokens"
            seconds = interleaved({order: partial(update, order, parts) for order in ORDERS}, what=what)
            counted = lowrank.contraction(tokens=tokens, inputs=FEATURES, outputs=FEATURES, rank=rank, depth=1)
            figures.append({"rank": rank, "tokens": tokens, "counted": counted, "seconds": seconds})
    save("crossover", {"features": FEATURES, "dtype": "float32", "figures": figures})
    return []


if __name__ == "__main__":
    run()
