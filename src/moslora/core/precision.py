"""In which precision products are computed: float32 or wider, and never in autocast's."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def wide_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """float32, or the widest dtype among the tensors where that is wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def autocast_dtype(kind: str) -> torch.dtype | None:
    """The dtype that autocast computes in on a kind of device; None where it is off or does not exist (meta)."""
    # Not torch.amp.is_autocast_available: the compiler of torch 2.11 breaks its graph there, at every layer.
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def own_dtype(device: torch.device) -> AbstractContextManager[Any]:
    """Within the block, products on a device are computed in their factors' dtype, whatever autocast says."""
    kind = device.type
    return nullcontext() if autocast_dtype(kind) is None else torch.autocast(kind, enabled=False)
