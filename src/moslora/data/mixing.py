"""Several sources in one epoch, each with its share of the samples."""

import math
from collections.abc import Mapping, Sequence

import torch


def weighted(numbers: Mapping[str, Sequence[int]], weights: Mapping[str, float], *, seed: int) -> list[int]:
    """The samples of an epoch, by their numbers: of each source in proportion to its weight, and none left out.

    The epoch is the shortest in which that is so: the source with the most samples for its weight comes once, and the
    others repeat theirs, whole rounds first and then samples drawn at random, the same for the same seed.
    """
    rounds = max(len(own) / weights[name] for name, own in numbers.items())
    generator = torch.Generator().manual_seed(seed)
    mixed: list[int] = []
    for name, own in numbers.items():
        whole, more = divmod(max(len(own), math.floor(rounds * weights[name] + 0.5)), max(1, len(own)))
        drawn = torch.randperm(len(own), generator=generator)[:more].tolist()
        mixed += [*own] * whole + [own[place] for place in sorted(drawn)]
    return mixed
