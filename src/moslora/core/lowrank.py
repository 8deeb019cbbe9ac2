"""The low-rank update of a linear layer: `y + scale · dropout(x) · (B·M·A)ᵀ`, fast and light.

Source: paper, equation 7. Where we deviate from three linear layers in a row, and why it is the same number:

- The mixer is folded into A or B by ordinary autograd wherever that takes fewer operations than mixing every token
  (`contraction`), so A and M get exact gradients and the update costs what plain LoRA costs.
- One autograd function adds the update to y, out of place, and keeps for backward only x, the R channels h, and where
  x was dropped (`moslora.core.dropping`). Products run in the wider dtype of x and, where x is float16 and could
  overflow, the factors; gradients come in the factors' dtype.
- Where something rewrites or watches single operations (a compiler, a tracer, `torch.func`, forward-mode
  differentiation, tensor subclasses), and for second derivatives, the same formula runs in plain operations.

Shapes: N tokens, I input and O output features, R rank, D links of the mixer's chain.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from moslora.core.dropping import drop, drop_, drop_some
from moslora.core.mixers import compose
from moslora.core.precision import own_dtype

Contraction = Literal["into_a", "into_b", "unfolded", "chained"]


def contraction(*, tokens: int, inputs: int, outputs: int, rank: int, depth: int) -> Contraction:
    """Where the mixer takes the fewest multiplications.

    Its links are composed and folded into A or into B, composed and applied to every token, or applied to every token
    one after the other.
    """
    composing = (depth - 1) * rank**3
    costs: dict[Contraction, int] = {
        "into_a": composing + rank**2 * inputs,
        "into_b": composing + rank**2 * outputs,
        "unfolded": composing + rank**2 * tokens,
        "chained": depth * rank**2 * tokens,
    }
    cheapest: Contraction = "into_a"
    for order, cost in costs.items():  # a compiler cannot follow min(key=...) when the number of tokens is a symbol
        if cost < costs[cheapest]:
            cheapest = order
    return cheapest


def add_update(
    y: torch.Tensor,
    x: torch.Tensor,
    a_RI: torch.Tensor,
    mixer_DRR: torch.Tensor | None,
    b_OR: torch.Tensor,
    *,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """`y + scale · dropout(x) · (B·M·A)ᵀ` as a new tensor in y's dtype.

    x is (..., I) and y (..., O). `mixer_DRR` is None for plain LoRA; `dropout` is the probability to drop, 0 outside
    training. Differentiable any number of times, in reverse and in forward mode.
    """
    links: list[torch.Tensor] = []
    if mixer_DRR is not None:
        order = contraction(
            tokens=x.numel() // x.shape[-1],
            inputs=x.shape[-1],
            outputs=y.shape[-1],
            rank=a_RI.shape[0],
            depth=mixer_DRR.shape[0],
        )
        with own_dtype(x.device):
            links = list(mixer_DRR) if order == "chained" else [compose(mixer_DRR)]
            if order in ("into_a", "into_b"):
                a_RI, b_OR = (links[0] @ a_RI, b_OR) if order == "into_a" else (a_RI, b_OR @ links[0])
                links = []
    factors = (a_RI, *links, b_OR)
    if len(links) > 1 or is_watched(y, x, *factors):
        return _plain(y, x, factors, scale=scale, dropout=dropout)
    updated: Any = _AddUpdate.apply(y, x, a_RI, links[0] if links else None, b_OR, scale, dropout)
    return updated


def is_watched(*tensors: torch.Tensor) -> bool:
    """Whether something rewrites or records single operations: a compiler, tracer, mode, transform or subclass."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # what torch.autograd.Function itself asks
        or torch._C._len_torch_dispatch_stack() > 0
        or any(type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta for tensor in tensors)
        or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
    )


class _AddUpdate(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        a_RI: torch.Tensor,
        mixer_RR: torch.Tensor | None,
        b_OR: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        seen, dropped, growth = drop_some(x, dropout) if dropout > 0 else (x, None, 1.0)
        ctx.scale = scale if dropped is None else scale / (1 - dropout) if dropout < 1 else 0.0
        with own_dtype(x.device):
            first_NR, h_NR = _channels(seen, a_RI, mixer_RR, growth)
            b_RO = b_OR.to(x.dtype).t()
            if y.dtype == x.dtype:
                updated = torch.empty(y.shape, dtype=y.dtype, device=y.device)  # no view: others may write into it
                torch.addmm(_rows(y), h_NR, b_RO, alpha=ctx.scale, out=_rows(updated))
            else:
                updated = y.add((h_NR @ b_RO).view(y.shape), alpha=ctx.scale).to(y.dtype)
        ctx.save_for_backward(x, a_RI, mixer_RR, b_OR, first_NR, None if h_NR is first_NR else h_NR, dropped)
        return updated

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, a_RI, mixer_RR, b_OR, first_NR, h_NR, dropped = ctx.saved_tensors
        (grad_y,) = gradients
        _, needs_x, needs_a, needs_mixer, needs_b, _, _ = ctx.needs_input_grad
        grad_x = grad_a = grad_mixer = grad_b = None
        with own_dtype(x.device):
            if torch.is_grad_enabled():  # to be differentiated again: h must then depend on x and the factors
                first_NR, h_NR = _channels(_dropped(x, dropped), a_RI, mixer_RR)
            g_NO = _rows(grad_y).to(x.dtype)
            grad_h_NR = (g_NO @ b_OR.to(x.dtype)).mul_(ctx.scale)
            if needs_b:
                grad_b_RO = (first_NR if h_NR is None else h_NR).t() @ g_NO  # few rows: faster than few columns
                grad_b = grad_b_RO.t().to(b_OR.dtype, memory_format=torch.contiguous_format).mul_(ctx.scale)
            if mixer_RR is not None:
                if needs_mixer:
                    grad_mixer = (grad_h_NR.t() @ first_NR).to(mixer_RR.dtype)
                grad_h_NR = grad_h_NR @ mixer_RR.to(x.dtype)
            if needs_a:
                grad_a = (grad_h_NR.t() @ _rows(_dropped(x, dropped))).to(a_RI.dtype)
            if needs_x:
                grad_x = (grad_h_NR @ a_RI.to(x.dtype)).view(x.shape)
                grad_x = grad_x if dropped is None else drop_(grad_x, dropped)
        return grad_y, grad_x, grad_a, grad_mixer, grad_b, None, None


def _channels(
    seen: torch.Tensor, a_RI: torch.Tensor, mixer_RR: torch.Tensor | None, growth: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The R channels after A and after M, less the growth of x; one and the same tensor without a mixer."""
    first_NR = _rows(seen) @ a_RI.to(seen.dtype).t()
    if growth != 1:
        first_NR /= growth
    return first_NR, first_NR if mixer_RR is None else first_NR @ mixer_RR.to(seen.dtype).t()


def _dropped(x: torch.Tensor, dropped: torch.Tensor | None) -> torch.Tensor:
    return x if dropped is None else drop(x, dropped)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])


def _plain(
    y: torch.Tensor, x: torch.Tensor, factors: Sequence[torch.Tensor], *, scale: float, dropout: float
) -> torch.Tensor:
    """The same formula in plain operations."""
    with own_dtype(x.device):
        h = F.dropout(x, dropout)
        for factor in factors:
            h = F.linear(h, factor.to(x.dtype))
        return (y + h * scale).to(y.dtype)
