"""Comparing tensors number by number, each to the rounding of the dtypes it was stored in."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import torch

from moslora.core.folding import is_finite
from moslora.errors import DriftError

BLOCK = 2**22  # numbers compared at a time


@dataclass(frozen=True)
class TensorDrift:
    """How far the tensors of an export are from the adapter's, each number within the rounding of its dtype.

    `difference` is the largest |difference| within an adapted layer, as a share of the largest |number| there: of B·A'
    from B·M·A for a fold, of the written weight from W + delta for a merge. `compared` counts tensors, `layers` the
    adapted layers, and `dtype` is the coarsest that was stored.
    """

    difference: float
    compared: int
    layers: int
    dtype: str


class Comparison:
    """Compares the tensors of `what` (such as "the folded adapter") with the right ones, and keeps what it saw."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._seen: set[str] = set()
        self._layers: dict[str, tuple[float, float]] = {}
        self._coarsest = torch.float64

    def same_names(self, expected: Collection[str], found: Collection[str]) -> None:
        """Raise DriftError unless both hold the same names."""
        for verb, names in (("lacks", set(expected) - set(found)), ("also holds", set(found) - set(expected))):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                self.refuse(f"it {verb} {', '.join(sorted(names)[:3])}{more}")

    def check(
        self,
        name: str,
        expected: torch.Tensor,
        found: torch.Tensor,
        *,
        path: Sequence[torch.dtype],
        slack: torch.Tensor | float = 0.0,
    ) -> None:
        """Raise DriftError unless `found` is `expected` as rounded along the dtypes of `path`, to within `slack`."""
        self._seen.add(name)
        if expected.shape != found.shape:
            self.refuse(f"{name} has shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
        unit, least = self._rounding(path)
        found = found.detach().to(expected.device)
        if unit == 0 and expected.dtype == found.dtype and torch.equal(expected, found):
            return
        numbers = (exact(tensor).flatten().split(BLOCK) for tensor in (expected, found))
        slacks = exact(slack).flatten().split(BLOCK) if isinstance(slack, torch.Tensor) else None
        for index, (right, seen) in enumerate(zip(*numbers, strict=True)):
            difference = (seen - right).abs()
            allowed = right.abs() * unit + (least + (slack if slacks is None else slacks[index]))
            is_right = (difference <= allowed) | (seen == right) | (seen.isnan() & right.isnan())
            if not is_right.all():
                worst = difference.nan_to_num(nan=torch.inf).masked_fill(is_right, 0).argmax()
                self.refuse(
                    f"{name} has {seen[worst].item():.6g} where the adapter has {right[worst].item():.6g}, of which"
                    f" rounding explains {allowed[worst].item():.1g}"
                )

    def note(self, layer: str, expected: torch.Tensor, found: torch.Tensor) -> None:
        """Keep how far an adapted layer, or one block of it, is from the right one."""
        difference, largest = (found - expected).abs().max().item(), expected.abs().max().item()
        before = self._layers.get(layer, (0.0, 0.0))
        self._layers[layer] = max(before[0], difference), max(before[1], largest)

    def check_finite(self, name: str, *tensors: torch.Tensor) -> None:
        """Raise DriftError for a layer of the adapter with numbers that are not finite."""
        if not all(map(is_finite, tensors)):
            raise DriftError(f"{name}: the adapter holds numbers that are not finite, so nothing was written")

    def refuse(self, reason: str) -> NoReturn:
        """Raise DriftError: the export is not the adapter."""
        raise DriftError(f"{self.what} is not the adapter: {reason}; nothing was written, please report it")

    def result(self) -> TensorDrift:
        """What was compared so far."""
        shares = [difference / largest for difference, largest in self._layers.values() if largest > 0]
        dtype = str(self._coarsest).removeprefix("torch.")
        return TensorDrift(max(shares, default=0.0), len(self._seen), len(self._layers), dtype)

    def _rounding(self, path: Sequence[torch.dtype]) -> tuple[float, float]:
        """By what share, and at least by how much, a number may change on its way through these dtypes."""
        unit = least = 0.0
        for before, after in pairwise(path):
            if torch.promote_types(before, after) != after:
                limits = torch.finfo(after)
                unit, least = unit + limits.eps / 2, least + limits.smallest_normal * limits.eps / 2
                self._coarsest = max(self._coarsest, after, key=lambda dtype: torch.finfo(dtype).eps)
        return unit, least


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float64, without a graph, on a device that has float64."""
    device = torch.device("cpu") if tensor.device.type == "mps" else tensor.device
    return tensor.detach().to(device, torch.float64)
