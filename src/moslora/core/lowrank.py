"""The low-rank update of a linear layer: `y + scale · dropout(x) · (B·M·A)ᵀ`, fast and light.

Source: paper, equation 7. Where we deviate from three linear layers in a row, and why it is the same number:

- The mixer is folded into A or B by ordinary autograd wherever that takes fewer operations than mixing every token
  (`contraction`), so A and M get exact gradients and the update costs what plain LoRA costs.
- One autograd function adds the update into the base layer's output in place and keeps for backward only x, the R
  channels h, and where x was dropped (`moslora.core.dropping`). Matrix products run in x's dtype, as under autocast;
  gradients come in the factors' dtype. Second derivatives are not defined: asking for them is an error.

Shapes: N tokens (positions of a convolution), I input and O output features, R rank, D links of the mixer's chain.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moslora.core.dropping import draw_dropped, drop, drop_
from moslora.core.mixers import compose

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
    channel_dim: int = -1,
    base_OI: torch.Tensor | None = None,
) -> torch.Tensor:
    """`y + scale · dropout(x) · (B·M·A)ᵀ` in y's dtype; y is changed in place where autograd allows it.

    x is (..., I) and y (..., O), or with `channel_dim=1` (a 1×1 convolution) (batch, I, ...) and (batch, O, ...).
    `mixer_DRR` is None for plain LoRA; `dropout` is the probability to drop, 0 outside training. `base_OI` is the
    frozen weight that y was computed from x with, y = x·Wᵀ (+ bias), if the backward pass may go through it here
    instead of through y: one sum of gradients of x's size less.
    """
    links: list[torch.Tensor] = []
    if mixer_DRR is not None:
        order = contraction(
            tokens=x.numel() // x.shape[channel_dim],
            inputs=x.shape[channel_dim],
            outputs=y.shape[channel_dim],
            rank=len(a_RI),
            depth=len(mixer_DRR),
        )
        with _own_dtype(x.device.type):
            links = list(mixer_DRR) if order == "chained" else [compose(mixer_DRR)]
            if order in ("into_a", "into_b"):
                a_RI, b_OR = (links[0] @ a_RI, b_OR) if order == "into_a" else (a_RI, b_OR @ links[0])
                links = []
    if torch.compiler.is_compiling() or len(links) > 1:
        return _plain(y, x, a_RI, links, b_OR, scale=scale, dropout=dropout, channel_dim=channel_dim)
    if base_OI is not None:
        y = y.detach()
    if not _may_write(y):
        y = y.clone(memory_format=torch.contiguous_format)
    mixer_RR = links[0] if links else None
    updated: Any = _AddUpdate.apply(y, x, a_RI, mixer_RR, b_OR, base_OI, scale, dropout, channel_dim != -1)
    return updated


def _own_dtype(device: str) -> AbstractContextManager[Any]:
    """Factors are multiplied in their own dtype, whatever autocast says."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class _AddUpdate(torch.autograd.Function):
    """Rows are tokens: (N, I) and (N, O) for linear layers, (batch, positions, I or O) for 1×1 convolutions."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        a_RI: torch.Tensor,
        mixer_RR: torch.Tensor | None,
        b_OR: torch.Tensor,
        base_OI: torch.Tensor | None,
        scale: float,
        dropout: float,
        is_convolution: bool,
    ) -> torch.Tensor:
        ctx.rows = _convolution_rows if is_convolution else _linear_rows
        dropped = draw_dropped(x, dropout) if dropout > 0 else None
        ctx.scale = scale if dropped is None else scale / (1 - dropout) if dropout < 1 else 0.0
        ctx.dtypes = a_RI.dtype, b_OR.dtype
        a_RI, b_OR = a_RI.to(x.dtype), b_OR.to(x.dtype)
        first = ctx.rows(x if dropped is None else drop(x, dropped)) @ a_RI.t()
        h = first if mixer_RR is None else first @ mixer_RR.to(x.dtype).t()
        y_rows = ctx.rows(y)
        if is_convolution:
            y_rows.add_(h @ b_OR.t(), alpha=ctx.scale)
        else:
            y_rows.addmm_(h.to(y.dtype), b_OR.t().to(y.dtype), alpha=ctx.scale)
        ctx.mark_dirty(y)
        ctx.save_for_backward(x, a_RI, mixer_RR, b_OR, base_OI, first, None if mixer_RR is None else h, dropped)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, a_RI, mixer_RR, b_OR, base_OI, first, h, dropped = ctx.saved_tensors
        (grad_y,) = gradients
        dtype_a, dtype_b = ctx.dtypes
        g = ctx.rows(grad_y).to(x.dtype)
        grad_h = (g @ b_OR).mul_(ctx.scale)
        grad_x = grad_a = grad_mixer = grad_b = None
        if ctx.needs_input_grad[4]:
            grad_b_RO = _summed(first if h is None else h, g)  # few rows: faster than few columns
            grad_b = grad_b_RO.t().to(dtype_b, memory_format=torch.contiguous_format).mul_(ctx.scale)
        if mixer_RR is not None:
            if ctx.needs_input_grad[3]:
                grad_mixer = _summed(grad_h, first).to(mixer_RR.dtype)
            grad_h = grad_h @ mixer_RR.to(x.dtype)
        if ctx.needs_input_grad[2]:
            grad_a = _summed(grad_h, ctx.rows(x if dropped is None else drop(x, dropped))).to(dtype_a)
        if ctx.needs_input_grad[1]:
            grad_rows = grad_h @ a_RI
            grad_x = (grad_rows if ctx.rows is _linear_rows else grad_rows.transpose(1, 2)).reshape(x.shape)
            grad_x = grad_x if dropped is None else drop_(grad_x.contiguous(), dropped)
            if base_OI is not None:
                _linear_rows(grad_x).addmm_(g, base_OI)
        grad_y = grad_y if base_OI is None else None
        return grad_y, grad_x, grad_a, grad_mixer, grad_b, None, None, None, None


def _linear_rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])


def _convolution_rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(*x.shape[:2], -1).transpose(1, 2)


def _summed(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The sum over all rows of the outer products of left's and right's."""
    return left.t() @ right if left.dim() == 2 else (left.transpose(1, 2) @ right).sum(0)


def _plain(
    y: torch.Tensor,
    x: torch.Tensor,
    a_RI: torch.Tensor,
    links: Sequence[torch.Tensor],
    b_OR: torch.Tensor,
    *,
    scale: float,
    dropout: float,
    channel_dim: int,
) -> torch.Tensor:
    """The same formula in plain operations, which a compiler fuses."""
    h = F.dropout(x, dropout).movedim(channel_dim, -1)
    for factor in (a_RI, *links, b_OR):
        h = F.linear(h, factor.to(x.dtype))
    return y + (h * scale).to(y.dtype).movedim(-1, channel_dim)


def is_forward_mode() -> bool:
    """Whether forward-mode differentiation is on."""
    return torch.autograd.forward_ad._current_level >= 0


def _may_write(y: torch.Tensor) -> bool:
    """Whether y may be changed in place: no leaf that needs a gradient, no view, not under forward-mode."""
    is_guarded_leaf = y.is_leaf and y.requires_grad
    is_dense = y.is_contiguous() or (y.dim() == 4 and y.is_contiguous(memory_format=torch.channels_last))
    return is_dense and not (is_guarded_leaf or y._is_view() or is_forward_mode())
