"""Training that goes by visits: the n-th time that any picture is looked at, whatever the batches are."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset


class Visit(NamedTuple):
    """A row that is looked at, and how many visits, to any row, there were before."""

    row: Any
    number: int


class Visits(Dataset[Visit]):
    """`count` visits to rows, in an order that is shuffled anew each time all rows were visited.

    The order follows from the seed alone, so that it is the same for every method, however the visits are divided into
    batches and among processes, and after an interruption.
    """

    def __init__(self, rows: Sequence[Any], *, seed: int, count: int) -> None:
        self.rows, self.seed, self.count = rows, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Visit:
        passes, place = divmod(number, len(self.rows))
        return Visit(self.rows[order(len(self.rows), seed=self.seed, passes=passes)[place]], number)


@lru_cache(maxsize=8)
def order(count: int, *, seed: int, passes: int) -> list[int]:
    """The order of `count` rows in a pass over all of them."""
    generator = torch.Generator().manual_seed((seed * 2**20 + passes) % 2**63)
    return torch.randperm(count, generator=generator).tolist()
