"""Folding the mixer into plain LoRA factors, and the weight delta of an adapter.

`B · M · A = B · (M · A)`: with A' = M·A the pair (A', B) is an ordinary LoRA adapter of the same rank and scale.
Products are computed in float32, or in the factors' own dtype where that is wider.

Shapes: R rank, I input features (times kernel size for convolutions), O output features.
"""

import torch


def wide_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """float32, or the widest dtype among the tensors where that is wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


@torch.no_grad()
def fold_into_a(a: torch.Tensor, mixer_RR: torch.Tensor) -> torch.Tensor:
    """A' = M·A in A's shape (R, ...) and dtype, rounded once."""
    dtype = wide_dtype(a, mixer_RR)
    return (mixer_RR.to(dtype) @ a.to(dtype).flatten(1)).view_as(a).to(a.dtype)


@torch.no_grad()
def weight_delta(a: torch.Tensor, mixer_RR: torch.Tensor | None, b: torch.Tensor, *, scale: float) -> torch.Tensor:
    """`scale · B·M·A` as a matrix (O, I) from A (R, ...), M (R, R) or None for identity, and B (O, R, 1...)."""
    dtype = wide_dtype(a, b)
    a_RI, b_OR = a.to(dtype).flatten(1), b.to(dtype).flatten(1)
    if mixer_RR is not None:
        a_RI = mixer_RR.to(dtype) @ a_RI
    return (b_OR @ a_RI).mul_(scale)


def add_delta(weight: torch.Tensor, delta: torch.Tensor, *, sign: int = 1) -> torch.Tensor:
    """`weight ± delta` as a new tensor in weight's dtype, added in float32 or wider and rounded once."""
    dtype = wide_dtype(weight, delta)
    return weight.to(dtype).add(delta.to(weight.device, dtype), alpha=sign).to(weight.dtype)
