"""Dropout that remembers little: where elements were dropped, not a mask of all of them.

On the CPU drawing and multiplying a mask costs more than the low-rank update itself, and few elements are dropped.
So the distances from one dropped element to the next are drawn, which are geometric: as many random numbers as there
are dropped elements, kept as 32-bit positions (0.2 bytes an element at p = 0.05). Elsewhere a boolean mask is drawn.

Every draw starts from torch's own generator, so seeds, resumed runs and activation checkpointing repeat it.
"""

import math

import numpy as np
import torch


def drop_some(x: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """x (any shape) with each element zero with probability p (0 < p <= 1); which; by how much the others grew.

    On the CPU what was dropped is told by ascending positions in the flattened x, and nothing grew. Elsewhere it is a
    mask of x's shape, True where kept: one kernel of torch draws, drops and scales by 1 / (1 - p).
    """
    if x.device.type != "cpu":
        return drop_by_mask(x, p)
    positions = draw_positions(x.numel(), p)
    return drop(x, positions), positions, 1.0


def drop_by_mask(x: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """What `drop_some` does where x is not on the CPU."""
    grown, kept = torch.native_dropout(x, p, train=True)
    return grown, kept, 1 / (1 - p) if p < 1 else 1.0


def draw_positions(count: int, p: float) -> torch.Tensor:
    """Ascending positions among `count` (int32, or int64 from 2²⁶), each there with probability p, independently."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    return torch.from_numpy(_positions(count, p, np.random.Generator(np.random.SFC64(seed))))


def drop(x: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """x with the dropped elements zero, unscaled, as a new tensor; contiguous where they are told by positions."""
    if dropped.dtype == torch.bool:
        return x * dropped
    return drop_(x.clone(memory_format=torch.contiguous_format), dropped)


def drop_(x: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Set the dropped elements of a contiguous x to zero in place."""
    if dropped.dtype == torch.bool:
        return x.mul_(dropped)
    x.view(-1).index_fill_(0, dropped.long(), 0)
    return x


def _positions(count: int, p: float, generator: np.random.Generator) -> np.ndarray:
    dtype = np.int32 if count < 2**26 else np.int64  # their sum, each at most `count`, stays below 2³¹
    if p >= 1:
        return np.arange(count, dtype=dtype)
    mean_gap = np.float32(-1 / math.log1p(-p))  # an exponential of this mean, rounded down, is geometric
    expected = count * p
    pieces, last = [], -1
    while last < count:
        gaps = generator.standard_exponential(int(expected + 6 * math.sqrt(expected) + 16), dtype=np.float32)
        gaps *= mean_gap
        steps = np.minimum(gaps, count, out=gaps).astype(dtype)
        steps += 1
        steps[0] += last
        pieces.append(np.cumsum(steps, out=steps))
        last, expected = int(steps[-1]), 0.0
    positions = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return positions[: np.searchsorted(positions, count)]
