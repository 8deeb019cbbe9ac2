"""The adapted layer in float64 on the CPU, written from the paper: y = base(x) + scale · B·M·A·x (equation 7).

It reads an adapted layer's stored tensors and calls none of its code. DoRA (arXiv 2402.09353, equation 5) scales each
output of W + scale · B·M·A to its magnitude; its norm takes no gradient (section 4.3).
"""

from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

Tensors = dict[str, torch.Tensor]
CONVOLVE: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def adapter_tensors(layer: Any) -> Tensors:
    """The trained tensors of an adapted layer: A, M (all links), B and, with DoRA, the magnitudes."""
    if isinstance(layer.get_base_layer(), nn.Embedding):
        found = {"A": layer.lora_embedding_A["default"], "B": layer.lora_embedding_B["default"]}
    else:
        found = {"A": layer.lora_A["default"].weight, "B": layer.lora_B["default"].weight}
    found["M"] = layer.lora_mixer["default"].weight
    if "default" in layer.lora_magnitude_vector:
        found["magnitude"] = layer.lora_magnitude_vector["default"].weight
    return found


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """A leaf of the same values in float64, on the CPU."""
    copy = tensor.detach().cpu().double()
    return copy.requires_grad_(tensor.requires_grad)


def base_weight(layer: Any) -> torch.Tensor:
    """The frozen weight in float64, dequantised, linear layers as (O, I)."""
    base = layer.get_base_layer()
    weight = dequantize_module_weight(base).detach().cpu().double()
    return weight.T if isinstance(base, Conv1D) else weight


def exact_output(layer: Any, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """What the adapted layer should give for `x`; `tensors` and `x` are float64 on the CPU (`x` may be token ids)."""
    base, scale = layer.get_base_layer(), layer.scaling["default"]
    bias = None if getattr(base, "bias", None) is None else base.bias.detach().cpu().double()
    weight = base_weight(layer)
    if "magnitude" in tensors:
        adapted = weight + exact_delta(layer, tensors)
        norms = adapted.detach().flatten(1).norm(dim=1)
        factors = tensors["magnitude"].flatten() / norms
        return apply(base, factors.view(-1, *[1] * (adapted.dim() - 1)) * adapted, x, bias)
    return apply(base, weight, x, bias) + scale * update(base, tensors, x)


def update(base: nn.Module, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """`B·M·A·x`, one factor after the other; for convolutions A (a Tucker core: M) sees the kernel's positions."""
    a, links, b = tensors["A"], tensors["M"], tensors["B"]
    if isinstance(base, nn.Embedding):
        return mixed(a.T[x], links) @ b.T
    if not is_convolution(base):
        return mixed(x @ a.T, links) @ b.T
    convolve = CONVOLVE[a.dim()]
    window: dict[str, Any] = {"stride": base.stride, "padding": base.padding}
    if links.dim() > 3:
        h = convolve(convolve(x, a), links[0], **window)
    else:
        h = mixed(convolve(x, a, **window).movedim(1, -1), links).movedim(-1, 1)
    return convolve(h, b, groups=base.groups)


def mixed(h: torch.Tensor, links: torch.Tensor) -> torch.Tensor:
    """The chain M of (D, R, R) on h (..., R)."""
    for link in links:
        h = h @ link.T
    return h


def exact_delta(layer: Any, tensors: Tensors) -> torch.Tensor:
    """`scale · B·M·A` in the shape of the base weight, linear layers as (O, I); not for grouped convolutions."""
    a, links, b = tensors["A"], tensors["M"], tensors["B"]
    delta = layer.scaling["default"] * torch.einsum("op,pi...->oi...", b.flatten(1), folded(a, links))
    base = layer.get_base_layer()
    if isinstance(base, nn.Embedding):
        return delta.T
    return delta.view(base.weight.shape) if is_convolution(base) else delta


def folded(a: torch.Tensor, links: torch.Tensor) -> torch.Tensor:
    """A' = M·A."""
    if links.dim() > 3:
        return torch.einsum("pq...,qi->pi...", links[0], a.flatten(1))
    for link in links:
        a = torch.einsum("pq,q...->p...", link, a)
    return a


def apply(base: nn.Module, weight: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The base layer's operation with another weight, linear layers as (O, I)."""
    if isinstance(base, nn.Embedding):
        return weight[x]
    if is_convolution(base):
        options: dict[str, Any] = {"stride": base.stride, "padding": base.padding, "groups": base.groups}
        return CONVOLVE[weight.dim()](x, weight, bias, **options)
    return F.linear(x, weight, bias)


def is_convolution(base: nn.Module) -> bool:
    return isinstance(base, nn.Conv1d | nn.Conv2d | nn.Conv3d)
