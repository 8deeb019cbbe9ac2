"""The mixer M between LoRA's two factors: `delta = scale · B · M · A`.

Source: "Mixture-of-Subspaces in Low-Rank Adaptation" (arXiv 2406.11909), equations 3, 6 and 7, Table 3; chains of
mixers: "Linear Chain Transformation" (arXiv 2411.00039). The papers write rows on the left, so their W is M transposed.
Where we deviate: LinChain's reference code gives each link a bias, ours has none (a bias cannot be folded into a
weight); the paper names no scale for the normal mixer, ours keeps the variance of its input.

Shapes: R rank, D depth (links of the chain), I input features, O output features.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from moslora.core.precision import own_dtype, wide_dtype

MIXERS = ("kaiming", "orthogonal", "normal", "identity", "butterfly", "zero")
CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}  # by the dimensions of a position


class Mixer(nn.Module):
    """A chain of mixers, applied first to last.

    A leaf with a single parameter `weight` of shape (D, R, R), so that sharding policies, gather hooks and key
    remapping that expect a layer with one weight work unchanged.
    """

    def __init__(self, rank: int, *, kind: str = "kaiming", depth: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(depth, rank, rank, dtype=torch.float32))
        draw_mixer_(self.weight, kind=kind)

    def matrix(self) -> torch.Tensor:
        """The whole chain as one matrix (R, R), in float32 or wider."""
        with own_dtype(self.weight.device):
            return compose(self.weight.to(wide_dtype(self.weight)))

    def forward(self, h: torch.Tensor, channel_dim: int = -1) -> torch.Tensor:
        """Mix the R channels of `h` along `channel_dim`, which has up to three dimensions of positions after it."""
        positions = (-1 - channel_dim) % h.dim()
        if positions == 0:
            for link_RR in self.weight:
                h = F.linear(h, link_RR)
            return h
        for link_RR in self.weight:  # a convolution of size 1 keeps the memory's layout
            h = CONVOLVE[positions](h, link_RR.reshape(*link_RR.shape, *[1] * positions))
        return h

    def extra_repr(self) -> str:
        """Rank and depth, for printed models."""
        depth, rank, _ = self.weight.shape
        return f"rank={rank}, depth={depth}"


@torch.no_grad()
def draw_mixer_(weight_DRR: torch.Tensor, *, kind: str) -> None:
    """Fill every link of a chain in place; weights on the meta device stay empty.

    `kind` is one of MIXERS: `kaiming` uniform with a = sqrt(5) (paper, Table 3: best on text), `orthogonal`,
    `normal` with standard deviation 1/sqrt(R), `identity` (LoRA), `butterfly` [[I, I], [I, I]] (TS-Mixing; R even),
    `zero` (FLoRA's start). Raises ValueError for another kind or an odd rank with `butterfly`.
    """
    if kind not in MIXERS:
        raise ValueError(f"mixer kind {kind!r} is not one of {MIXERS}")
    rank = weight_DRR.shape[-1]
    if kind == "butterfly" and rank % 2:
        raise ValueError(f"the butterfly mixer pairs half-ranks: rank {rank} is odd")
    if weight_DRR.is_meta:
        return
    for link_RR in weight_DRR:
        if kind == "kaiming":
            nn.init.kaiming_uniform_(link_RR, a=math.sqrt(5))
        elif kind == "orthogonal":
            nn.init.orthogonal_(link_RR)
        elif kind == "normal":
            nn.init.normal_(link_RR, std=rank**-0.5)
        elif kind == "identity":
            nn.init.eye_(link_RR)
        elif kind == "butterfly":
            link_RR.copy_(torch.eye(rank // 2, device=link_RR.device).repeat(2, 2))
        else:
            nn.init.zeros_(link_RR)


class TuckerCore(nn.Module):
    """FLoRA's core for a convolution: a small convolution over the R channels between A and B, which see one position.

    `weight` has shape (1, R, R, K...), K... the kernel of the adapted convolution, whose stride and padding it takes;
    it starts at zero, as FLoRA does.
    """

    def __init__(self, rank: int, base: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, rank, rank, *base.kernel_size, dtype=torch.float32))
        self.stride, self.padding = base.stride, base.padding

    def matrix(self) -> torch.Tensor:
        """The core (R, R, K...), in the dtype of the weight."""
        return self.weight.squeeze(0)

    def forward(self, h: torch.Tensor, channel_dim: int) -> torch.Tensor:
        """Mix the R channels of `h` (R, ...) or (batch, R, ...), -1 - positions along, over the kernel's positions."""
        return CONVOLVE[-1 - channel_dim](h, self.weight.squeeze(0), stride=self.stride, padding=self.padding)


def compose(weight_DRR: torch.Tensor) -> torch.Tensor:
    """The product M_D ··· M_1 of a chain (D, R, R) as one matrix (R, R); differentiable."""
    if len(weight_DRR) == 1:
        return weight_DRR.squeeze(0)  # its gradient is a view too
    product_RR = weight_DRR[0]
    for link_RR in weight_DRR[1:]:
        product_RR = link_RR @ product_RR
    return product_RR
