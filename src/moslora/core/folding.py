"""Folding the mixer into plain LoRA factors, and the weight delta of an adapter.

`B · M · A = B · (M · A)`: with A' = M·A the pair (A', B) is an ordinary LoRA adapter of the same rank and scale.
Products are computed in float32, or in the factors' own dtype where that is wider. FLoRA's Tucker core for convolutions
is a mixer (R, R, K...) of the kernel's size between an A and a B that see one position; A' then has that size too.

Shapes: R rank, I input features (times kernel size for convolutions), O output features, K kernel sizes.
"""

import torch

from moslora.core.precision import own_dtype, wide_dtype


@torch.no_grad()
def fold_into_a(a: torch.Tensor, mixer: torch.Tensor) -> torch.Tensor:
    """A' = M·A in A's dtype, rounded once: (R, ...) as A for a mixer (R, R), (R, I, K...) for a core (R, R, K...)."""
    dtype = wide_dtype(a, mixer)
    with own_dtype(a.device):
        return _mixed(a.to(dtype), mixer.to(dtype)).to(a.dtype)


@torch.no_grad()
def weight_delta(a: torch.Tensor, mixer: torch.Tensor | None, b: torch.Tensor, *, scale: float) -> torch.Tensor:
    """`scale · B·M·A` as a matrix (O, I) from A (R, ...), M (R, R) or None for identity, and B (O, R, 1...)."""
    with own_dtype(a.device):
        a_RI, b_OR = _wide_factors(a, mixer, b, dtype=wide_dtype(a, b))
        return (b_OR @ a_RI).mul_(scale)


@torch.no_grad()
def add_low_rank(
    weight_OI: torch.Tensor, a: torch.Tensor, mixer: torch.Tensor | None, b: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """`weight + scale · B·M·A` as a new matrix in weight's dtype, summed in float32 or wider and rounded once."""
    dtype = wide_dtype(weight_OI, a, b)
    with own_dtype(a.device), own_dtype(weight_OI.device):
        a_RI, b_OR = (factor.to(weight_OI.device) for factor in _wide_factors(a, mixer, b, dtype=dtype))
        return torch.addmm(weight_OI.to(dtype), b_OR, a_RI, alpha=scale).to(weight_OI.dtype)


def ungrouped(b: torch.Tensor, *, groups: int) -> torch.Tensor:
    """B of a convolution with groups, (O, R / groups, ...), as the matrix (O, R) that it applies; B itself without."""
    return b if groups == 1 else torch.block_diag(*b.flatten(1).chunk(groups))


def _wide_factors(
    a: torch.Tensor, mixer: torch.Tensor | None, b: torch.Tensor, *, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """M·A and B as matrices in `dtype`."""
    a, b_OR = a.to(dtype), b.to(dtype).flatten(1)
    return (a if mixer is None else _mixed(a, mixer.to(dtype))).flatten(1), b_OR


def _mixed(a: torch.Tensor, mixer: torch.Tensor) -> torch.Tensor:
    if mixer.dim() == 2:
        return (mixer @ a.flatten(1)).view_as(a)
    return torch.einsum("pq...,qi->pi...", mixer, a.flatten(1))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number is finite; one pass over the tensor."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()) if tensor.numel() else True
