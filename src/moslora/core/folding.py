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
    a_RI, b_OR = _wide_factors(a, mixer_RR, b, dtype=wide_dtype(a, b))
    return (b_OR @ a_RI).mul_(scale)


@torch.no_grad()
def add_low_rank(
    weight_OI: torch.Tensor, a: torch.Tensor, mixer_RR: torch.Tensor | None, b: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """`weight + scale · B·M·A` as a new matrix in weight's dtype, summed in float32 or wider and rounded once."""
    dtype = wide_dtype(weight_OI, a, b)
    a_RI, b_OR = (factor.to(weight_OI.device) for factor in _wide_factors(a, mixer_RR, b, dtype=dtype))
    return torch.addmm(weight_OI.to(dtype), b_OR, a_RI, alpha=scale).to(weight_OI.dtype)


def _wide_factors(
    a: torch.Tensor, mixer_RR: torch.Tensor | None, b: torch.Tensor, *, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """M·A and B as matrices in `dtype`."""
    a_RI, b_OR = a.to(dtype).flatten(1), b.to(dtype).flatten(1)
    return a_RI if mixer_RR is None else mixer_RR.to(dtype) @ a_RI, b_OR


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number is finite; one pass over the tensor."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()) if tensor.numel() else True
