"""The low-rank update of a linear layer: `y + scale · dropout(x) · (B·M·A)ᵀ`, fast and light.

Source: paper, equation 7. Where we deviate from three linear layers in a row, and why it is the same number:

- The mixer is folded into A or B by ordinary autograd wherever that takes fewer operations than mixing every token
  (`contraction`), so A and M get exact gradients and the update costs what plain LoRA costs.
- One autograd function adds the update into the base layer's output in place and keeps for backward only x, the R
  channels h, and the dropout mask. Matrix products run in x's dtype, as under autocast; gradients come in the factors'
  dtype. Second derivatives are not defined: asking for them is an error.
- On the CPU the dropout mask takes four 16-bit draws from each 64-bit random number, so the keep probability is rounded
  to 1/65536, and the scale with it, which keeps the expectation exact.

Shapes: N tokens, I input features, O output features, R rank, D links of the mixer's chain.
"""

from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moslora.core.mixers import compose

Contraction = Literal["into_a", "into_b", "unfolded"]
LEVELS = 65536  # steps of the keep probability on the CPU


def contraction(*, tokens: int, inputs: int, outputs: int, rank: int, depth: int) -> Contraction:
    """Where the mixer takes the fewest multiplications: composed and folded into A or B, or applied to every token."""
    composing = (depth - 1) * rank**3
    costs: dict[Contraction, int] = {
        "into_a": composing + rank**2 * inputs,
        "into_b": composing + rank**2 * outputs,
        "unfolded": composing + rank**2 * tokens,
    }
    return min(costs, key=costs.__getitem__)


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
    """`y + scale · dropout(x) · (B·M·A)ᵀ` in y's dtype; y (..., O) is changed in place where autograd allows it.

    x is (..., I); `mixer_DRR` is None for plain LoRA; `dropout` is the probability to drop, 0 outside training.
    """
    mixer_RR = None if mixer_DRR is None else compose(mixer_DRR)
    if mixer_RR is not None:
        order = contraction(
            tokens=x.numel() // x.shape[-1],
            inputs=x.shape[-1],
            outputs=y.shape[-1],
            rank=len(a_RI),
            depth=1,
        )
        if order != "unfolded":
            with torch.autocast(x.device.type, enabled=False):
                a_RI, b_OR = (mixer_RR @ a_RI, b_OR) if order == "into_a" else (a_RI, b_OR @ mixer_RR)
            mixer_RR = None
    if torch.compiler.is_compiling():
        return _plain(y, x, a_RI, mixer_RR, b_OR, scale=scale, dropout=dropout)
    if not _may_write(y):
        y = y.clone()
    return _AddUpdate.apply(y, x, a_RI, mixer_RR, b_OR, scale, dropout)  # pyright: ignore[reportReturnType]


def keep_mask(shape: torch.Size, keep: float, device: torch.device) -> tuple[torch.Tensor, float]:
    """A boolean mask, True with probability `keep`, and that probability as it was rounded (on the CPU to 1/65536)."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(keep), keep
    threshold = round(keep * LEVELS)
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    mask = words.view(torch.int16)[:count] < threshold - LEVELS // 2 if threshold < LEVELS else None
    mask = torch.ones(count, dtype=torch.bool) if mask is None else mask
    return mask.view(shape), threshold / LEVELS


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
        x_NI = x.reshape(-1, x.shape[-1])
        mask = None
        if dropout > 0:
            mask, keep = keep_mask(x_NI.shape, 1 - dropout, x.device)
            scale = scale / keep if keep else 0.0
        dropped_NI = x_NI if mask is None else x_NI * mask
        first_NR = dropped_NI @ a_RI.to(x.dtype).t()
        h_NR = first_NR if mixer_RR is None else first_NR @ mixer_RR.to(x.dtype).t()
        y.view(-1, y.shape[-1]).addmm_(h_NR.to(y.dtype), b_OR.to(y.dtype).t(), alpha=scale)
        ctx.mark_dirty(y)
        ctx.save_for_backward(x, a_RI, mixer_RR, b_OR, first_NR, None if mixer_RR is None else h_NR, mask)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, a_RI, mixer_RR, b_OR, first_NR, h_NR, mask = ctx.saved_tensors
        (grad_y,) = gradients
        h_NR = first_NR if h_NR is None else h_NR
        x_NI = x.reshape(-1, x.shape[-1])
        g_NO = grad_y.reshape(-1, grad_y.shape[-1]).to(x.dtype)
        grad_h_NR = (g_NO @ b_OR.to(x.dtype)).mul_(ctx.scale)
        grad_b = grad_mixer = None
        if ctx.needs_input_grad[4]:
            grad_b = (g_NO.t() @ h_NR).to(b_OR.dtype).mul_(ctx.scale)
        if mixer_RR is not None:
            if ctx.needs_input_grad[3]:
                grad_mixer = (grad_h_NR.t() @ first_NR).to(mixer_RR.dtype)
            grad_h_NR = grad_h_NR @ mixer_RR.to(x.dtype)
        grad_a = grad_x = None
        if ctx.needs_input_grad[2]:
            grad_a = (grad_h_NR.t() @ (x_NI if mask is None else x_NI * mask)).to(a_RI.dtype)
        if ctx.needs_input_grad[1]:
            grad_x = grad_h_NR @ a_RI.to(x.dtype)
            grad_x = (grad_x if mask is None else grad_x.mul_(mask)).view_as(x)
        return grad_y, grad_x, grad_a, grad_mixer, grad_b, None, None


def _plain(
    y: torch.Tensor,
    x: torch.Tensor,
    a_RI: torch.Tensor,
    mixer_RR: torch.Tensor | None,
    b_OR: torch.Tensor,
    *,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """The same formula in plain operations, which a compiler fuses."""
    h = F.linear(F.dropout(x, dropout), a_RI.to(x.dtype))
    if mixer_RR is not None:
        h = F.linear(h, mixer_RR.to(x.dtype))
    return y + (F.linear(h, b_OR.to(x.dtype)) * scale).to(y.dtype)


def _may_write(y: torch.Tensor) -> bool:
    """Whether y may be changed in place: no leaf that needs a gradient, no view, not under forward-mode."""
    is_forward_mode = torch.autograd.forward_ad._current_level >= 0
    is_guarded_leaf = y.is_leaf and y.requires_grad
    return y.is_contiguous() and not (is_guarded_leaf or y._is_view() or is_forward_mode)
